"""How models of transformers compute a tree: what the modules themselves would come to, up to rounding, in less time.

Only trees (the tasks): a text of one sequence (perplexity, divergence), decoding and timings go by the kernels that
torch takes by default, as they would for anybody else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

COLUMNS = 1024
"""Of the vocabulary, projected at once: their logits stay in the processor's cache while they are written."""

PACKED = 1 << 30
"""Bytes of linear layers up to which each is kept a second time, in the order in which oneDNN reads it: it multiplies
another 5 % faster then."""

_sdpa = transformers.AttentionInterface()["sdpa"]
_onednn = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


def attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *others: Any, **further: Any
) -> tuple[Any, None]:
    """transformers' attention by scaled_dot_product_attention, but for a mask that comes with the blocks of a tree:
    then block by block, which leaves out what the mask forbids anyway.

    query: [1, heads, nodes, size], key and value: [1, key/value heads, past + nodes, size]; returns
    [1, nodes, heads, size]. Heads that share a key are further rows of one head: keys need not be repeated, and its
    products are less small.
    """
    blocks = getattr(attention_mask, "blocks", None)
    if (
        blocks is None
        or others
        or any(further.get(name) is not None for name in ("position_bias", "softcap"))
    ):
        whole: tuple[Any, None] = _sdpa(module, query, key, value, attention_mask, *others, **further)
        return whole
    query = query[0].unflatten(0, (key.shape[1], -1))
    sharing, nodes = query.shape[1:3]
    output = query.new_empty(nodes, key.shape[1], sharing, value.shape[-1])

    def part(tensor: Any, columns: tuple[slice, ...], dim: int) -> Any:
        found = [tensor[(..., c, *[slice(None)] * (-1 - dim))] for c in columns]
        return found[0] if len(found) == 1 else torch.cat(found, dim)

    if not hasattr(attention_mask, "parts"):  # the first layer: what is added to the scores of each block
        seen = (part(attention_mask[0, 0, b.rows], b.columns, -1).repeat(sharing, 1) for b in blocks)
        attention_mask.parts = [query.new_zeros(s.shape).masked_fill_(~s, -torch.inf) for s in seen]
    for block, mask in zip(blocks, attention_mask.parts, strict=True):
        rows = query[:, :, block.rows].flatten(1, 2)[None]
        k, v = (part(t, block.columns, -2) for t in (key, value))
        found = torch.nn.functional.scaled_dot_product_attention(
            rows, k, v, attn_mask=mask, scale=further.get("scaling")
        )
        output[block.rows] = found[0].unflatten(1, (sharing, -1)).permute(2, 0, 1, 3)
    return output.flatten(1, 2)[None], None


class Products:
    """The products with the weights of `layers` and of `head`, the output projection (None: the module's own).

    In float32 torch multiplies by MKL; oneDNN is a tenth faster (two cores of an AMD EPYC with AVX-512: 212 against
    190 GFLOP/s) and takes the layers of a tree. The logits of a batch are put where those of the batch before were:
    fresh memory for a hundred megabytes, batch after batch, costs a fifth of the projection's time.
    """

    def __init__(self, layers: list[torch.nn.Linear], head: torch.nn.Linear | None) -> None:
        self._head = head
        self._logits = torch.empty(0)
        self._layers = [layer for layer in layers if by_onednn(layer.weight)]
        self._packed: list[Any] = []

    def release(self) -> None:
        """The memory of the logits."""
        self._logits = torch.empty(0)

    @contextmanager
    def of(self, tree: bool) -> Iterator[None]:
        """Have them computed here until the end of the context; those of the layers only for a tree."""
        own = {self._head: functools.partial(self._project, tree)} if self._head is not None else {}
        if tree and self._layers:
            self._pack()
            for layer, weight in zip(self._layers, self._packed, strict=True):
                own[layer] = functools.partial(_product, weight, layer.bias)
        for layer, forward in own.items():
            layer.forward = forward
        try:
            yield
        finally:
            for layer in own:
                del layer.forward

    def _pack(self) -> None:
        if self._packed:
            return
        weights = [layer.weight.detach() for layer in self._layers]
        small = sum(w.nbytes for w in weights) <= PACKED
        self._packed = [torch.ops.mkldnn._reorder_linear_weight(w) for w in weights] if small else weights

    def _project(self, tree: bool, hidden: Any) -> Any:
        """Logits [1, rows, vocabulary] of states [1, rows, size]."""
        assert self._head is not None
        weight, bias = self._head.weight, self._head.bias
        shape = hidden.shape[1], len(weight)
        if self._logits.numel() < math.prod(shape):
            self._logits = weight.new_empty(math.prod(shape))
        logits = self._logits[: math.prod(shape)].view(shape)
        fast = tree and by_onednn(weight)
        for begin in range(0, len(weight), COLUMNS):
            part = slice(begin, begin + COLUMNS)
            if fast:
                logits[:, part] = _product(weight[part], None, hidden[0])
            else:
                torch.mm(hidden[0], weight[part].t(), out=logits[:, part])
        return (logits if bias is None else logits.add_(bias))[None]


def by_onednn(weight: torch.Tensor) -> bool:
    """Whether oneDNN is there for it, and not taken by torch anyway, as it is in half precision."""
    return _onednn is not None and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _product(weight: Any, bias: Any, states: Any) -> Any:
    """states [..., size] times weight [columns, size], transposed, plus bias."""
    assert _onednn is not None
    return _onednn(states, weight, bias, "none", [], "")
