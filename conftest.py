"""Load the gate's pytest plugin, and that of suite/test_papers.py."""

pytest_plugins = ["quantgate.plugin.hooks", "quantgate.proofs.papers.plugin"]
