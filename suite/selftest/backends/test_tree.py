"""Prefix trees, and the batches that sequences are scored in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.backends.tree import TokenSequence, TokenTree, batches, build_tree, plan
from quantgate.items import common_length

VOCABULARY = 6
"""Few tokens: random sequences then share much."""


def sequence(ids: str, start: int) -> TokenSequence:
    """`sequence("abcd", 2)` scores c and d."""
    return TokenSequence(tuple(ord(c) - ord("a") for c in ids), start)


def ids_of(tree: TokenTree) -> str:
    return "".join(chr(token + ord("a")) for token in tree.ids)


def targets_of(tree: TokenTree) -> list[list[tuple[int, str]]]:
    """Per sequence: the node whose logits are needed, and the token whose score they give."""
    return [[(tree.rows[row], chr(token + ord("a"))) for row, token in pairs] for pairs in tree.targets]


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [([1, 2, 3], [1, 2, 4], 2), ([1, 2], [1, 2, 3], 2), ([1], [2], 0), ([1, 2], [1, 2], 2), ([], [1], 0)],
)
def test_how_far_two_texts_are_the_same(one: list[int], other: list[int], length: int) -> None:
    assert common_length(one, other) == common_length(other, one) == length


def test_a_single_sequence_is_a_chain_without_its_last_token() -> None:
    tree = build_tree([sequence("abca", 2)])
    assert (ids_of(tree), tree.positions, tree.parents) == ("abc", [0, 1, 2], [-1, 0, 1])
    assert tree.is_chain
    assert tree.rows == [1, 2]
    assert targets_of(tree) == [[(1, "c"), (2, "a")]]
    assert tree.mask().tolist() == np.tri(3, dtype=bool).tolist()


def test_choices_share_their_context() -> None:
    tree = build_tree([sequence("abcde", 2), sequence("abdce", 2), sequence("abf", 2)])
    #            a  b  c  d  d  c: the third choice adds no node, the only token that it adds is never fed
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
    assert not tree.is_chain, "two sequences: a backend that takes sequence numbers needs both"


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
    filled = list(batches(items, budget))
    assert [s for batch, _ in filled for s in batch] == [s for group in items for s in group]
    rest = iter(items)
    for batch, past in filled:
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
    assert others[0].mask().sum(axis=1).tolist() == [17, 18] * 3, "all of the past, then its path"
    assert others[1].length == 18


def test_another_subject_brings_examples_of_its_own() -> None:
    here, there = with_examples("afb", "bfa"), [[sequence("fed" * 4 + end, 13)] for end in ("afb", "bfa")]
    assert [tree.past for tree in plan([*here, *there], 8)] == [0, 16, 0, 12]


def test_examples_of_the_first_items_differ_and_what_they_share_is_kept() -> None:
    """lm-evaluation-harness leaves an item out of its examples."""
    one, two, three, question = "abcdabcd", "bcdebcde", "cdefcdef", "ef"
    contexts = [two + three, one + three, *[one + two] * 3]
    items = [[sequence(c + question + end, 18)] for c, end in zip(contexts, "abaca", strict=True)]
    trees = plan(items, 4)
    assert [tree.past for tree in trees] == [0, 0, 8, 17]
    assert [len(tree.ids) for tree in trees] == [18, 18, 10, 1], (
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
