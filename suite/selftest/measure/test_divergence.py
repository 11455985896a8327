"""Divergence: exact values of its metrics, who writes and reads the reference, and when."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.errors import MeasurementError
from quantgate.items import Text
from quantgate.measure.groups import ratio_stderr
from quantgate.measure.metrics import divergence, perplexity
from quantgate.measure.session import Session

from selftest.measure.fakes import IDS, N_CTX, WINDOWS, Bigrams, Here, with_text
from selftest.measure.test_logprobs import log_softmax

if TYPE_CHECKING:
    from quantgate.records import Metric


ROWS = N_CTX - (N_CTX // 2 + 1)
OPTIONS: dict[str, Any] = {"text": "t", "n_ctx": N_CTX, "windows": WINDOWS, "block": 2}


def held_against(here: Here, reference: Any, cell: Any, *requests: str) -> tuple[dict[str, Metric], Session]:
    """Metrics of `cell`, after `reference` has left its log-probabilities."""
    with_text(here)
    path = here.folder / "logprobs" / "r.npy"
    here.options = {"divergence": {**OPTIONS}, "perplexity": {**OPTIONS}}
    here.job = {
        "requests": ["divergence", *requests],
        "reference": "tiny/fake/f",
        "left": {"divergence": path},
    }
    here.backend = reference
    assert divergence.measure(here.session(), []) == {}
    here.job["reference"], here.backend = "tiny/fake/reference", cell
    session = here.session()
    return divergence.measure(session, []), session


def other_bigrams(seed: int = 8) -> Bigrams:
    model = Bigrams()
    model.table += np.random.default_rng(seed).normal(0, 0.5, model.table.shape).astype(np.float32)
    return model


def by_hand(p: Bigrams, q: Bigrams) -> dict[str, float]:
    """As llama.cpp's tool goes about it: token by token over the second half of each window."""
    kl, change, same = [], [], []
    for begin in range(0, len(IDS), N_CTX):
        window = IDS[begin : begin + N_CTX]
        for position in range(N_CTX // 2, N_CTX - 1):
            before, token = window[position], window[position + 1]
            a, b = log_softmax([p.table[before]])[0], log_softmax([q.table[before]])[0]
            kl.append(float((np.exp(a) * (a - b)).sum()))
            change.append(math.exp(b[token]) - math.exp(a[token]))
            same.append(a.argmax() == b.argmax())
    return {
        "divergence/kl_mean": float(np.mean(kl)),
        "divergence/kl_99": sorted(kl)[-2] + 0.92 * (sorted(kl)[-1] - sorted(kl)[-2]),  # 0.99 * 8 = 7.92
        "divergence/kl_max": max(kl),
        "divergence/delta_p_rms": math.sqrt(np.mean(np.square(change))),
        "divergence/same_top": float(np.mean(same)),
    }


def test_the_metrics_are_those_of_llamacpps_tool(here: Here) -> None:
    p, q = Bigrams(), other_bigrams()
    metrics, _ = held_against(here, p, q)
    expected = by_hand(p, q)
    assert 0 < expected["divergence/same_top"] < 1, "or a constant would do as well"
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected, abs=1e-5)
    assert {name: (m.kind, m.better) for name, m in metrics.items()} == {
        "divergence/kl_mean": ("paired", "lower"),
        "divergence/kl_99": ("exact", "lower"),
        "divergence/kl_max": ("exact", "lower"),
        "divergence/delta_p_rms": ("exact", "lower"),
        "divergence/same_top": ("paired", "higher"),
    }
    assert metrics["divergence/kl_mean"].conditions == {
        "source": "w1", "reference": "tiny/fake/reference", "tokens": "t1", "text": "t", "n_ctx": N_CTX,
        "windows": WINDOWS, "protocol": "half", "block": 2, "scored tokens": ROWS * WINDOWS,
    }  # fmt: skip


def test_samples_are_those_of_the_blocks_that_perplexity_has(here: Here) -> None:
    metrics, _ = held_against(here, Bigrams(), other_bigrams())
    blocks = [b - a for a, b in perplexity.blocks(divergence.Options(**OPTIONS))] * WINDOWS
    for name in ("divergence/kl_mean", "divergence/same_top"):
        metric = metrics[name]
        assert metric.weights == blocks
        assert np.average(metric.samples or [], weights=blocks) == pytest.approx(metric.value)
        assert metric.stderr == pytest.approx(
            ratio_stderr(np.array(metric.samples) * blocks, np.array(blocks))
        )
        assert metric.stderr


