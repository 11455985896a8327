"""One file per backend: `suite/backends/<name>.py` offers `load(checkpoint, options, threads) -> Backend`."""
