"""Scoring through prefix trees: the numbers of one sequence at a time, on a model of arithmetic and on real ones."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.backends.tree import TokenSequence, TokenTree, batches, build_tree, plan
from quantgate.errors import MeasurementError
from quantgate.measure.scoring import score

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from quantgate.backends.base import Backend

    from selftest.tiny import TinyModel

VOCABULARY = 6
"""Few tokens: random sequences then share much."""


def sequence(ids: str, start: int) -> TokenSequence:
    """`sequence("abcd", 2)` scores c and d."""
    return TokenSequence(tuple(ord(c) - ord("a") for c in ids), start)


def ids_of(tree: TokenTree) -> str:
    return "".join(chr(token + ord("a")) for token in tree.ids)


def targets_of(tree: TokenTree) -> list[list[tuple[int, str]]]:
    """Per sequence: the node whose logits are wanted, and the token that they are wanted for."""
    return [[(tree.rows[row], chr(token + ord("a"))) for row, token in pairs] for pairs in tree.targets]


# --- the tree -------------------------------------------------------------------------------------


def test_a_single_sequence_is_a_chain_without_its_last_token() -> None:
    tree = build_tree([sequence("abca", 2)])
    assert (ids_of(tree), tree.positions, tree.parents) == ("abc", [0, 1, 2], [-1, 0, 1])
    assert tree.is_chain
    assert tree.rows == [1, 2]
    assert targets_of(tree) == [[(1, "c"), (2, "a")]]
    assert tree.mask().tolist() == np.tri(3, dtype=bool).tolist()


def test_choices_share_their_context() -> None:
    tree = build_tree([sequence("abcde", 2), sequence("abdce", 2), sequence("abf", 2)])
    #            a  b  c  d  d  c: the third choice adds no node, its only own token is never fed
    assert ids_of(tree) == "abcddc"
    assert tree.positions == [0, 1, 2, 3, 2, 3]
    assert tree.parents == [-1, 0, 1, 2, 1, 4]
    assert tree.members == [[0, 1, 2], [0, 1, 2], [0], [0], [1], [1]]
    assert tree.rows == [1, 2, 3, 4, 5]
    assert targets_of(tree) == [[(1, "c"), (2, "d"), (3, "e")], [(1, "d"), (4, "c"), (5, "e")], [(1, "f")]]
    assert not tree.is_chain
    visible = [
        "".join(c if seen else "." for c, seen in zip("abcddc", row, strict=True)) for row in tree.mask()
    ]
    assert visible == ["a.....", "ab....", "abc...", "abcd..", "ab..d.", "ab..dc"]


def test_identical_sequences_are_computed_once_and_scored_twice() -> None:
    tree = build_tree([sequence("abc", 1), sequence("abc", 1)])
    assert ids_of(tree) == "ab"
    assert tree.members == [[0, 1], [0, 1]]
    assert targets_of(tree) == [[(0, "b"), (1, "c")]] * 2
    assert not tree.is_chain, "two sequences: a backend that takes sequence numbers has to be told of both"


def test_a_sequence_that_begins_another_adds_nothing() -> None:
    tree = build_tree([sequence("abcd", 1), sequence("abc", 2), sequence("abcde", 4)])
    assert ids_of(tree) == "abcd"
    assert tree.members == [[0, 1, 2], [0, 1, 2], [0, 2], [2]]
    assert targets_of(tree) == [[(0, "b"), (1, "c"), (2, "d")], [(1, "c")], [(3, "e")]]


def test_sequences_with_nothing_in_common_do_not_see_each_other() -> None:
    """Other tokens in between do not matter: they share nothing once the first token differs."""
    tree = build_tree([sequence("abc", 1), sequence("bbc", 1)])
    assert ids_of(tree) == "abbb"
    assert tree.parents == [-1, 0, -1, 2]
    assert tree.positions == [0, 1, 0, 1]
    assert tree.mask().tolist() == np.kron(np.eye(2), np.tri(2)).astype(bool).tolist()


def test_only_what_is_scored_is_asked_for() -> None:
    tree = build_tree([sequence("abcdef", 5), sequence("abcdea", 4)])
    assert tree.rows == [3, 4]
    assert tree.targets == [[(1, 5)], [(0, 4), (1, 0)]]


@pytest.mark.parametrize("start", [-1, 0, 3, 4])
def test_the_first_token_has_no_context_and_something_must_be_scored(start: int) -> None:
    with pytest.raises(ValueError, match=f"start {start} must be in 1..2"):
        sequence("abc", start)


sequences = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=9).flatmap(
    lambda ids: st.builds(TokenSequence, st.just(tuple(ids)), st.integers(1, len(ids) - 1))
)
groups = st.lists(st.lists(sequences, min_size=1, max_size=4), min_size=1, max_size=6)
quick = settings(max_examples=80, deadline=None, database=None, derandomize=True)


@quick
@given(st.lists(sequences, min_size=1, max_size=8))
def test_a_tree_has_each_beginning_once_and_each_path_is_its_sequence(items: list[TokenSequence]) -> None:
    tree = build_tree(items)
    beginnings = {s.ids[:end] for s in items for end in range(1, len(s.ids))}
    assert len(tree.ids) == len(beginnings)
    mask = tree.mask()
    for node, parent in enumerate(tree.parents):
        assert parent < node
        assert mask[node].sum() == tree.positions[node] + 1, "it sees as many as come before it, and itself"
        path = tuple(tree.ids[n] for n in np.flatnonzero(mask[node]))
        assert path in beginnings
        assert tree.members[node] == [n for n, s in enumerate(items) if s.ids[:-1][: len(path)] == path]
    assert tree.rows == sorted(set(tree.rows))
    for item, pairs in zip(items, tree.targets, strict=True):
        assert tuple(token for _, token in pairs) == item.ids[item.start :]
        positions = [tree.positions[tree.rows[row]] for row, _ in pairs]
        assert positions == list(range(item.start - 1, len(item.ids) - 1))


# --- batches --------------------------------------------------------------------------------------


def filled(items: list[list[TokenSequence]], budget: int) -> list[list[TokenSequence]]:
    return [batch for batch, _ in batches(items, budget)]


def test_batches_are_filled_with_whole_groups() -> None:
    one, two = [sequence("abcd", 1)], [sequence("abc", 1), sequence("abdf", 1)]  # 3 and 3 tokens
    assert filled([one, two, one, two, one], 6) == [one + two, one + two, one]
    assert filled([one, two, one, two, one], 8) == [one + two, one + two, one]
    assert filled([one, two, one, two, one], 9) == [one + two + one, two + one]
    assert filled([], 9) == []


def test_a_group_larger_than_the_budget_goes_alone_and_whole() -> None:
    small, large = [sequence("ab", 1)], [sequence("abcdef", 1), sequence("fedcba", 1)]
    assert filled([small, large, small], 4) == [small, large, small]


@quick
@given(groups, st.integers(1, 30))
def test_no_batch_splits_a_group_or_exceeds_the_budget(items: list[list[TokenSequence]], budget: int) -> None:
    found = list(batches(items, budget))
    assert [s for batch, _ in found for s in batch] == [s for group in items for s in group]
    rest = iter(items)
    for batch, past in found:
        inside: list[list[TokenSequence]] = []
        while sum(map(len, inside)) < len(batch):
            inside.append(next(rest))
        assert [s for group in inside for s in group] == batch
        assert len(inside) == 1 or len(build_tree(batch, past).ids) <= budget


EXAMPLES = "abcdefabcdefabcd"


def with_examples(*ends: str) -> list[list[TokenSequence]]:
    """Items of one choice each, whose last token is scored."""
    return [[sequence(EXAMPLES + end, len(EXAMPLES + end) - 1)] for end in ends]


def test_examples_are_computed_once_and_kept_across_batches() -> None:
    first, *others = plan(with_examples("afb", "bfa", "cfb", "dfa", "efb"), 6)
    assert ids_of(first) == EXAMPLES + "af", "larger than the budget: alone"
    assert (first.past, first.kept) == (0, len(EXAMPLES))
    assert [ids_of(tree) for tree in others] == ["bfcfdf", "ef"], (
        "the examples do not count against the budget again"
    )
    assert [tree.past for tree in others] == [len(EXAMPLES)] * 2
    assert [tree.kept for tree in others] == [len(EXAMPLES), 0]
    assert others[0].positions == [16, 17] * 3
    assert others[0].parents == [-1, 0, -1, 2, -1, 4]
    assert targets_of(others[0]) == [[(1, "a")], [(3, "b")], [(5, "a")]]
    assert others[0].mask().sum(axis=1).tolist() == [17, 18] * 3, "all of the past, then one's own"
    assert others[1].length == 18


def test_another_subject_brings_examples_of_its_own() -> None:
    here, there = with_examples("afb", "bfa"), [[sequence("fed" * 4 + end, 13)] for end in ("afb", "bfa")]
    assert [tree.past for tree in plan([*here, *there], 8)] == [0, 16, 0, 12]


def test_examples_of_the_first_items_differ_and_what_they_share_is_kept() -> None:
    """lm-evaluation-harness leaves an item out of its own examples."""
    one, two, three, question = "abcdabcd", "bcdebcde", "cdefcdef", "ef"
    contexts = [two + three, one + three, *[one + two] * 3]
    items = [[sequence(c + question + end, 18)] for c, end in zip(contexts, "abaca", strict=True)]
    found = plan(items, 4)
    assert [tree.past for tree in found] == [0, 0, 8, 17]
    assert [len(tree.ids) for tree in found] == [18, 18, 10, 1], (
        "the last two differ only in what is predicted"
    )


@pytest.mark.parametrize(("budget", "kept"), [(256, 16), (272, 0)])
def test_a_beginning_is_kept_where_that_saves_a_sixteenth_of_a_batch(budget: int, kept: int) -> None:
    items = [[TokenSequence((*range(16), n, *[n] * 200), 17)] for n in (1, 2)]
    assert [tree.past for tree in plan(items, budget)] == [0, kept]


def test_what_is_scored_is_computed_again() -> None:
    """The logits of a token that is in the cache are gone: all sequences begin alike, but are scored from the start."""
    items = [[sequence(EXAMPLES + end, 5)] for end in ("a", "b")]
    assert [tree.past for tree in plan(items, 2)] == [0, 4]


# --- score, with a model that is arithmetic -------------------------------------------------------


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
        assert len(tokens) == tree.length, "more is asked for than was kept"
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
    found = scored_by(Arithmetic(), items, budget)
    assert [len(group) for group in found] == [len(group) for group in items]
    for group, results in zip(items, found, strict=True):
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


def test_progress_is_told_in_tokens() -> None:
    told: list[tuple[int, int]] = []
    backend: Any = Arithmetic()
    score(backend, ITEMS, 4, lambda done, total: told.append((done, total)))
    assert told == [(6, 10), (10, 10)]


def test_nothing_to_score_does_not_trouble_the_backend() -> None:
    backend = Arithmetic()
    assert scored_by(backend, [], 100) == []
    assert backend.reserved == []


# --- logits that no healthy model gives -----------------------------------------------------------


class Broken(Arithmetic):
    """Puts a value into the logits of one row."""

    def __init__(self, row: int, column: int | slice, value: float) -> None:
        super().__init__()
        self._place = (row, column)
        self._value = value

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        found = super().logits(tree)
        found[self._place] = self._value
        return found


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
    (found,) = scored_by(Broken(0, 5, -np.inf), [[sequence("abc", 1)]], 100)[0]
    assert np.isfinite(found.logprobs).all()
    assert found.logprobs[0] > by_hand(sequence("abc", 1))[0][0], "the others share its probability"


def test_large_logits_do_not_overflow() -> None:
    (found,) = scored_by(Broken(0, slice(None), 1e6), [[sequence("abc", 1)]], 100)[0]
    assert found.logprobs[0] == pytest.approx(-np.log(VOCABULARY))


# --- real models ----------------------------------------------------------------------------------


def questions(vocabulary: int) -> list[list[TokenSequence]]:
    """Items as accuracy has them: shared contexts, a continuation of one token, one that begins another, two
    that are the same, contexts that begin alike; and one long sequence."""
    source = random.Random(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(1, vocabulary) for _ in range(count))

    context, other = tokens(12), tokens(7)
    end = tokens(5)
    return [
        [
            TokenSequence(context + end, 12),
            TokenSequence(context + end[:2], 12),
            TokenSequence(context + tokens(1), 12),
        ],
        [TokenSequence(context[:6] + tokens(4), 6), TokenSequence(context[:6] + end, 6)],
        [TokenSequence(other + end, 7), TokenSequence(other + end, 7), TokenSequence((end[0], *other), 1)],
        [TokenSequence(tokens(40), 1)],
    ]


def questions_with_examples(vocabulary: int) -> list[list[TokenSequence]]:
    """Two subjects, whose items begin with the examples of theirs."""
    source = random.Random(2)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(1, vocabulary) for _ in range(count))

    items = []
    for examples in (tokens(64), tokens(48)):
        for _ in range(6):
            context = examples + tokens(source.randint(1, 9))
            items.append([TokenSequence(context + tokens(n), len(context)) for n in (1, 3, 5)])
    return items


def assert_equal_to_one_at_a_time(
    backend: Backend, items: list[list[TokenSequence]], tolerance: float
) -> None:
    alone = [[score(backend, [[s]], 512)[0][0] for s in group] for group in items]
    spread = np.std([x for group in alone for s in group for x in s.logprobs])
    assert spread > 100 * tolerance, "the model tells tokens apart, or this would prove nothing"
    for budget in (512, 30, 1):
        together = score(backend, items, budget)
        for found, expected in zip(together, alone, strict=True):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=tolerance)


@pytest.fixture(scope="module")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with random weights, large enough that attention matters."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("random-llama")
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("asked", [questions, questions_with_examples], ids=["plain", "examples kept"])
def test_a_tree_through_transformers_is_each_sequence_alone(random_llama: Path, asked: Any) -> None:
    from quantgate.backends.runtime.transformers import load

    backend = load(random_llama, {"device": "cpu", "dtype": "float32"}, 1)
    assert_equal_to_one_at_a_time(backend, asked(300), 1e-4)


@pytest.mark.parametrize(
    ("asked", "within"),
    [(questions, 5e-3), (questions_with_examples, 1.5e-2)],
    ids=["plain", "examples kept"],
)
def test_a_tree_through_llamacpp_is_each_sequence_alone(tiny: TinyModel, asked: Any, within: float) -> None:
    """llama.cpp's cache holds half-precision numbers, in both ways of scoring."""
    from quantgate.backends.runtime.llamacpp import load

    backend = load(tiny.gguf, {"device": "cpu"}, 1)
    assert_equal_to_one_at_a_time(backend, asked(512), within)


