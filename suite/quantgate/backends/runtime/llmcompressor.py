"""What llmcompressor quantizes (GPTQ, AWQ, SmoothQuant), in the format of compressed-tensors, through transformers.

On a processor compressed-tensors decompresses the weights in the first forward pass, and rounds activations
there and back: what the model computes is that of a quantized one, what memory and time it takes is not. Its
size is that of the weights as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantgate.backends.llmcompressor import HIGH_BITS
from quantgate.backends.runtime.transformers import Transformers
from quantgate.checkpoint.checks import quantization_of
from quantgate.errors import InputError


def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Transformers:
    """Load a compressed model."""
    if options.get("as_is"):
        check_recipe(checkpoint, options)
    quantization = {"method": "compressed-tensors"}
    return Transformers(checkpoint, {**options, "as_is": True, "quantization": quantization}, threads)


def check_recipe(checkpoint: Path, options: Mapping[str, Any]) -> None:
    """Raise InputError where a checkpoint that is loaded as it is was made with other bits, groups or activations than
    the scheme's. Its method (GPTQ, AWQ) and calibration no file tells."""
    groups = quantization_of(checkpoint).get("config_groups")
    for name, group in groups.items() if isinstance(groups, dict) else ():
        for key, has, scheme in _compared(group, options):
            if has not in scheme.values():
                wanted = " or ".join(f"{option} = {value}" for option, value in scheme.items())
                raise InputError(
                    f"{checkpoint}/config.json: quantization_config.config_groups.{name}.{key}: is {has}, and the "
                    f"scheme says {wanted}: name another checkpoint, or correct the scheme"
                )


def _compared(
    group: Mapping[str, Any], options: Mapping[str, Any]
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield keys of a group, what it has there, and what the scheme's options allow, by their names."""
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    bits = {"bits": options["bits"]}
    if options.get("high"):
        bits["high_bits"] = options.get("high_bits", HIGH_BITS)
    yield "weights.num_bits", weights.get("num_bits"), bits
    size = "channel" if weights.get("strategy") == "channel" else weights.get("group_size")
    yield "weights.group_size", size, {"group": options.get("group", "channel")}
    yield "input_activations.num_bits", inputs.get("num_bits"), {"activations": options.get("activations")}
