"""One file per backend: `suite/quantgate/backends/<name>.py` offers `load(checkpoint, options, threads) -> Backend`."""
