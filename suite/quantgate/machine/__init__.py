"""What can change a measured number although nobody has changed the model (README.md)."""
