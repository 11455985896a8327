"""quantgate.init."""
