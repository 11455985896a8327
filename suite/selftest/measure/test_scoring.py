"""Scores are those of one sequence at a time, by a model of arithmetic; logits that no healthy model gives."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantgate.backends.tree import TokenSequence, TokenTree
from quantgate.errors import MeasurementError
from quantgate.measure.scoring import score

from selftest.backends.test_tree import VOCABULARY, groups, quick, sequence

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Arithmetic:
    """Its logits follow from the tokens that a node sees, and from their positions: a mask that lets it see a
    neighbour, or a position that is off by one, gives other numbers."""

    def __init__(self) -> None:
        self.reserved: list[tuple[int, int]] = []
        self.sizes: list[tuple[int, int]] = []
        self._cache: list[tuple[int, int]] = []

    def reserve(self, tokens: int, sequences: int) -> None:
        self.reserved.append((tokens, sequences))

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        self.sizes.append((len(tree.ids), len(tree.targets)))
        mask = tree.mask()
        tokens = [*self._cache[: tree.past], *zip(tree.positions, tree.ids, strict=True)]
        assert len(tokens) == tree.length, "more is needed than was kept"
        self._cache = tokens[: tree.kept]
        seen = [sorted(tokens[n] for n in np.flatnonzero(mask[row])) for row in tree.rows]
        return np.array([arithmetic(pairs) for pairs in seen], dtype=np.float32)


def arithmetic(seen: list[tuple[int, int]]) -> list[float]:
    """Logits after `seen`, (position, token) in order."""
    source = random.Random(repr(seen))
    return [source.uniform(-8, 8) for _ in range(VOCABULARY)]


def by_hand(item: TokenSequence) -> tuple[list[float], list[bool]]:
    """Log-probability of each scored token, and whether it is the likeliest: one sequence, no tree, no batch."""
    logprobs, greedy = [], []
    for position in range(item.start, len(item.ids)):
        logits = np.array(arithmetic(list(enumerate(item.ids[:position]))), dtype=np.float32).astype(float)
        logprobs.append(float(logits[item.ids[position]] - np.log(np.exp(logits).sum())))
        greedy.append(bool(logits[item.ids[position]] == logits.max()))
    return logprobs, greedy


def scored_by(backend: Any, items: list[list[TokenSequence]], budget: int) -> list[list[Any]]:
    return score(backend, items, budget)


@quick
@given(groups, st.integers(1, 60))
def test_scores_are_those_of_each_sequence_alone(items: list[list[TokenSequence]], budget: int) -> None:
    scored = scored_by(Arithmetic(), items, budget)
    assert [len(group) for group in scored] == [len(group) for group in items]
    for group, results in zip(items, scored, strict=True):
        for item, result in zip(group, results, strict=True):
            logprobs, greedy = by_hand(item)
            assert result.logprobs.tolist() == pytest.approx(logprobs, abs=1e-5)
            assert result.total == pytest.approx(sum(logprobs), abs=1e-4)
            assert result.greedy.tolist() == greedy
            assert result.all_greedy == all(greedy)


ITEMS = [
    [sequence("abcde", 2), sequence("abdce", 2)],  # 6 tokens
    [sequence("fabc", 1)],  # 3
    [sequence("ab", 1), sequence("ac", 1), sequence("ad", 1)],  # 1
]


def test_room_is_made_once_for_the_largest_batch() -> None:
    backend = Arithmetic()
    scored_by(backend, ITEMS, 4)
    assert backend.sizes == [(6, 2), (4, 4)]
    assert backend.reserved == [(6, 4)]


def test_progress_counts_tokens() -> None:
    progress: list[tuple[int, int]] = []
    backend: Any = Arithmetic()
    score(backend, ITEMS, 4, lambda *event: progress.append(event))
    assert progress == [(6, 10), (10, 10)]


def test_nothing_to_score_does_not_trouble_the_backend() -> None:
    backend = Arithmetic()
    assert scored_by(backend, [], 100) == []
    assert backend.reserved == []


class Broken(Arithmetic):
    """Puts a value into the logits of one row."""

    def __init__(self, row: int, column: int | slice, value: float) -> None:
        super().__init__()
        self._place = (row, column)
        self._value = value

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        logits = super().logits(tree)
        logits[self._place] = self._value
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error_that_says_where(value: float) -> None:
    """Row 1 is node 2 here: the first two tokens are context."""
    with pytest.raises(MeasurementError) as caught:
        scored_by(Broken(1, 3, value), [[sequence("abcde", 2)]], 100)
    assert "the model's logits are not finite (first at token 2 of a batch of 4)" in str(caught.value)
    assert "broken weights" in str(caught.value)


def test_logits_that_are_all_minus_infinity_are_an_error() -> None:
    with pytest.raises(MeasurementError, match="not finite"):
        scored_by(Broken(0, slice(None), -np.inf), [[sequence("abc", 1)]], 100)


def test_a_scored_token_that_is_impossible_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="a scored token has probability 0"):
        scored_by(Broken(0, 1, -np.inf), [[sequence("abc", 1)]], 100)


def test_another_token_may_be_impossible() -> None:
    """A vocabulary that is padded has logits of minus infinity."""
    (scored,) = scored_by(Broken(0, 5, -np.inf), [[sequence("abc", 1)]], 100)[0]
    assert np.isfinite(scored.logprobs).all()
    assert scored.logprobs[0] > by_hand(sequence("abc", 1))[0][0], "the others share its probability"


def test_large_logits_do_not_overflow() -> None:
    (scored,) = scored_by(Broken(0, slice(None), 1e6), [[sequence("abc", 1)]], 100)[0]
    assert scored.logprobs[0] == pytest.approx(-np.log(VOCABULARY))
