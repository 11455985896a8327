"""Headers and configurations of checkpoints: which files there are, and what they say; no weights are loaded."""
