"""Divergence: exact values against float64, what storing the reference adds, who writes and reads it, and when."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.errors import MeasurementError
from quantgate.items import Text
from quantgate.jobs import Job
from quantgate.measure import logprobs
from quantgate.measure.logprobs import Reference, writing
from quantgate.measure.metrics import divergence, perplexity
from quantgate.measure.session import Session
from scipy import special, stats

from selftest.conftest import REPO
from selftest.measure.test_measure import IDS, N_CTX, WINDOWS, Bigrams, Here, with_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from quantgate.backends.base import Backend
    from quantgate.records import Metric

    from selftest.conftest import Project
    from selftest.tiny import TinyModel

Floats = NDArray[np.float64] if TYPE_CHECKING else Any


def log_softmax(logits: Any) -> Any:
    return special.log_softmax(np.asarray(logits, dtype=np.float64), axis=1)


def stored(folder: Path, logits: Any, tokens: Any = None) -> logprobs.Rows:
    """What the file gives back of these logits."""
    tokens = np.zeros(len(logits), dtype=int) if tokens is None else np.asarray(tokens)
    path = folder / "reference.npy"
    with writing(path, len(logits)) as write:
        write(log_softmax(logits).astype(np.float32), tokens)
    return Reference(path, len(logits)).rows(0, len(logits))


def divergence_of(folder: Path, p: Any, q: Any, tokens: Any = None) -> divergence.Divergence:
    """Of logits p (the reference) and q, through the file."""
    return divergence.compare(stored(folder, p, tokens), log_softmax(q).astype(np.float32))


# --- the statistics of one token ------------------------------------------------------------------


def test_a_uniform_reference_gives_the_analytic_value(tmp_path: Path) -> None:
    size, rate = 1000, 0.3
    q = np.full((1, size), (1 - rate) / (size - 1))
    q[0, 7] = rate
    found = divergence_of(tmp_path, np.zeros((1, size)), np.log(q), [7])
    rest = (1 - rate) / (size - 1)
    assert found.kl[0] == pytest.approx(
        -math.log(size * rate) / size - 0.999 * math.log(size * rest), abs=1e-6
    )
    assert found.delta_p[0] == pytest.approx(rate - 1 / size, abs=1e-7)


def test_it_is_the_divergence_of_the_cell_from_the_reference_and_not_the_other_way_round(
    tmp_path: Path,
) -> None:
    p, q = np.log([[0.9, 0.1]]), np.log([[0.5, 0.5]])
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert divergence_of(tmp_path, p, q).kl[0] == pytest.approx(expected, abs=1e-6)
    assert divergence_of(tmp_path, q, p).kl[0] != pytest.approx(expected, abs=1e-2)


def test_equal_distributions_do_not_diverge(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (40, 5000))
    tokens = logits.argmax(axis=1)
    tokens[::2] = 17
    found = divergence_of(tmp_path, logits, logits, tokens)
    assert np.abs(found.kl).max() < 1e-7
    assert not found.delta_p.any()
    assert found.same_top.all()


@pytest.mark.parametrize("spread", [0.1, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("change", [0.01, 0.3, 2.0])
def test_storing_adds_less_than_a_hundred_thousandth_of_a_nat(
    tmp_path: Path, spread: float, change: float
) -> None:
    """Nearly uniform to peaked, nearly equal to badly broken; each row for itself, not their mean."""
    source = np.random.default_rng(1)
    p = source.normal(0, spread, (40, 20_000)).astype(np.float32)
    q = (p + source.normal(0, change, p.shape)).astype(np.float32)
    expected = stats.entropy(
        special.softmax(p.astype(float), axis=1), special.softmax(q.astype(float), axis=1), axis=1
    )
    found = divergence_of(tmp_path, p, q).kl
    assert np.abs(found - expected).max() < 1e-5 * max(1.0, expected.max())


def test_likely_tokens_are_kept_exactly_and_all_others_to_half_a_step(tmp_path: Path) -> None:
    logits = np.random.default_rng(2).normal(0, 4, (50, 3000)).astype(np.float32)
    exact = log_softmax(logits).astype(np.float32)
    rows = stored(tmp_path, logits)
    likely = exact > -math.log(256)
    assert likely.sum() > 200
    assert (rows.logprobs[likely] == exact[likely]).all()
    assert np.abs(rows.logprobs - exact)[exact > -32].max() <= 0.5 / 2048 + 2e-6
    assert (rows.top == exact.argmax(axis=1)).all()


def test_as_many_likely_tokens_as_there_can_be(tmp_path: Path) -> None:
    logits = np.full((2, 1000), -20.0)
    logits[0, 100:355] = 0.0  # 255 of nearly 1/255
    logits[1, :] = 0.0
    rows = stored(tmp_path, logits)
    assert (rows.logprobs[0, 100:355] == log_softmax(logits)[0, 100:355].astype(np.float32)).all()
    assert rows.logprobs[1] == pytest.approx(-math.log(1000), abs=1e-3)


def test_the_likeliest_of_many_unlikely_tokens_is_not_lost_in_rounding(tmp_path: Path) -> None:
    logits = np.zeros((1, 1000))
    logits[0, 613] = 1e-4  # less than a step of the file
    assert stored(tmp_path, logits).top[0] == 613
    assert divergence_of(tmp_path, logits, logits).same_top[0] == 1
    assert divergence_of(tmp_path, logits, -logits).same_top[0] == 0


def test_what_both_exclude_adds_nothing_and_what_the_cell_alone_excludes_much(tmp_path: Path) -> None:
    p = np.log([[0.75, 0.25, 1.0]])
    p[0, 2] = -np.inf
    with np.errstate(invalid="ignore"):
        assert divergence_of(tmp_path, p, p).kl[0] == pytest.approx(0, abs=1e-7)
        q = p.copy()
        q[0, 1] = -np.inf
        assert divergence_of(tmp_path, p, q).kl[0] > 100


# --- the metrics ----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


ROWS = N_CTX - (N_CTX // 2 + 1)
OPTIONS: dict[str, Any] = {"text": "t", "n_ctx": N_CTX, "windows": WINDOWS, "block": 2}


def held_against(here: Here, reference: Any, cell: Any, *requests: str) -> tuple[dict[str, Metric], Session]:
    """Metrics of `cell`, after `reference` has left its log-probabilities."""
    with_text(here)
    path = here.folder / "logprobs" / "r.npy"
    here.options = {"divergence": {**OPTIONS}, "perplexity": {**OPTIONS}}
    here.job = {"requests": ["divergence", *requests], "reference": "tiny/fake/f", "logprobs": path}
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
    found, _ = held_against(here, p, q)
    expected = by_hand(p, q)
    assert 0 < expected["divergence/same_top"] < 1, "or it could not be told from a constant"
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected, abs=1e-5)
    assert {name: (m.kind, m.better) for name, m in found.items()} == {
        "divergence/kl_mean": ("paired", "lower"),
        "divergence/kl_99": ("exact", "lower"),
        "divergence/kl_max": ("exact", "lower"),
        "divergence/delta_p_rms": ("exact", "lower"),
        "divergence/same_top": ("paired", "higher"),
    }
    assert found["divergence/kl_mean"].conditions == {
        "source": "w1", "reference": "tiny/fake/reference", "tokens": "t1", "text": "t", "n_ctx": N_CTX,
        "windows": WINDOWS, "protocol": "half", "block": 2, "scored tokens": ROWS * WINDOWS,
    }  # fmt: skip


def test_samples_are_those_of_the_blocks_that_perplexity_has(here: Here) -> None:
    found, _ = held_against(here, Bigrams(), other_bigrams())
    blocks = [b - a for a, b in perplexity.blocks(divergence.Options(**OPTIONS))] * WINDOWS
    for name in ("divergence/kl_mean", "divergence/same_top"):
        metric = found[name]
        assert metric.weights == blocks
        assert np.average(metric.samples or [], weights=blocks) == pytest.approx(metric.value)
        assert metric.stderr == pytest.approx(
            perplexity.ratio_stderr(np.array(metric.samples) * blocks, np.array(blocks))
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
    found, _ = held_against(here, Bigrams(), Bigrams())
    values = {name.removeprefix("divergence/"): metric.value for name, metric in found.items()}
    assert values == {
        "kl_mean": pytest.approx(0, abs=1e-7), "kl_99": pytest.approx(0, abs=1e-7),
        "kl_max": pytest.approx(0, abs=1e-7), "delta_p_rms": 0.0, "same_top": 1.0,
    }  # fmt: skip
    assert found["divergence/delta_p_rms"].stderr == 0


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
    here.job["logprobs"].unlink()
    with pytest.raises(MeasurementError, match=r"r\.npy: the reference's log-probabilities cannot be read"):
        divergence.measure(here.session(), [])


# --- the file -------------------------------------------------------------------------------------


def some_rows(count: int = 8, vocabulary: int = 100) -> tuple[Any, Any]:
    source = np.random.default_rng(0)
    values = log_softmax(source.normal(0, 2, (count, vocabulary))).astype(np.float32)
    return values, source.integers(vocabulary, size=count)


def write_file(path: Path, rows: int = 8) -> None:
    with writing(path, rows) as write:
        write(*some_rows(rows))


def test_an_interrupted_writer_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_file(path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing(path, 8) as write:  # noqa: PT012
        write(*some_rows(4))
        raise KeyboardInterrupt
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"a.npy": before}


def test_too_few_rows_are_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="4 rows written, 8 announced"),
        writing(tmp_path / "a.npy", 8) as write,
    ):
        write(*some_rows(4))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from selftest.measure.test_divergence import *\n"
        f"with writing(Path({str(tmp_path / 'a.npy')!r}), 8) as write:\n"
        "    write(*some_rows(4)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name != "a.npy"


def test_a_file_in_use_is_not_lost_to_the_process_that_reads_it(tmp_path: Path) -> None:
    write_file(tmp_path / "a.npy")
    reference = Reference(tmp_path / "a.npy", 8)
    before = reference.rows(0, 8).logprobs
    (tmp_path / "a.npy").unlink()
    assert (reference.rows(0, 8).logprobs == before).all()


def test_a_full_disk_is_an_error_with_a_remedy() -> None:
    from pathlib import Path

    with pytest.raises(MeasurementError, match=r"cannot be written .*set QUANTGATE_CACHE to another disk"):
        write_file(Path("/proc/nowhere/a.npy"))


@pytest.mark.parametrize("damage", ["cut", "other", "short"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npy"
    write_file(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        np.save(path, np.zeros(8))
    with pytest.raises(MeasurementError, match=r"a\.npy: "):
        Reference(path, 7 if damage == "short" else 8)


# --- real models ----------------------------------------------------------------------------------


def held_against_directly(backend: Callable[[], Backend], other: Callable[[], Backend]) -> Any:
    """KL of each scored token of the windows in float64, from all logits at once."""
    found = []
    for begin in range(0, len(TOKENS), 64):
        window = TOKENS[begin : begin + 64]
        tree = build_tree([TokenSequence(tuple(window), 33)])
        both = []
        for load in (backend, other):
            model = load()
            model.reserve(64, 1)
            both.append(log_softmax(model.logits(tree).copy()))
        found.append((np.exp(both[0]) * (both[0] - both[1])).sum(axis=1))
    return np.concatenate(found)


TOKENS = np.random.default_rng(4).integers(1, 512, size=256).tolist()


def assert_equal_to_float64(
    folder: Path, reference: Callable[[], Backend], cell: Callable[[], Backend]
) -> None:
    text = Text(ids=TOKENS, starts=[0] * 257, bos=None, hash="t")
    (folder / "text-t.json").write_text(text.model_dump_json())
    (folder / "meta.json").write_text('{"vocabulary": 512}')
    path = folder / "logprobs" / "r.npy"

    def measure(backend: Callable[[], Backend], name: str) -> dict[str, Metric]:
        job = Job(
            cell=name, tier="s", fingerprint="x", backend="b", scheme_options={}, weights=folder, source_hash="w",
            workload=folder, requests=["divergence"], threads=1, output=folder / "o", reference="r", logprobs=path,
            group_options={"divergence": {"text": "t", "n_ctx": 64, "windows": 4}},
        )  # fmt: skip
        session = Session(job, lambda *event: None)
        session.load(lambda *arguments: backend())
        return divergence.measure(session, [])

    assert measure(reference, "r") == {}
    expected = held_against_directly(reference, cell)
    assert expected.mean() > 1e-4, "or nothing is shown"
    found = measure(cell, "c")
    assert found["divergence/kl_mean"].value == pytest.approx(expected.mean(), abs=1e-6)
    assert found["divergence/kl_max"].value == pytest.approx(expected.max(), abs=1e-5)
    assert measure(reference, "c")["divergence/kl_mean"].value == pytest.approx(0, abs=1e-7)


def test_transformers_is_held_against_its_reference_as_in_float64(tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.transformers import load

    assert_equal_to_float64(
        tmp_path,
        lambda: load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1),
        lambda: load(tiny.safetensors, {"device": "cpu", "dtype": "bfloat16"}, 1),
    )


def test_llamacpp_is_held_against_its_reference_as_in_float64(tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.llamacpp import load
    from quantgate.supply.checkpoints import quantize_gguf

    small = tmp_path / "q.gguf"
    quantize_gguf(small, report=lambda *event: None, gguf=str(tiny.gguf), ftype="Q4_0", threads=1)
    assert_equal_to_float64(
        tmp_path, lambda: load(tiny.gguf, {"device": "cpu"}, 1), lambda: load(small, {"device": "cpu"}, 1)
    )


# --- whole runs -----------------------------------------------------------------------------------

FULL, Q4, Q8 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M", "tiny/llamacpp/Q8_0"


@pytest.fixture
def diverging(project: Project, tmp_path: Path) -> Project:
    """Three cells, of which perplexity and divergence are measured; a folder of log-probabilities of its own."""
    project.matrix["tiers"]["smoke"] = {
        "time_limit": 60.0,
        "cells": [Q4, FULL, Q8],  # the reference is not the first
        "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16},
        "divergence": {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16},
    }
    cache = tmp_path / "cache"
    cache.mkdir()
    kinds = ("assets", "checkpoints", "workloads")
    (cache / "entries").mkdir()
    for shared in (*kinds, "locks", *(f"entries/{kind}" for kind in kinds)):
        (source := project.cache / shared).mkdir(parents=True, exist_ok=True)
        (cache / shared).symlink_to(source)
    project.environment = {**project.environment, "QUANTGATE_CACHE": str(cache)}
    return project


def files(project: Project) -> list[Path]:
    folder = project.cache / "logprobs"
    return sorted(folder.iterdir()) if folder.exists() else []


def test_the_reference_is_computed_once_and_shared(diverging: Project) -> None:
    result = diverging.update()
    assert result.status == 0, result.output
    assert result.measured == [FULL, Q4, Q8], "the reference first, none twice"
    (file,) = files(diverging)
    assert set(result.cases) == {
        *(f"perplexity[{cell}]" for cell in (FULL, Q4, Q8)), f"divergence[{Q4}]", f"divergence[{Q8}]",
    }  # fmt: skip
    values = {c: diverging.measurement(c).metrics["divergence/kl_mean"].value for c in (Q4, Q8)}
    assert 0 < values[Q8] < values[Q4] / 10

    written = file.stat().st_ino
    again = diverging.run("-k", "divergence and Q4_K_M")
    assert again.status == 0, again.output
    assert again.measured == [Q4], "the file is there"
    assert again.verdict(Q4, "divergence/kl_mean").text == "equal to the last digit"
    assert [f.stat().st_ino for f in files(diverging)] == [written]

    file.unlink()
    alone = diverging.run("-k", "divergence and Q8_0")
    assert alone.measured == [FULL, Q8]
    assert [f.name for f in files(diverging)] == [file.name]
    assert diverging.measurement(FULL).requests == ["divergence"]
    assert diverging.measurement(FULL).metrics == {}

    file.unlink()
    reused = diverging.run("--reuse", "-k", "divergence and (Q4_K_M or Q8_0)")
    assert reused.measured == [], "no record is missing"


def test_a_file_that_was_removed_is_made_again_though_the_record_is_there(diverging: Project) -> None:
    assert diverging.run("-k", "F16 or Q8_0").status == 0
    (file,) = files(diverging)
    file.unlink()
    result = diverging.run("--reuse", "-k", "F16 or Q4_K_M")
    assert result.measured == [f"{FULL}.logprobs", Q4]
    assert result.cases[f"divergence[{Q4}]"] == "skipped"  # no baseline


def test_two_runs_at_once_do_not_disturb_each_other(diverging: Project, tmp_path: Path) -> None:
    assert diverging.update().status == 0
    other = diverging.copy(tmp_path / "other")
    files(diverging)[0].unlink()
    diverging.write()
    other.write()
    runs = [(p, p.start("-k", "divergence")) for p in (diverging, other)]
    for project, process in runs:
        result = project.finish(process)
        assert result.status == 0, result.output
        assert result.verdict(Q4, "divergence/kl_mean").text == "equal to the last digit"
    assert len(files(diverging)) == 1


def test_a_reference_that_fails_costs_its_cells_their_divergence_alone(diverging: Project) -> None:
    schemes = {
        "broken": {"bits": 2, "ftype": "IQ2_XXS", "reference": "llamacpp/broken"},
        "q": {"bits": 4, "ftype": "Q4_K_M", "reference": "llamacpp/broken"},
    }
    diverging.matrix["backends"] = {"llamacpp": {"schemes": schemes}}
    cell = "tiny/llamacpp/q"
    diverging.matrix["tiers"]["smoke"]["cells"] = [cell, "tiny/llamacpp/broken"]
    result = diverging.run()
    assert result.status == 10
    assert result.cases == {
        f"perplexity[{cell}]": "skipped", f"divergence[{cell}]": "failed",
        "perplexity[tiny/llamacpp/broken]": "failed",
    }  # fmt: skip
    assert "not measured: the reference tiny/llamacpp/broken failed" in result.output
