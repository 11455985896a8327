"""A tree's attention mask, as models of transformers take it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quantgate.backends.tree import TokenTree


def masks(tree: TokenTree, model: Any, eager: bool) -> Any:
    """Attention mask, [1, 1, nodes, past + nodes]; with windowed attention, one for each type of layer. KeyError for
    layers that have neither full nor windowed attention."""
    seen = tree.mask()
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    if not window or tree.length <= window:
        return _mask(seen, model, eager)
    positions = np.array([*range(tree.past), *tree.positions])
    near = seen & (positions[tree.past :, None] - positions < window)
    types = getattr(config, "layer_types", None)
    if types is None:
        return _mask(near, model, eager)
    kinds = {"full_attention": seen, "sliding_attention": near}
    return {kind: _mask(kinds[kind], model, eager) for kind in set(types)}


def _mask(seen: NDArray[np.bool_], model: Any, eager: bool) -> torch.Tensor:
    mask = torch.from_numpy(seen)[None, None].to(model.device)
    if not eager:
        return mask
    # Eager attention adds the mask to the scores.
    added = torch.zeros(mask.shape, dtype=model.dtype, device=model.device)
    return added.masked_fill_(~mask, torch.finfo(model.dtype).min)
