"""Divergence where the likeliest tokens alone are known: a lower bound, exact where all are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.measure.metrics import divergence
from quantgate.records import Metric
from quantgate.serving.replies import Answer

from selftest.measure.fakes import VOCABULARY, Bigrams, Here
from selftest.measure.test_divergence import OPTIONS, by_hand, held_against, other_bigrams
from selftest.measure.test_logprobs import log_softmax


class Server:
    """Bigrams behind a server: what it names are the `top` likeliest tokens."""

    def __init__(self, model: Bigrams, top: int) -> None:
        self.model, self.top = model, top
        self.facts, self.sizes = model.facts, model.sizes
        self.asked = 0

    def answer(self, sequence: TokenSequence) -> Answer:
        self.asked += 1
        rows = log_softmax(self.model.table[list(sequence.ids[sequence.start - 1 : -1])]).astype(float)
        tokens = np.argsort(-rows, axis=1)[:, : self.top]
        true = np.array(sequence.ids[sequence.start :])
        logprobs = rows[np.arange(len(rows)), true]
        return Answer(logprobs, tokens, np.take_along_axis(rows, tokens, axis=1), tokens[:, 0] == true)

    def scores(self, sequences: Any) -> list[tuple[Any, Any]]:
        return [(a.logprobs, a.likeliest) for a in map(self.answer, sequences)]


def of_top(here: Here, top: int, *requests: str) -> dict[str, Metric]:
    here.backend = Bigrams()
    return held_against(here, Bigrams(), Server(other_bigrams(), top), *requests)[0]


def test_where_all_tokens_are_known_it_is_the_divergence(here: Here) -> None:
    expected = by_hand(Bigrams(), other_bigrams())
    metrics = of_top(here, VOCABULARY)
    assert metrics["divergence/kl_topk"].value == pytest.approx(expected["divergence/kl_mean"], abs=1e-5)
    for name in ("delta_p_rms", "same_top"):
        assert metrics[f"divergence/{name}"].value == pytest.approx(expected[f"divergence/{name}"], abs=1e-5)
    assert set(metrics) == {f"divergence/{name}" for name in ("kl_topk", "delta_p_rms", "same_top")}


def test_the_fewer_tokens_are_known_the_lower_the_bound(here: Here) -> None:
    values = [of_top(here, top)["divergence/kl_topk"] for top in (1, 2, 4, VOCABULARY)]
    bounds = np.array([value.samples for value in values])
    assert (np.diff(bounds, axis=0) >= -1e-6).all()
    assert (bounds >= -1e-9).all()
    assert values[0].value < values[-1].value
    assert [value.conditions["likeliest"] for value in values] == [1, 2, 4, VOCABULARY], "never compared"


def test_lumped_distributions_by_hand(here: Here) -> None:
    """The likeliest token and the true one are known, the rest is one outcome."""
    p, q = Bigrams(), other_bigrams()
    kl = []
    metrics = of_top(here, 1)
    ids, n_ctx = here.session().text("t").ids, OPTIONS["n_ctx"]
    for begin in range(0, len(ids), n_ctx):
        for position in range(n_ctx // 2, n_ctx - 1):
            before, token = ids[begin + position : begin + position + 2]
            a, b = (np.exp(log_softmax([m.table[before]])[0].astype(float)) for m in (p, q))
            named = sorted({int(b.argmax()), token})
            lumps = [np.append(x[named], 1 - x[named].sum()) for x in (a, b)]
            kl.append(float((lumps[0] * np.log(lumps[0] / lumps[1])).sum()))
    assert metrics["divergence/kl_topk"].value == pytest.approx(np.mean(kl), abs=1e-4)


def test_perplexity_takes_the_windows_that_divergence_has_asked_for(here: Here) -> None:
    from quantgate.measure.metrics import perplexity

    _, session = held_against(here, Bigrams(), server := Server(other_bigrams(), 2), "perplexity")
    asked = server.asked
    assert perplexity.measure(session, [])["perplexity"].value > 1
    assert server.asked == asked


def test_a_server_is_no_reference(here: Here) -> None:
    with pytest.raises(MeasurementError, match=r"cannot be the reference of a divergence: .* in process"):
        held_against(here, Server(Bigrams(), 2), Bigrams())
    assert divergence.GROUP.capabilities == {"tops"}
