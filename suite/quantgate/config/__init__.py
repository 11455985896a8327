"""Read and check the TOML files that people write (README.md)."""
