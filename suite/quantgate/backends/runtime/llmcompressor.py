"""What llmcompressor quantizes (GPTQ, AWQ, SmoothQuant), in the format of compressed-tensors, through transformers.

On a processor compressed-tensors decompresses the weights in the first forward pass, and rounds activations
there and back: what the model computes is that of a quantized one, what memory and time it takes is not. Its
size is that of the weights as they are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.backends.runtime.transformers import Transformers


def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Transformers:
    """Load a compressed model."""
    quantization = {"method": "compressed-tensors"}
    return Transformers(checkpoint, {**options, "as_is": True, "quantization": quantization}, threads)
