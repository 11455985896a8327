"""Interrupted and concurrent updates leave one whole baseline."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from quantgate.baselines import toml_file
from quantgate.baselines.store import check_machine, read
from quantgate.baselines.update import plan_update, write_update
from quantgate.errors import InputError, QuantgateError
from quantgate.paths import IMPORT_ROOT

from selftest.baselines.accepted import (
    CELL,
    DECODE,
    TIER,
    TIMED,
    existing,
    measured,
    perplexity,
    tree,
    update,
)


@pytest.mark.parametrize("step", [1, 2])
def test_disk_full_leaves_the_old_baseline_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The disk fills up while the raw file (1) or the summary (2) is written."""
    update(tmp_path, measured())
    before, synced, fsync = tree(tmp_path), [], os.fsync

    def full(handle: int) -> None:
        synced.append(handle)
        if len(synced) == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    file = r"smoke\.[0-9a-f]{12}\.json" if step == 1 else r"smoke\.toml"
    with pytest.raises(
        QuantgateError, match=rf"{file}: could not be written \(No space left.*\); .*untouched"
    ):
        update(tmp_path, measured(metrics={"perplexity": perplexity(24.9)}))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("step", [1, 2])
def test_crash_between_the_writes(tmp_path: Path, step: int) -> None:
    """The process dies instead of moving the raw file (1) or the summary (2) into place."""
    update(tmp_path, measured())
    before = existing(tmp_path)
    (tmp_path / "new.json").write_text(measured(metrics={"perplexity": perplexity(24.9)}).model_dump_json())
    script = f"""
import os, pathlib
from quantgate.baselines.store import read
from quantgate.baselines.update import plan_update, write_update
from quantgate.records import Measurement
root, moves, replace = pathlib.Path({str(tmp_path)!r}), [], os.replace
def dies(*args):
    moves.append(args)
    if len(moves) == {step}:
        os._exit(9)
    replace(*args)
os.replace = dies
new = Measurement.model_validate_json((root / "new.json").read_text())
write_update(root, plan_update(new, read(root, {CELL!r}, {TIER!r}), []), reason="dies")
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=IMPORT_ROOT, check=False).returncode == 9
    assert existing(tmp_path) == before
    assert len(list(before.path.parent.iterdir())) == 2 + step  # the litter of the crash ...
    summary, raw = update(tmp_path, measured(metrics={"perplexity": perplexity(25.0)}))
    assert sorted(before.path.parent.iterdir()) == sorted([summary, raw])  # ... goes with the next update


def test_baseline_that_changed_since_it_was_read_is_not_overwritten(tmp_path: Path) -> None:
    update(tmp_path, measured())
    late = plan_update(measured(metrics={"perplexity": perplexity(24.9)}), read(tmp_path, CELL, TIER), [])
    update(tmp_path, measured(metrics={"perplexity": perplexity(24.7)}))
    before = tree(tmp_path)
    with pytest.raises(InputError, match="changed by another run; run again"):
        write_update(tmp_path, late, reason="late")
    assert tree(tmp_path) == before


def test_timings_that_changed_since_they_were_read_are_not_overwritten(tmp_path: Path) -> None:
    check_machine(tmp_path, "bench1", {"cpu": "EPYC"}, create=True)
    update(tmp_path, measured(metrics=TIMED), machine="bench1")
    late = plan_update(measured(metrics=TIMED), read(tmp_path, CELL, TIER, "bench1"), [], "bench1")
    update(tmp_path, measured(metrics={"throughput/decode": DECODE}), machine="bench1", reason="timings")
    with pytest.raises(InputError, match="changed by another run; run again"):
        write_update(tmp_path, late, reason="late")


def test_first_baseline_of_two_runs(tmp_path: Path) -> None:
    late = plan_update(measured(), None, [])
    update(tmp_path, measured(metrics={"perplexity": perplexity(24.7)}))
    with pytest.raises(InputError, match="changed by another run; run again"):
        write_update(tmp_path, late, reason="late")


def test_two_writers_at_once_leave_one_whole_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All plan from the same baseline; one wins, the others are told. Slow disk: without a lock they mix."""
    update(tmp_path, measured())
    old = existing(tmp_path)
    fsync, start, refused = os.fsync, threading.Barrier(4), []

    def slow(handle: int) -> None:
        threading.Event().wait(0.05)
        fsync(handle)

    def write(value: float) -> None:
        plan = plan_update(measured(metrics={"perplexity": perplexity(value)}), old, [])
        start.wait()
        try:
            write_update(tmp_path, plan, reason=f"writer {value}")
        except InputError as error:
            refused.append(str(error))

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=write, args=(value,)) for value in (24.1, 24.2, 24.3, 24.4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert all("changed by another run; run again" in text for text in refused)
    baseline = existing(tmp_path)
    assert baseline.reason == f"writer {baseline.metrics['perplexity'].value}"
    assert len(list(baseline.path.parent.iterdir())) == 2


def test_lock_that_another_run_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toml_file, "LOCK_SECONDS", 0.1)
    script = "import pathlib, sys; from quantgate.baselines.toml_file import locked\n"
    script += "with locked(pathlib.Path(sys.argv[1])):\n"
    script += "    print('locked', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], cwd=IMPORT_ROOT, stdin=pipe, stdout=pipe
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match=r"is updating it .*run again when it has finished"):
            update(tmp_path, measured())
        other.communicate()
    assert update(tmp_path, measured())


def test_reader_never_sees_half_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that comes between reading the summary and its raw file, which is gone by then."""
    _, raw = update(tmp_path, measured())
    new = measured(metrics={"perplexity": perplexity(24.9)})
    plan, read_bytes = plan_update(new, read(tmp_path, CELL, TIER), []), Path.read_bytes

    def late(path: Path) -> bytes:
        if path == raw:
            monkeypatch.setattr(Path, "read_bytes", read_bytes)
            write_update(tmp_path, plan, reason="between")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    baseline = existing(tmp_path)
    assert baseline.metrics["perplexity"] == perplexity(24.9)
    assert baseline.reason == "between"
