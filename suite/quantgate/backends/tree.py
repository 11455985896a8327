"""Token trees: sequences merged at their common beginnings, and how a list of sequences becomes batches of trees.

A backend is given one tree per forward pass; `quantgate.measure.scoring` turns its logits into log-likelihoods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from quantgate.items import common_length

WORTHWHILE = 16
"""A beginning stays in the cache where computing it again would take one part in so many of a batch, or more."""

Ids = tuple[int, ...]

Way = Literal["shared", "plain"]


@dataclass(frozen=True)
class TokenSequence:
    """Token ids of which those from `start` on are scored (start >= 1: the first has no context)."""

    ids: Ids
    start: int

    def __post_init__(self) -> None:
        if not 1 <= self.start < len(self.ids):
            raise ValueError(f"start {self.start} must be in 1..{len(self.ids) - 1}")

    @property
    def unscored(self) -> Ids:
        """The tokens after which nothing is predicted that is scored."""
        return self.ids[: self.start - 1]


@dataclass
class TokenTree:
    """Sequences of one forward pass, merged at their common beginnings.

    ids, positions, parents: per node, in an order where a parent comes before its children; parent -1 is none.
    members: per node, the numbers of the sequences that run through it.
    rows: nodes whose next-token logits are wanted, ascending.
    targets: per sequence, (row, token) for each scored token; row counts within `rows`.
    past: all sequences begin with so many tokens, the same, which are no nodes: the pass before has left them in the
    cache. kept: how many tokens the next pass wants to find there; 0: none, nothing needs to be cached.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    members: list[list[int]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    targets: list[list[tuple[int, int]]] = field(default_factory=list)
    past: int = 0
    kept: int = 0

    @property
    def is_chain(self) -> bool:
        """Whether it is one sequence from its beginning: a plain forward pass is all it takes."""
        return self.sequences == 1 and not self.past

    @property
    def sequences(self) -> int:
        """How many sequences a backend has to tell apart."""
        return 1 + max(members[-1] for members in self.members)

    @property
    def length(self) -> int:
        """Tokens in the cache after the pass."""
        return self.past + len(self.ids)

    def mask(self) -> NDArray[np.bool_]:
        """Attention mask [nodes, past + nodes]: true where the row's node may see the column's token (all of the past,
        its ancestors, itself)."""
        size = len(self.ids)
        mask = np.eye(size, dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                mask[node] |= mask[parent]
        return np.hstack([np.ones((size, self.past), dtype=bool), mask])


def build_tree(sequences: Sequence[TokenSequence], past: int = 0) -> TokenTree:
    """Merge `sequences` at their common beginnings, of which the first `past` tokens are in the cache."""
    tree = TokenTree(past=past)
    children: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = []
    for number, sequence in enumerate(sequences):
        parent = -1
        path = []
        # The last token only has to be predicted, never to be fed.
        for position in range(past, len(sequence.ids) - 1):
            token = sequence.ids[position]
            node = children.get((parent, token))
            if node is None:
                node = children[parent, token] = len(tree.ids)
                tree.ids.append(token)
                tree.positions.append(position)
                tree.parents.append(parent)
                tree.members.append([])
            tree.members[node].append(number)
            path.append(node)
            parent = node
        paths.append(path[sequence.start - 1 - past :])
    tree.rows = sorted({node for path in paths for node in path})
    row_of = {node: row for row, node in enumerate(tree.rows)}
    for sequence, path in zip(sequences, paths, strict=True):
        tokens = sequence.ids[sequence.start :]
        tree.targets.append([(row_of[n], t) for n, t in zip(path, tokens, strict=True)])
    return tree


def common(beginnings: Iterable[Ids]) -> Ids:
    """Return what all begin with."""
    return reduce(lambda one, other: one[: common_length(one, other)], beginnings)


def batches(
    groups: Sequence[Sequence[TokenSequence]], budget: int
) -> Iterator[tuple[list[TokenSequence], int]]:
    """Yield batches of whole groups (the choices of an item) of up to about `budget` tokens, a larger group alone; and
    how many tokens all of a batch have in common with all of the batch before it at their beginnings, where that is
    worth keeping: they count once."""
    cached: Ids = ()  # what all of the batch before begin with
    batch: list[TokenSequence] = []
    stem: Ids = ()
    past = size = count = 0

    def shared(beginning: Ids) -> int:
        length = common_length(cached, beginning)
        return length if length * WORTHWHILE >= budget else 0

    for group in groups:
        beginning = common(s.unscored for s in group)
        cost = len(build_tree(group).ids)
        together = common([stem, beginning]) if batch else beginning
        if batch and size + cost - shared(together) * (count + 1) > budget:
            yield batch, past
            cached, together, batch, size, count = stem, beginning, [], 0, 0
        batch.extend(group)
        stem, past, size, count = together, shared(together), size + cost, count + 1
    if batch:
        yield batch, past


def chains(groups: Sequence[Sequence[TokenSequence]]) -> list[TokenTree]:
    """Return a tree without branches for each sequence; one for neighbours of a group that differ in their last token
    alone."""
    alike = (
        build_tree(list(same)) for group in groups for _, same in groupby(group, key=lambda s: s.ids[:-1])
    )
    return [replace(tree, members=[[0] for _ in tree.ids]) for tree in alike]


def plan(groups: Sequence[Sequence[TokenSequence]], budget: int, way: Way = "shared") -> list[TokenTree]:
    """Return the forward passes. shared: one tree for a batch, which leaves in the cache what the next one needs."""
    if way == "plain":
        return chains(groups)
    trees = [build_tree(batch, past) for batch, past in batches(groups, budget)]
    kept = [tree.past for tree in trees[1:]] + [0]
    return [replace(tree, kept=count) for tree, count in zip(trees, kept, strict=False)]
