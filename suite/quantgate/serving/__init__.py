"""Models that run in a server of their own: starting it, asking it over HTTP, checking what it answers (README.md)."""
