"""Rotary embeddings of transformers whose frequencies depend on how long a sequence is."""

from __future__ import annotations

from typing import Any


def length_dependent(model: Any) -> list[Any]:
    """Return the modules whose frequencies depend on the length: by dynamic scaling, or factors for long sequences."""
    return [m for m in model.modules() if {"dynamic", "longrope"} & _kinds(m)]


def reset(modules: list[Any]) -> None:
    """Have the next sequence begin as in a new model: dynamic scaling follows the longest sequence so far."""
    for module in modules:
        if "dynamic" not in _kinds(module):
            continue
        for name in [n for n, _ in module.named_buffers(recurse=False) if n.endswith("original_inv_freq")]:
            prefix = name.removesuffix("original_inv_freq")
            module.register_buffer(f"{prefix}inv_freq", getattr(module, name).clone(), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def crosses(modules: list[Any], before: int, after: int) -> bool:
    """Whether a sequence that grows from `before` to `after` tokens takes the factors for long sequences from now on:
    what is in its cache has those for short ones. transformers' generation then begins anew."""
    lengths = {_original(m) for m in modules if "longrope" in _kinds(m)}
    return any(before <= length < after for length in lengths)


def _original(module: Any) -> int:
    """Return the positions of the first training."""
    parameters = module.config.rope_parameters
    if "rope_type" not in parameters:  # by type of layer
        parameters = next(p for p in parameters.values() if p.get("rope_type") == "longrope")
    return int(parameters["original_max_position_embeddings"])


def _kinds(module: Any) -> set[Any]:
    """Return the type of the embedding; where layers differ, those of all types of layers."""
    kind = getattr(module, "rope_type", None)
    return set(kind.values()) if isinstance(kind, dict) else {kind}
