"""How models of transformers compute a tree: what the modules themselves would come to, up to rounding, in less time.

Only trees (the tasks): the layers of a text of one sequence (perplexity, divergence), decoding and timings go by the
kernels that torch takes by default, as they would for anybody else.
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

FOLDED = 4
"""Heads that share a key and are computed as further rows of one head: the mask is repeated as often."""

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
    [1, nodes, heads, size]. Of heads that share a key, few are further rows of one head, whose products are less small,
    many are a batch: keys need not be repeated.
    """
    blocks = getattr(attention_mask, "blocks", None)
    if (
        blocks is None
        or others
        or any(further.get(name) is not None for name in ("position_bias", "softcap"))
    ):
        whole: tuple[Any, None] = _sdpa(module, query, key, value, attention_mask, *others, **further)
        return whole
    sharing = query.shape[1] // key.shape[1]
    folded = sharing if sharing <= FOLDED else 1
    # [batch, key/value heads, heads in one, nodes, size]
    query = query[0].unflatten(0, (key.shape[1], -1, folded)).transpose(0, 1)
    output = query.new_empty(query.shape[3], key.shape[1], *query.shape[0:3:2], value.shape[-1])

    def part(tensor: Any, columns: tuple[slice, ...], dim: int) -> Any:
        found = [tensor[(..., c, *[slice(None)] * (-1 - dim))] for c in columns]
        return found[0] if len(found) == 1 else torch.cat(found, dim)

    # What is added to the scores of each block: made in the first layer that asks for it.
    parts = vars(attention_mask).setdefault("parts", {})
    if folded not in parts:
        seen = (part(attention_mask[0, 0, b.rows], b.columns, -1).repeat(folded, 1) for b in blocks)
        parts[folded] = [query.new_zeros(s.shape).masked_fill_(~s, -torch.inf) for s in seen]
    for block, mask in zip(blocks, parts[folded], strict=True):
        rows = query[:, :, :, block.rows].flatten(2, 3)
        k, v = (part(t, block.columns, -2).expand(len(query), -1, -1, -1) for t in (key, value))
        found = torch.nn.functional.scaled_dot_product_attention(
            rows, k, v, attn_mask=mask, scale=further.get("scaling")
        )
        output[block.rows] = found.unflatten(2, (folded, -1)).permute(3, 1, 0, 2, 4)
    return output.flatten(1, 3)[None], None


class Products:
    """The products with the weights of `layers` and of `head`, the output projection (None: the module's own).

    In float32 torch multiplies by MKL; oneDNN is a tenth faster (two cores of an AMD EPYC with AVX-512: 212 against
    190 GFLOP/s) and takes the layers of a tree. The logits of a batch are put where those of the batch before were:
    fresh memory for a hundred megabytes, batch after batch, costs a fifth of the projection's time.
    """

    def __init__(self, layers: list[torch.nn.Linear], head: torch.nn.Linear | None) -> None:
        self._layers, self._head = layers, head
        self._logits = torch.empty(0)
        self._packed: dict[torch.nn.Linear, tuple[Any, Any]] = {}

    def release(self) -> None:
        """The memory of the logits."""
        self._logits = torch.empty(0)

    @contextmanager
    def of(self, tree: bool) -> Iterator[None]:
        """Have them computed here until the end of the context; those of the layers only for a tree. A layer that
        somebody else has given a `forward` keeps it."""
        own = {}
        if self._head is not None and is_plain(self._head):
            own[self._head] = functools.partial(self._project, tree)
        if tree:
            fast = [layer for layer in self._layers if is_plain(layer) and by_onednn(layer.weight)]
            small = sum(layer.weight.nbytes for layer in fast) <= PACKED
            for layer in fast:
                weight = self._pack(layer) if small else layer.weight
                own[layer] = functools.partial(_product, weight, layer.bias)
        for layer, forward in own.items():
            layer.forward = forward
        try:
            yield
        finally:
            for layer in own:
                del layer.forward

    def _pack(self, layer: torch.nn.Linear) -> Any:
        """Its weight in oneDNN's order, anew where it has changed."""
        version = layer.weight.data_ptr(), layer.weight._version
        known = self._packed.get(layer)
        if known is None or known[0] != version:
            known = self._packed[layer] = (
                version,
                torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach()),
            )
        return known[1]

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


def is_plain(layer: torch.nn.Module) -> bool:
    """Whether a layer is nothing but a product with its weight: quantized ones may be of the same class, with another
    `forward` or weights of another type."""
    weight = getattr(layer, "weight", None)
    return (
        type(layer) is torch.nn.Linear
        and type(weight) in (torch.Tensor, torch.nn.Parameter)
        and "forward" not in vars(layer)
    )


def by_onednn(weight: torch.Tensor) -> bool:
    """Whether oneDNN is there for it, and not taken by torch anyway, as it is in half precision."""
    return _onednn is not None and weight.dtype == torch.float32 and weight.device.type == "cpu"


def _product(weight: Any, bias: Any, states: Any) -> Any:
    """states [..., size] times weight [columns, size], transposed, plus bias."""
    assert _onednn is not None
    return _onednn(states, weight, bias, "none", [], "")
