"""Items of the task `continuation`, for models too small to know anything: which of four sentences follows two."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any

CONTEXT = 2
"""Sentences that are given."""
CHOICES = 4
LENGTHS = range(40, 240)
"""Characters of a sentence that is asked for."""
NEAR = 64
"""Sentences of other passages that wrong ones are taken from: those nearest in length, so that length tells nothing."""


def items(passages: Iterable[str]) -> list[dict[str, Any]]:
    """One item for each passage that is long enough, in order: `context`, the `sentences` to choose from, and `label`,
    the place of the one that follows in the passage. The others stand at the same place in other passages; the same
    ones are drawn each time."""
    source = random.Random(0)  # noqa: S311
    cut = [parts for p in dict.fromkeys(passages) if len(parts := sentences(p)) > CONTEXT]
    cut = [parts[: CONTEXT + 1] for parts in cut if len(parts[CONTEXT]) in LENGTHS]
    by_length = sorted((len(parts[CONTEXT]), number) for number, parts in enumerate(cut))
    rank = {number: place for place, (_, number) in enumerate(by_length)}
    found = []
    for number, (*context, true) in enumerate(cut):
        begin = max(0, rank[number] - NEAR // 2)
        near = [n for _, n in by_length[begin : begin + NEAR + 1] if cut[n][CONTEXT] != true]
        wrong = [cut[n][CONTEXT] for n in source.sample(near, CHOICES - 1)]
        label = source.randrange(CHOICES)
        choices = [*wrong[:label], true, *wrong[label:]]
        found.append({"context": " ".join(context), "sentences": choices, "label": label})
    return found


def sentences(text: str) -> list[str]:
    """The text cut after full stops, question and exclamation marks that a capital letter follows."""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(text.split()))
