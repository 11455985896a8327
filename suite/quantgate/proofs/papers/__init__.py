"""Check findings of papers on quantized models against the measurements of this suite."""
