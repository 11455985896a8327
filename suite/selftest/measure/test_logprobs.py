"""What a file of log-probabilities gives back, and the divergence of one token against float64."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.errors import MeasurementError
from quantgate.measure import kl, logprobs
from quantgate.measure.logprobs import Reference, writing
from quantgate.paths import IMPORT_ROOT
from scipy import special, stats

if TYPE_CHECKING:
    from pathlib import Path


def log_softmax(logits: Any) -> Any:
    return special.log_softmax(np.asarray(logits, dtype=np.float64), axis=1)


def stored(folder: Path, logits: Any, tokens: Any = None) -> logprobs.Rows:
    """What the file gives back of these logits."""
    tokens = np.zeros(len(logits), dtype=int) if tokens is None else np.asarray(tokens)
    path = folder / "reference.npy"
    with writing(path, len(logits)) as write:
        write(log_softmax(logits).astype(np.float32), tokens)
    return Reference(path, len(logits)).rows(0, len(logits))


def divergence_of(folder: Path, p: Any, q: Any, tokens: Any = None) -> kl.Divergence:
    """Of logits p (the reference) and q, through the file."""
    return kl.compare(stored(folder, p, tokens), log_softmax(q).astype(np.float32))


def test_a_uniform_reference_gives_the_analytic_value(tmp_path: Path) -> None:
    size, rate = 1000, 0.3
    q = np.full((1, size), (1 - rate) / (size - 1))
    q[0, 7] = rate
    divergences = divergence_of(tmp_path, np.zeros((1, size)), np.log(q), [7])
    rest = (1 - rate) / (size - 1)
    assert divergences.kl[0] == pytest.approx(
        -math.log(size * rate) / size - 0.999 * math.log(size * rest), abs=1e-6
    )
    assert divergences.delta_p[0] == pytest.approx(rate - 1 / size, abs=1e-7)


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
    divergences = divergence_of(tmp_path, logits, logits, tokens)
    assert np.abs(divergences.kl).max() < 1e-7
    assert not divergences.delta_p.any()
    assert divergences.same_top.all()


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
    kl = divergence_of(tmp_path, p, q).kl
    assert np.abs(kl - expected).max() < 1e-5 * max(1.0, expected.max())


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
        "import os, signal; from pathlib import Path; from selftest.measure.test_logprobs import *\n"
        f"with writing(Path({str(tmp_path / 'a.npy')!r}), 8) as write:\n"
        "    write(*some_rows(4)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}
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
