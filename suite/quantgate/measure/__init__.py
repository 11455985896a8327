"""Everything of the measuring process (README.md)."""
