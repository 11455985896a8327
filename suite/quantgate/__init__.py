"""quantgate: a regression gate for quantized language models."""

__version__ = "0.1.0"