def test_the_error_of_a_root_mean_square_is_the_propagated_one(here: Here) -> None:
    p, q = Bigrams(), other_bigrams()
    metric = held_against(here, p, q)[0]["divergence/delta_p_rms"]
    assert metric.stderr is not None
    # The value of the mean square one standard error up, less that one down, is twice the error.
    mean, error = metric.value**2, 2 * metric.value * metric.stderr
    assert (math.sqrt(mean + error / 100) - math.sqrt(mean - error / 100)) * 50 == pytest.approx(
        metric.stderr, rel=1e-3
    )


def test_the_bootstrap_error_of_a_median_is_the_known_one() -> None:
    """Of n normal values: sqrt(pi / 2n), Kenney and Keeping (1962), section 5.10; here in blocks of one."""
    values = np.random.default_rng(5).normal(0, 1, 400)
    (error,) = divergence.bootstrap_stderr(np.split(values, 400), [0.5])
    assert error == pytest.approx(math.sqrt(math.pi / 800), rel=0.2)
    (whole,) = divergence.bootstrap_stderr(np.split(np.sort(values), 4), [0.5])
    assert whole > 3 * error, "values of one block are no independent witnesses"


def test_a_model_held_against_itself_does_not_diverge(here: Here) -> None:
    metrics, _ = held_against(here, Bigrams(), Bigrams())
    values = {name.removeprefix("divergence/"): metric.value for name, metric in metrics.items()}
    assert values == {
        "kl_mean": pytest.approx(0, abs=1e-7), "kl_99": pytest.approx(0, abs=1e-7),
        "kl_max": pytest.approx(0, abs=1e-7), "delta_p_rms": 0.0, "same_top": 1.0,
    }  # fmt: skip
    assert metrics["divergence/delta_p_rms"].stderr == 0


@pytest.mark.parametrize("full", [True, False])
def test_perplexity_takes_the_windows_that_divergence_scored(here: Here, full: bool) -> None:
    cell = other_bigrams()
    _, session = held_against(here, Bigrams(), cell, "perplexity")
    here.options["perplexity"]["protocol"] = "full" if full else "half"
    session = here.session()
    cell.trees.clear()
    divergence.measure(session, [])
    together = perplexity.measure(session, [])
    assert len(cell.trees) == WINDOWS
    assert {len(tree.rows) for tree in cell.trees} == {N_CTX - 1 if full else ROWS}
    assert together == perplexity.measure(here.session(), [])
    assert len(cell.trees) == 2 * WINDOWS


def test_without_perplexity_only_what_is_compared_is_computed(here: Here) -> None:
    cell = other_bigrams()
    held_against(here, Bigrams(), cell)
    assert {len(tree.rows) for tree in cell.trees} == {ROWS}


def test_other_windows_of_perplexity_are_scored_for_it(here: Here) -> None:
    cell = other_bigrams()
    _, session = held_against(here, Bigrams(), cell, "perplexity")
    here.options["perplexity"] = {"text": "t", "n_ctx": N_CTX + 1, "windows": 2}
    session = here.session()
    divergence.measure(session, [])
    cell.trees.clear()
    perplexity.measure(session, [])
    assert [len(tree.ids) for tree in cell.trees] == [N_CTX, N_CTX]


def test_other_tokens_are_refused(here: Here) -> None:
    held_against(here, Bigrams(), Bigrams())
    ids = [*IDS[:-1], (IDS[-1] + 1) % 7]
    here.write(
        "text-t.json", Text(ids=ids, starts=[0] * (len(IDS) + 1), bos=None, hash="t2").model_dump_json()
    )
    with pytest.raises(MeasurementError, match="is of other tokens"):
        divergence.measure(here.session(), [])


def test_another_vocabulary_is_refused(here: Here) -> None:
    larger = Bigrams()
    larger.table = np.pad(larger.table, ((0, 0), (0, 1)))
    with pytest.raises(MeasurementError, match="7 in the vocabulary of tiny/fake/reference, 8 in the cell's"):
        held_against(here, Bigrams(), larger)


def test_a_missing_file_is_an_error_that_names_it(here: Here) -> None:
    held_against(here, Bigrams(), Bigrams())
    here.job["left"]["divergence"].unlink()
    with pytest.raises(MeasurementError, match=r"r\.npy: the reference's log-probabilities cannot be read"):
        divergence.measure(here.session(), [])
