"""Texts longer than a model's positions are refused, where a library would crash or score nonsense."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantgate.backends.tree import TokenTree


def refuse_longer(backend: Any, check: Callable[[int], None], *, learned: bool) -> None:
    """Have a backend call `check`, which raises an error, with the tokens of each text. learned: the positions are a
    table of weights, so that there is nothing after its end."""
    logits, reserve = backend.logits, backend.reserve

    def limited_logits(tree: TokenTree) -> Any:
        check(max(tree.positions, default=-1) + 1)
        return logits(tree)

    def limited_reserve(tokens: int, sequences: int) -> None:
        if sequences == 1:  # what is timed goes on to the end of its room; what is scored shares it
            check(tokens)
        reserve(tokens, sequences)

    backend.logits = limited_logits
    if learned:
        backend.reserve = limited_reserve
