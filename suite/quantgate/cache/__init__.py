"""What is made once and kept between runs: checked before it is used, and bounded (README.md)."""
