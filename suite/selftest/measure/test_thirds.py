"""Divergence over position: the first and the last third of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.items import Text
from quantgate.measure.metrics import divergence
from scipy import special

from selftest.measure.fakes import Bigrams, Here

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from quantgate.backends.tree import TokenTree
    from quantgate.records import Metric

N_CTX, WINDOWS = 200, 2
IDS = np.random.default_rng(1).integers(1, 7, size=N_CTX * WINDOWS).tolist()
OPTIONS: dict[str, Any] = {"text": "t", "n_ctx": N_CTX, "windows": WINDOWS, "block": 22, "protocol": "full"}
THIRDS = {"divergence/kl_early", "divergence/kl_late"}


class Worsening(Bigrams):
    """The further it reads, the more its logits are off."""

    states_cache = False

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        noise = (
            np.random.default_rng(2).normal(0, 1, (len(tree.rows), 7)) * np.array(tree.rows)[:, None] / 100
        )
        worse: NDArray[np.float32] = (super().logits(tree) + noise).astype(np.float32)
        return worse

    def cache_bytes(self) -> int | None:
        return None


def metrics_of(folder: Path, cell: Bigrams, **options: Any) -> dict[str, Metric]:
    """Those of `cell`, held against `Bigrams`."""
    here = Here(folder)
    starts = list(range(len(IDS) + 1))
    here.write("text-t.json", Text(ids=IDS, starts=starts, bos=None, hash="t1").model_dump_json())
    here.options = {"divergence": {**OPTIONS, **options}}
    here.job = {
        "requests": ["divergence"],
        "reference": "tiny/fake/f",
        "left": {"divergence": folder / "r.npy"},
    }
    divergence.measure(here.session(), [])
    here.job["reference"], here.backend = "tiny/fake/reference", cell
    return divergence.measure(here.session(), [])


def by_hand(cell: Bigrams) -> NDArray[np.float64]:
    """KL of each scored token, [windows, tokens], in float64."""
    kl = []
    for begin in range(0, len(IDS), N_CTX):
        tree = build_tree([TokenSequence(tuple(IDS[begin : begin + N_CTX]), 1)])
        p, q = (special.log_softmax(m.logits(tree).astype(float), axis=1) for m in (Bigrams(), cell))
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
    return np.array(kl)


def test_thirds_are_the_means_of_the_first_and_last_scored_tokens(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, Worsening(), thirds=True)
    kl = by_hand(Worsening())
    early, late = metrics["divergence/kl_early"], metrics["divergence/kl_late"]
    assert early.value == pytest.approx(kl[:, :66].mean(), abs=1e-6)
    assert late.value == pytest.approx(kl[:, -66:].mean(), abs=1e-6)
    assert late.value > 5 * early.value
    assert late.samples == pytest.approx(kl[:, -66:].reshape(6, 22).mean(axis=1), abs=1e-6)
    assert late.weights == [22.0] * 6
    assert (late.kind, late.unit, late.better) == ("paired", "nats", "lower")
    assert late.conditions == {**metrics["divergence/kl_mean"].conditions, "scored tokens": 132}
    shapes = divergence.expected(divergence.Options(**OPTIONS, thirds=True))
    assert {name: shape.weights for name, shape in shapes.items()} == {
        name: metrics[name].weights for name in ("divergence/kl_mean", *sorted(THIRDS))
    }


@pytest.mark.parametrize(
    ("states_cache", "n_ctx", "thirds"), [(True, 200, THIRDS), (True, 100, set()), (False, 200, set())]
)
def test_thirds_are_told_apart_of_cells_that_state_their_cache_where_windows_are_long(
    tmp_path: Path, states_cache: bool, n_ctx: int, thirds: set[str]
) -> None:
    cell = Worsening()
    cell.states_cache = states_cache
    metrics = metrics_of(tmp_path, cell, n_ctx=n_ctx)
    assert {name for name in metrics if name in THIRDS} == thirds


def test_windows_that_are_too_short_for_thirds_are_refused() -> None:
    with pytest.raises(
        ValidationError, match="thirds = true needs windows with 192 scored tokens: raise n_ctx"
    ):
        divergence.Options(text="t", n_ctx=192, protocol="full", thirds=True)
    assert divergence.Options(text="t", n_ctx=193, protocol="full", thirds=True).long
    assert not divergence.Options(text="t", n_ctx=193, protocol="half").long


def test_the_cache_of_a_tier_that_asks_is_measured_or_the_record_says_why_not(tmp_path: Path) -> None:
    from quantgate.measure.metrics import memory

    cell = Worsening()
    here = Here(tmp_path, cell)
    here.options = {"memory": {"prompt": 8, "decode": 2, "cache": True}}
    session = here.session()
    assert "memory/cache_bytes" not in memory.measure(session, [])
    assert session.notes["cache"].startswith("memory/cache_bytes: not measured, ")
    cell.cache_bytes = lambda: 4096  # type: ignore[method-assign]
    metric = here.measure(memory, prompt=8, decode=2, cache=True)["memory/cache_bytes"]
    assert (metric.kind, metric.value, metric.better) == ("exact", 4096, "lower")
    assert metric.conditions == {"source": "w1", "prompt": 8, "decode": 2}
    assert "memory/cache_bytes" not in here.measure(memory, prompt=8, decode=2)
