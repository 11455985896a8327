"""A loaded model against what it is given: ids and texts that it has no vector for are refused, with the numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.backends.base import Scores
from quantgate.errors import MeasurementError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantgate.backends.base import Backend
    from quantgate.backends.tree import TokenTree


def fit(backend: Backend, vocabulary: int, weights: Path, key: Callable[[], str]) -> None:
    """Have the backend refuse texts longer than its positions, where a library would crash or score nonsense.

    vocabulary: how many ids the model's own tokenizer gives. weights: the checkpoint, for messages. key: gives the
    table of the matrix that asks for what is worked on. Raises MeasurementError: more ids than the embedding has rows.
    """
    sizes = backend.sizes()
    if vocabulary > sizes.vocabulary:
        raise MeasurementError(
            f"{weights}: its tokenizer has {vocabulary:,} tokens, its embedding {sizes.vocabulary:,} rows: name the "
            "tokenizer that the model was trained with, or resize the embedding"
        )
    if sizes.positions is None:
        return
    limit = sizes.positions

    def check(tokens: int) -> None:
        if tokens > limit:
            raise MeasurementError(
                f"{weights}: has {limit:,} positions, and a text has {tokens:,} tokens: lower what [{key()}] asks for"
            )

    if isinstance(backend, Scores):  # it refuses them itself
        return
    logits, reserve = backend.logits, backend.reserve

    def fitting_logits(tree: TokenTree) -> NDArray[np.float32]:
        check(max(tree.positions, default=-1) + 1)
        return logits(tree)

    def fitting_reserve(tokens: int, sequences: int) -> None:
        if sequences == 1:  # what is timed goes on to the end of its room; what is scored shares it
            check(tokens)
        reserve(tokens, sequences)

    setattr(backend, "logits", fitting_logits)  # noqa: B010
    if sizes.learned:
        setattr(backend, "reserve", fitting_reserve)  # noqa: B010
