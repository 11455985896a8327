"""Decoding through the cache, compared with one forward pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from quantgate.backends.base import Sizes
from quantgate.errors import MeasurementError
from quantgate.measure.metrics import decoding

from selftest.measure.fakes import IDS, VOCABULARY, Here, with_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selftest.tiny import TinyModel


def test_decoding_is_held_against_one_forward_pass(here: Here) -> None:
    model = with_text(here)
    metric = here.measure(decoding, text="t", context=5, tokens=4)["decoding/kl_mean"]
    assert metric.value == pytest.approx(0, abs=1e-6)
    assert len(metric.samples or []) == 4
    assert [call for call in model.calls if call[0] != "reserve"] == [("prefill", 5), *[("decode", 1)] * 4]
    assert model.trees[-1].ids == IDS[:9]
    assert metric.conditions.items() >= {"source": "w1", "text": "t", "context": "5", "decoded": "4"}.items()


def test_decoding_says_how_likely_the_text_is_in_all_contexts(here: Here) -> None:
    """What is wrong on both sides, as rotary positions beyond a window, is no divergence of one from the other."""
    model = with_text(here)
    metrics = here.measure(decoding, text="t", context=5, tokens=4, further=[{"context": 2, "tokens": 2}])
    metric = metrics["decoding/perplexity"]
    expected = [-model.logprob(IDS[n], IDS[n + 1]) for n in (5, 6, 7, 8, 2, 3)]
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.value == pytest.approx(math.exp(sum(expected) / 6), rel=1e-5)
    assert (metric.link, metric.conditions["context"], metric.conditions["decoded"]) == (
        "exp",
        "5, 2",
        "4, 2",
    )
    assert [call for call in model.calls if call[0] == "prefill"] == [("prefill", 5), ("prefill", 2)]
    assert len(metrics["decoding/kl_mean"].samples or []) == 6


def test_further_contexts_longer_than_the_positions_are_left_out(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = with_text(here)
    here.options = {"decoding": {"text": "t", "context": 5, "tokens": 4, "further": FURTHER}}
    for positions, context in ((11, "5, 2, 9"), (10, "5, 2"), (9, "5, 2")):
        monkeypatch.setattr(model, "sizes", lambda n=positions: Sizes(vocabulary=VOCABULARY, positions=n))
        session = here.session()
        metric = decoding.measure(session, [])["decoding/kl_mean"]
        assert metric.conditions["context"] == context
        note = f"decoding leaves out 9 + 2 tokens: the model has {positions} positions"
        assert session.notes.get("decoding") == (None if positions == 11 else note)


FURTHER = [{"context": 2, "tokens": 2}, {"context": 9, "tokens": 2}]


def test_decoding_sees_a_leak_by_its_slope(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_text(here)
    options = {"text": "t", "context": 2, "tokens": 16}
    assert here.measure(decoding, **options)["decoding/growth"].value < 1000
    kept, decode = [], model.decode

    def leaking(ids: Sequence[int]) -> None:
        kept.append(np.ones(64 * 1024, np.uint8))
        decode(ids)

    monkeypatch.setattr(model, "decode", leaking)
    metric = here.measure(decoding, **options)["decoding/growth"]
    assert 40_000 < metric.value < 90_000
    assert (metric.kind, metric.unit, metric.better) == ("exact", "bytes/token", "lower")


def test_one_large_allocation_while_decoding_is_no_leak(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_text(here)
    kept, decode = [], model.decode

    def growing(ids: Sequence[int]) -> None:
        if len([call for call in model.calls if call[0] == "decode"]) == 9:
            kept.append(np.ones(8 * 1024 * 1024, np.uint8))
        decode(ids)

    monkeypatch.setattr(model, "decode", growing)
    assert here.measure(decoding, text="t", context=2, tokens=16)["decoding/growth"].value < 1000
    assert kept


def test_decoding_that_goes_astray_shows_as_divergence(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_text(here)
    shifted = np.roll(model.table, 1, axis=1)
    monkeypatch.setattr(model, "next_logits", lambda: shifted[model.last])
    metric = here.measure(decoding, text="t", context=5, tokens=4)["decoding/kl_mean"]
    expected = []
    for token in IDS[5:9]:
        p, q = (np.exp(row) / np.exp(row).sum() for row in (model.table[token], shifted[token]))
        expected.append(float((p * np.log(p / q)).sum()))
    assert metric.samples == pytest.approx(expected, rel=1e-4)
    assert metric.value > 0.1


def test_decoding_that_overflows_is_an_error(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_text(here), "next_logits", lambda: np.full(VOCABULARY, np.inf, np.float32))
    with pytest.raises(MeasurementError, match="not finite"):
        here.measure(decoding, text="t", context=5, tokens=4)


@pytest.mark.parametrize("backend", ["transformers", "llamacpp"])
def test_decoding_through_the_cache_is_one_forward_pass(backend: str, here: Here, tiny: TinyModel) -> None:
    import importlib

    module = importlib.import_module(f"quantgate.backends.runtime.{backend}")
    checkpoint = tiny.safetensors if backend == "transformers" else tiny.gguf
    with_text(here)
    here.backend = module.load(checkpoint, {"device": "cpu", "dtype": "float32"}, 1)
    metric = here.measure(decoding, text="t", context=12, tokens=8)["decoding/kl_mean"]
    assert abs(metric.value) < 1e-4
    without = here.backend.decode
    here.backend.decode = lambda ids: without([3])
    assert here.measure(decoding, text="t", context=12, tokens=8)["decoding/kl_mean"].value > 0.01