def test_examples_are_kept_in_these_tests() -> None:
    pasts = [tree.past for tree in plan(questions_with_examples(300), 30)]
    assert set(pasts) == {0, 64, 48}
    assert pasts.count(0) == 2


@pytest.mark.parametrize("kind", ["Gemma3TextConfig", "MistralConfig"])
def test_windowed_attention_is_the_models_own(kind: str, tmp_path: Path) -> None:
    """One has layers with and without a window, of the other all have one."""
    import torch
    import transformers
    from quantgate.backends.runtime.transformers import load

    config = getattr(transformers, kind)(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, initializer_range=0.2, sliding_window=20,
        **({"layer_types": ["sliding_attention", "full_attention"]} if kind.startswith("Gemma") else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    backend = load(tmp_path, {"device": "cpu", "dtype": "float32"}, 1)
    assert_equal_to_one_at_a_time(backend, questions_with_examples(300), 1e-4)


def test_transformers_and_llamacpp_agree_on_the_same_weights(tiny: TinyModel) -> None:
    from quantgate.backends.runtime import llamacpp, transformers

    items = questions(512)
    ours = score(transformers.load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1), items, 512)
    theirs = score(llamacpp.load(tiny.gguf, {"device": "cpu"}, 1), items, 512)
    for a, b in zip((s for g in ours for s in g), (s for g in theirs for s in g), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-2)
