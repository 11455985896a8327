"""Absolute timings: kept for named machines alone, each in a file of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from quantgate.baselines.store import check_machine
from quantgate.errors import InputError
from quantgate.records import Metric, Scalar

from selftest.baselines.accepted import DECODE, TIMED, existing, measured, tree, update


def test_no_timing_of_an_unnamed_machine_is_written(tmp_path: Path) -> None:
    goodput = Metric(kind="level", value=3.1987, unit="requests/s", better="higher", samples=[3.1987])
    update(tmp_path, measured(metrics={**TIMED, "traffic/8/goodput": goodput}))
    assert existing(tmp_path).metrics.keys() == {"perplexity", "throughput/ratio/decode"}
    text = b"".join(tree(tmp_path).values()).decode()
    for timing in ("throughput/decode", "99.12345", "0.3219876", "61.2345", "7.6543", "goodput", "3.1987"):
        assert timing not in text


def test_timings_of_a_named_machine_are_in_its_own_file(tmp_path: Path) -> None:
    check_machine(tmp_path, "bench1", {"cpu": "EPYC"}, create=True)
    written = update(tmp_path, measured(metrics=TIMED), machine="bench1")
    names = [re.sub("[0-9a-f]{12}", "SHA", file.name) for file in written]
    assert names == ["smoke.toml", "smoke.SHA.json", "smoke@bench1.toml", "smoke@bench1.SHA.json"]
    assert b"throughput/decode" not in written[0].read_bytes() + written[1].read_bytes()
    assert b"--machine bench1 -m" in written[2].read_bytes()
    assert existing(tmp_path, "bench1").metrics == TIMED
    assert existing(tmp_path).metrics.keys() == TIMED.keys() - {"throughput/decode"}
    assert existing(tmp_path, "bench2").machine is None


def test_update_of_timings_alone_leaves_the_general_file(tmp_path: Path) -> None:
    check_machine(tmp_path, "bench1", {"cpu": "EPYC"}, create=True)
    update(tmp_path, measured())
    general = existing(tmp_path).path.read_bytes()
    new = measured(metrics={"throughput/decode": DECODE}, created="2026-08-01", environment={"torch": "3"})
    update(tmp_path, new, machine="bench1", reason="timings")
    assert existing(tmp_path).path.read_bytes() == general
    baseline = existing(tmp_path, "bench1")
    assert baseline.metrics.keys() == {"perplexity", "memory/weight_bytes", "throughput/decode"}
    assert baseline.origin("throughput/decode").environment == {"torch": "3"}
    assert baseline.origin("perplexity").reason == "first"


def test_timings_alone_without_a_machine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing measured can be kept .*--machine NAME"):
        update(tmp_path, measured(metrics={"throughput/decode": DECODE}))


def test_machine_is_recorded_once_and_held_to(tmp_path: Path) -> None:
    here: dict[str, Scalar] = {"cpu": "EPYC 7763", "cores": 2, "memory_gb": 7.8, "gpu": None}
    check_machine(tmp_path, "bench1", here, create=True)
    check_machine(tmp_path, "bench1", here)
    other = here | {"cores": 4, "cpu": "Xeon"}
    with pytest.raises(
        InputError,
        match=r"bench1.toml: .*'bench1': cores 2 -> 4, cpu EPYC 7763 -> Xeon; give it another name",
    ):
        check_machine(tmp_path, "bench1", other)
    with pytest.raises(InputError, match="cores 2 -> 4"):  # `create` never replaces
        check_machine(tmp_path, "bench1", other, create=True)


def test_machine_that_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="no machine 'bench9' is recorded; --update-baselines --machine bench9"
    ):
        check_machine(tmp_path, "bench9", {"cpu": "EPYC"})
    with pytest.raises(InputError, match="no machine 'bench9' is recorded"):
        update(tmp_path, measured(metrics=TIMED), machine="bench9")
    assert tree(tmp_path) == {}


def test_machine_name_cannot_leave_the_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"machine '\.\./x'"):
        check_machine(tmp_path, "../x", {}, create=True)
