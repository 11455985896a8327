"""The tiny model is what the end-to-end tests take it for: one model in two files."""

from __future__ import annotations

import numpy as np
from quantgate.backends.tree import TokenSequence
from quantgate.measure.scoring import score
from quantgate.supply.lines import HARD_LINES

from selftest.tiny import TEXT, TinyModel

OPTIONS = {"device": "cpu", "dtype": "float32"}


def test_llamacpp_and_transformers_see_one_model(tiny: TinyModel) -> None:
    from quantgate.backends.runtime import llamacpp, transformers

    backends = transformers.load(tiny.safetensors, OPTIONS, 1), llamacpp.load(tiny.gguf, OPTIONS, 1)
    for line in [*HARD_LINES, TEXT]:
        ids, others = (backend.tokenize(line) for backend in backends)
        assert ids == others
    windows = [[TokenSequence(tuple(ids[i : i + 128]), 1)] for i in range(0, 512, 128)]
    first, second = (
        np.concatenate([scored.logprobs for (scored,) in score(backend, windows, 128)])
        for backend in backends
    )
    assert np.abs(first - second).max() < 1e-2
    assert np.exp(-first.mean()) < 4  # it has learned something; guessing would give 512
