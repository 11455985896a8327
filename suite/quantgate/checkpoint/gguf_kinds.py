"""Refuse GGUF files that hold no model which continues a text from left to right, where their header says so."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from quantgate.errors import AssetError

ARCHITECTURES = {
    **dict.fromkeys(("t5", "t5encoder"), "an encoder, with or without a decoder"),
    **dict.fromkeys(("*bert*", "gemma-embedding"), "an encoder"),
    **dict.fromkeys(("dream", "llada", "llada-moe"), "a diffusion model"),
    "clip": "what sees or hears beside a language model (mmproj)",
    "wavtokenizer-dec": "a decoder of sounds",
}
"""Patterns of `general.architecture`."""
TYPES = {
    "adapter": "a LoRA beside its model, which is not applied here (merge it into the model)",
    "imatrix": "an importance matrix and no model",
    "mmproj": "what sees or hears beside a language model",
}
"""Of `general.type`, what is no model."""


def check_gguf_kind(file: Path, values: Mapping[str, Any]) -> None:
    """Raise AssetError where a header names something else. values: of the header."""
    if (kind := TYPES.get(str(values.get("general.type")))) is not None:
        raise refusal(f"{file}: general.type", str(values["general.type"]), kind)
    architecture = str(values.get("general.architecture"))
    for pattern, kind in ARCHITECTURES.items():
        if fnmatchcase(architecture, pattern):
            raise refusal(f"{file}: general.architecture", architecture, kind)


def refusal(key: str, value: str, kind: str) -> AssetError:
    """Return the error for a key whose value says that a checkpoint is none of a language model."""
    return AssetError(
        f"{key} is {value}, {kind}: only models that continue a text from left to right can be measured; name the "
        "checkpoint of one"
    )
