"""The probe of the handshake: how long its sequences are, and which lengths a configuration names."""

from __future__ import annotations

import math
from typing import Any

import pytest
from quantgate.backends.base import lengths_in
from quantgate.backends.tree import TokenSequence
from quantgate.measure.way import probe_of


@pytest.mark.parametrize("length", range(2, 40))
def test_no_probe_is_longer_than_what_is_scored(length: int) -> None:
    """Or it would go beyond the positions that a model has."""

    class Named:
        def lengths(self) -> list[int]:
            return [20, 30, 1000]

    backend: Any = Named()
    probe = probe_of(backend, [[TokenSequence(tuple(range(length)), 1)]])
    every = [*probe.sequences, probe.whole, *probe.cuts]
    assert max(len(s.ids) for s in every) <= length
    longest = max(len(s.ids) for s in probe.sequences)
    assert longest > 30 + 1 or length <= 32, "one sequence is longer than each length that is named"
    assert [tree.past for tree in probe.trees if tree.past] or length < 3


def test_the_lengths_that_a_configuration_names() -> None:
    named = {
        "sliding_window": 512, "attention_chunk_size": None, "rope": {"original_max_position_embeddings": 64},
        "window_sizes": [8, 24], "vocab_size": 300, "use_sliding_window": True, "time_step_limit": (0.0, math.inf),
        "llama.context_length": 2048, "llama.embedding_length": 576, "llama.attention.key_length": 96,
    }  # fmt: skip
    assert lengths_in(named) == [8, 24, 64, 512, 2048]
