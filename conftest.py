"""pytest enters here; everything else is in `suite.plugin`."""

pytest_plugins = ["suite.plugin"]
