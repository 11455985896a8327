"""Everything around the model that can change a measured number (README.md)."""
