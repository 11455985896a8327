"""The command that writes a starter `quantgate.toml`."""
