"""A run is appended whole or not at all, once, and nothing that is there is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from quantgate.errors import InputError
from quantgate.history.record import Header
from quantgate.history.series import read
from quantgate.history.store import append
from quantgate.records import Status, Verdict
from quantgate.report import RunInfo

from selftest.history import nights
from selftest.project import tree

INFO = RunInfo(
    tier="smoke",
    run="0123456789abcdef",
    created="2026-11-28T02:30:11+00:00",
    commit="1a2b3c4",
    place={"cpu": "AMD", "cores": 2},
    environment={"torch": "2.13.0", "memory_gb": 23.5, "commit": "abc"},
    environments={"m/llamacpp/Q4_0": {"llama.cpp": "ggml 1"}},
)
VERDICTS = [
    Verdict(
        cell="m/llamacpp/Q4_0",
        metric="perplexity",
        status=Status.PASS,
        measured=21.595078165749589,
        baseline=21.5,
        change=0.0044222402,
        change_low=0.001,
        change_high=0.008,
        tolerance=0.025,
        kind="paired",
        better="lower",
        stderr=2.16350383,
        samples=64,
        conditions="0123456789abcdef",
        weights="fedcba9876543210",
    ),
    Verdict(cell="m/transformers/fp32", metric="memory", status=Status.ERROR, text="crashed"),
]
LIMITED = """
import resource, sys
from pathlib import Path
from quantgate.errors import InputError
from quantgate.history.store import append
from selftest.history.test_store import INFO, VERDICTS
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    append(Path(sys.argv[1]), VERDICTS, INFO)
except InputError as error:
    print(error)
"""


def test_a_run_is_one_file_with_everything_of_it(tmp_path: Path) -> None:
    path, new = append(tmp_path, VERDICTS, INFO)
    assert new
    assert path == tmp_path / "2026/11/20261128T023011Z-1a2b3c4-0123456789ab.jsonl"
    header, *points = [json.loads(line) for line in path.read_text().splitlines()]
    assert header["points"] == 2
    assert header["machine"] == {"cpu": "AMD", "cores": 2}
    assert points[0] == {
        "cell": "m/llamacpp/Q4_0",
        "metric": "perplexity",
        "kind": "paired",
        "better": "lower",
        "value": 21.595078165749589,
        "stderr": 2.1635,
        "n": 64,
        "verdict": "pass",
        "baseline": 21.5,
        "change": 0.00442224,
        "low": 0.001,
        "high": 0.008,
        "tolerance": 0.025,
        "conditions": "0123456789ab",
        "environment": points[0]["environment"],
        "weights": "fedcba987654",
    }
    assert points[1] == {"cell": "m/transformers/fp32", "metric": "memory", "verdict": "error"}
    history = read(tmp_path)
    (series,) = (s for s in history.series if s.metric == "perplexity")
    assert series.value.tolist() == [21.595078165749589]
    environment = {"torch": "2.13.0", "memory_gb": 23.5, "commit": "abc", "llama.cpp": "ggml 1"}
    assert dict(history.environment_of(series, 0)) == environment


def test_an_environment_is_the_same_whatever_memory_and_commit(tmp_path: Path) -> None:
    other = INFO.model_copy(
        update={"run": "ffff0000ffff", "environment": {"torch": "2.13.0", "memory_gb": 23.4, "commit": "def"}}
    )
    torch = INFO.model_copy(update={"run": "eeee0000eeee", "environment": {"torch": "2.14.0"}})
    for info in (INFO, other, torch):
        append(tmp_path, VERDICTS, info)
    (series,) = (s for s in read(tmp_path).series if s.metric == "perplexity")
    assert len(set(series.environment.tolist())) == 2


def test_a_run_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    nights.write(tmp_path, nights.Plan(nights=3))
    append(tmp_path, VERDICTS, INFO)
    before = tree(tmp_path)
    later = INFO.model_copy(update={"created": "2026-11-29T02:30:11+00:00"})
    path, new = append(tmp_path, VERDICTS[:1], later)
    assert not new
    assert path.name.startswith("20261128T")
    assert tree(tmp_path) == before


def test_runs_whose_ids_begin_alike_are_both_kept(tmp_path: Path) -> None:
    ids = [f"{0:012x}{number:020x}" for number in range(3)]
    for name in ids * 2:
        append(tmp_path, VERDICTS, INFO.model_copy(update={"run": name}))
    assert sorted(run.id for run in read(tmp_path).runs) == ids


@pytest.mark.parametrize("lines", [0, 2], ids=["empty", "cut after its first point"])
def test_a_run_whose_file_is_damaged_is_written_again_beside_it(tmp_path: Path, lines: int) -> None:
    path, _ = append(tmp_path, VERDICTS, INFO)
    path.chmod(0o644)
    left = b"".join(path.read_bytes().splitlines(keepends=True)[:lines])
    path.write_bytes(left)
    other, new = append(tmp_path, VERDICTS, INFO)
    assert new
    assert path.read_bytes() == left
    assert [run.path for run in read(tmp_path).runs] == [other]


def test_two_runs_at_once_are_both_kept(tmp_path: Path) -> None:
    infos = [INFO.model_copy(update={"run": f"{number:012x}"}) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda info: append(tmp_path, VERDICTS, info)[0], infos))
    assert len(set(paths)) == 16
    assert [run.id for run in read(tmp_path).runs] == [info.run for info in infos]
    assert len(tree(tmp_path)) == 16, "nothing is left behind"


def test_a_full_disk_loses_nothing_and_is_named(tmp_path: Path) -> None:
    nights.write(tmp_path, nights.Plan(nights=3))
    before = tree(tmp_path)
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert f"cannot write this run into the history {tmp_path}: File too large" in done.stdout
    assert "What is there is unharmed" in done.stdout
    assert tree(tmp_path) == before


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append(tmp_path, VERDICTS, INFO)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("created", ["", "yesterday", "2026-11-28T02:30:11"])
def test_a_time_that_is_none_or_without_its_zone_is_refused(tmp_path: Path, created: str) -> None:
    with pytest.raises(InputError, match="the run's time: "):
        append(tmp_path, VERDICTS, INFO.model_copy(update={"created": created}))
    assert tree(tmp_path) == {}


def test_the_class_of_a_machine_is_what_timings_depend_on() -> None:
    header = {"run": "0123", "time": "2026-11-28T02:30:11Z", "tier": "smoke", "points": 0}
    classes = {
        Header(**header, machine=machine).machine_class
        for machine in ({"cpu": "a", "cores": 2}, {"cpu": "a", "cores": 4}, {"cores": 2, "cpu": "a"})
    }
    assert len(classes) == 2
