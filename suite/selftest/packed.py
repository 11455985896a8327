"""GPTQ and AWQ folders, packed as their formats say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GROUP = 32
CONFIGURATIONS = {
    "gptq": {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "checkpoint_format": "gptq"},
    "awq": {"bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs is in which place of an integer."""


def _packed(values: Any, order: Sequence[int] = range(8)) -> Any:
    """Put each eight values of 4 bits along the last axis into one int32, the first lowest."""
    import torch

    eights = values.to(torch.int64).unflatten(-1, (-1, 8))
    whole = sum(eights[..., place] << (4 * number) for number, place in enumerate(order))
    return ((whole + 2**31) % 2**32 - 2**31).to(torch.int32).contiguous()


def write_packed(source: Path, folder: Path, method: str) -> dict[str, Any]:
    """Write the weights of `source` in the method's format, with its configuration and without its tokenizer; return
    the weights that they stand for."""
    import torch
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    stored, meant = {}, {}
    for name, weight in load_file(source / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = meant[name] = weight
            continue
        groups = weight.unflatten(1, (-1, GROUP))
        scale = (groups.abs().amax(-1) / 7).half().float()
        rounded = (groups / scale[..., None]).round().clamp(-8, 7)
        meant[name] = (rounded * scale[..., None]).flatten(1)
        levels = rounded.flatten(1) + 8  # [outputs, inputs]
        zeros = torch.full((weight.shape[1] // GROUP, weight.shape[0]), 8)
        stem = name.removesuffix("weight")
        stored[f"{stem}scales"] = scale.T.contiguous().half()
        if method == "gptq":  # whose files have zero points less one
            stored[f"{stem}qweight"] = _packed(levels).T.contiguous()
            stored[f"{stem}qzeros"] = _packed(zeros - 1)
            stored[f"{stem}g_idx"] = (torch.arange(weight.shape[1]) // GROUP).int()
        else:
            stored[f"{stem}qweight"] = _packed(levels.T, AWQ_ORDER)
            stored[f"{stem}qzeros"] = _packed(zeros, AWQ_ORDER)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_bytes())
    quantization = {"quant_method": method, **CONFIGURATIONS[method]}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    return meant


def write_plain(source: Path, folder: Path, weights: dict[str, Any]) -> Path:
    """Write a copy of `source` with other weights."""
    from safetensors.torch import save_file

    shutil.copytree(source, folder)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
