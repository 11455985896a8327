"""What papers found about quantized models, asked of the measurements of this suite: points, curves, findings."""
