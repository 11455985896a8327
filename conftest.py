"""pytest enters here; everything else is in `quantgate.plugin.hooks`."""

pytest_plugins = ["quantgate.plugin.hooks"]
