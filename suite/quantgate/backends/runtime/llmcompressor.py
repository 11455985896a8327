"""What llmcompressor quantizes (GPTQ, AWQ, SmoothQuant), in the format of compressed-tensors, through transformers.

On a processor compressed-tensors decompresses the weights in the first forward pass, and rounds activations
there and back: what the model computes is that of a quantized one, what memory and time it takes is not. Its
size is that of the weights as they are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantgate.backends.base import Rounding, Weights
from quantgate.backends.runtime.linear import linear_layers, linear_weights
from quantgate.backends.runtime.transformers import Transformers
from quantgate.errors import MeasurementError

try:
    import compressed_tensors
except ImportError:
    raise MeasurementError(
        "this backend needs compressed-tensors: pip install 'quantgate[calibrated]'"
    ) from None


class LLMCompressor(Transformers):
    """A compressed model of transformers."""

    reads = "compressed-tensors"

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        super().__init__(checkpoint, options, threads)
        held = super().weights()
        # Counted now: in the first forward pass the compressed weights become whole ones.
        linear = linear_layers(self._model)
        inside = {id(p) for layer in linear.values() for p in layer.parameters()}
        sizes = {name: layer.in_features * layer.out_features for name, layer in linear.items()}
        packed = sum(sizes[n] for n, layer in linear.items() if hasattr(layer, "quantization_scheme"))
        others = {n: p for n, p in linear_weights(self._model).items() if id(p) not in inside}
        count = sum(sizes.values())
        count += sum(p.numel() for p in self._model.parameters() if id(p) not in inside)
        self._weights = Weights(
            held.bytes,
            count,
            held.file_bytes,
            simulated=True,
            linear=sum(sizes.values()) + sum(p.numel() for p in others.values()),
            in_scheme=packed,
        )

    @property
    def rounding(self) -> Rounding:
        """Activations may be rounded to 8 bits: what is next to a step falls on either side."""
        return Rounding(super().rounding.floor, 1.0)

    def weights(self) -> Weights:
        return self._weights

    def facts(self) -> dict[str, str | int | float | bool | None]:
        return {**super().facts(), "compressed-tensors": compressed_tensors.__version__}


load = LLMCompressor
