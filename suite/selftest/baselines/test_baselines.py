"""Baselines: what is written comes back, and nothing that should not become a baseline does."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.baselines import toml_file
from quantgate.baselines.file import Baseline
from quantgate.baselines.seal import inconsistency, seal_of
from quantgate.baselines.store import baseline_path, check_machine, read
from quantgate.baselines.table import format_update
from quantgate.baselines.update import Update, plan_update, write_update
from quantgate.config.matrix import selecting
from quantgate.errors import InputError, QuantgateError
from quantgate.judge.environment import changed_environment
from quantgate.paths import IMPORT_ROOT
from quantgate.records import FORMAT, Measurement, Metric, Scalar, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

CELL = "smollm2-135m/llamacpp/Q4_K_M"
TIER = "smoke"


@pytest.fixture(autouse=True)
def _own_locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files go where pytest cleans up, for the processes that a test starts too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))
    monkeypatch.setattr(tempfile, "tempdir", None)


def perplexity(value: float = 24.8) -> Metric:
    """With floats that a rounded text would lose, and a condition of None."""
    return Metric(
        kind="paired",
        value=value,
        unit="ppl",
        better="lower",
        stderr=0.1 + 0.2,
        link="exp",
        samples=[math.log(value) + d for d in (1 / 3, -1 / 3, 0.0, 0.0)],
        weights=[511.0, 511.0, 511.0, 17.0],
        conditions={"tokens": "ab12", "n_ctx": 512, "limit": None, "bos": True, "scale": 1.0},
        raw={"choices": [[-1.5, -2 / 3], [5e-324, 1e22]], "ids": ["a", "b"]},
    )


WEIGHT_BYTES = Metric(kind="exact", value=98_362_432, unit="bytes", better="lower")
RATIO = Metric(kind="ratio", value=1.7, unit="x", better="higher")
DECODE = Metric(
    kind="rounds",
    value=99.12345,
    unit="tokens/s",
    better="higher",
    samples=[0.3219876, 0.32],
    processes=[1, 1],
)


def measured(**changes: object) -> Measurement:
    fields: dict[str, object] = {
        "cell": CELL,
        "tier": TIER,
        "fingerprint": "f1",
        "created": "2026-07-01T22:14:09+00:00",
        "seconds": 61.2345,
        "phases": {"decode": 7.6543},
        "environment": {"torch": "2.13.0", "threads": 2, "gpu": None, "avx2": True},
        "metrics": {"perplexity": perplexity(), "memory/weight_bytes": WEIGHT_BYTES},
        "complete": True,
    }
    return Measurement.model_validate(fields | changes)


def update(
    root: Path, new: Measurement, *verdicts: Verdict, machine: str | None = None, **how: object
) -> list[Path]:
    """Plan and write, as one run does it."""
    plan = plan_update(new, read(root, CELL, TIER, machine), verdicts, machine)
    return write_update(root, plan, **{"reason": "first", **how})  # type: ignore[arg-type]


def existing(root: Path, machine: str | None = None) -> Baseline:
    baseline = read(root, CELL, TIER, machine)
    assert baseline is not None
    return baseline


def tree(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# --- what is written comes back ----------------------------------------------------------------------


def test_round_trip_to_the_last_digit(tmp_path: Path) -> None:
    new = measured()
    written = update(tmp_path, new)
    baseline = existing(tmp_path)
    assert baseline.metrics == new.metrics
    assert baseline.environment == new.environment
    assert (baseline.reason, baseline.created, baseline.fingerprint) == ("first", "2026-07-01", "f1")
    assert baseline.complete
    assert baseline.path == written[0] == tmp_path / f"{CELL}/smoke.toml"
    # 1 == True == 1.0: the types have to come back too
    assert repr(baseline.metrics["perplexity"].conditions) == repr(
        dict(sorted(perplexity().conditions.items()))
    )


def test_no_file_is_no_baseline(tmp_path: Path) -> None:
    assert read(tmp_path, CELL, TIER) is None
    assert read(tmp_path, CELL, TIER, "bench1") is None


def test_summary_is_for_a_reviewer_and_raw_values_are_beside_it(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured(), reason="llama-cpp-python\n0.3.37's \x1b[1mkernel")
    text = summary.read_text()
    assert text.startswith(
        f"# pytest --tier smoke -m '{selecting(CELL)}' --update-baselines --reason "
        "'llama-cpp-python 0.3.37'\"'\"'s [1mkernel'\n"
    )
    assert (
        '\nperplexity = {value = 24.8, stderr = 0.30000000000000004, unit = "ppl", better = "lower", '
        'kind = "paired", link = "exp", conditions = "perplexity"}\n'
    ) in text
    assert (
        '\n"memory/weight_bytes" = {value = 98362432.0, unit = "bytes", better = "lower", kind = "exact"}\n'
    ) in text
    assert text.index("[metrics]") < text.index("[conditions]") < text.index("[environment]")
    assert f'file = "{raw.name}"' in text
    assert "samples" not in text
    assert "0.3333" not in text
    lines = raw.read_text().splitlines()
    assert '  "weights": [511.0,511.0,511.0,17.0]' in lines
    assert sum(line.startswith('  "') for line in lines) == 5  # raw, samples, weights; a seal each


def test_conditions_of_several_metrics_stand_once(tmp_path: Path) -> None:
    def metric(conditions: dict[str, Scalar]) -> Metric:
        return Metric.model_validate({**dict(WEIGHT_BYTES), "conditions": conditions})

    metrics = {
        "a/one": metric({"n": 1, "text": "x"}),
        "a/two": metric({"text": "x", "n": 1}),  # another order is no other set
        "b/float": metric({"n": 1.0, "text": "x"}),  # equal in Python, not the same
        "b/true": metric({"n": True, "text": "x"}),
        "c/none": metric({}),
        'd "odd"\n': metric({"li ne": 'a\nb = "c", {', "": None}),
        "perplexity": perplexity(),
    }
    summary, _ = update(tmp_path, measured(metrics=metrics))
    read_back = existing(tmp_path).metrics
    assert read_back == metrics
    for name, m in metrics.items():
        assert repr(read_back[name].conditions) == repr(dict(sorted(m.conditions.items())))
    found = tomllib.loads(summary.read_text())
    named = {name: entry.get("conditions") for name, entry in found["metrics"].items()}
    assert named == {name: name for name in metrics} | {"a/two": "a/one", "c/none": None}
    assert found["conditions"].keys() == metrics.keys() - {"a/two", "c/none"}
    assert len(summary.read_text().split("[metrics]\n")[1].split("\n\n")[0].splitlines()) == len(metrics)


def test_command_of_the_user_is_in_the_summary(tmp_path: Path) -> None:
    summary, _ = update(tmp_path, measured(), command="pytest --matrix my.toml")
    assert summary.read_text().startswith("# pytest --matrix my.toml --tier smoke -m ")


def test_equal_measurement_is_written_byte_for_byte(tmp_path: Path) -> None:
    metrics = {
        "perplexity": perplexity(),
        "memory/weight_bytes": WEIGHT_BYTES,
        "bits_per_byte": perplexity(1.5),
    }
    update(tmp_path, measured(metrics=metrics))
    before = tree(tmp_path)
    shuffled = dict(reversed(metrics.items()))
    environment = dict(reversed(measured().environment.items()))
    update(tmp_path, measured(metrics=shuffled, environment=environment, created="2026-07-01T23:00:00+00:00"))
    assert tree(tmp_path) == before


def test_empty_lists_of_older_files_read_as_absent_keys(tmp_path: Path) -> None:
    """They were written for None, and the seal counted them among the conditions."""
    summary, raw = update(tmp_path, measured())
    now = existing(tmp_path)
    assert "[]" not in summary.read_text()
    metric = perplexity()
    text = raw.read_text().replace(seal_of(metric), seal_of(metric, {**metric.conditions, "limit": None}))
    old_sha256, sha256 = (hashlib.sha256(t.encode()).hexdigest() for t in (raw.read_text(), text))
    raw.with_name(f"smoke.{sha256[:12]}.json").write_text(text)
    raw.unlink()
    older = summary.read_text().replace(old_sha256, sha256).replace(raw.name, f"smoke.{sha256[:12]}.json")
    older = older.replace("perplexity = {bos", "perplexity = {limit = [], bos")
    summary.write_text(older.replace("[environment]\n", "[environment]\ngpu = []\n"))
    assert summary.read_text().count("[]") == 2
    read_back = existing(tmp_path)
    assert (read_back.metrics, read_back.environment) == (now.metrics, now.environment)
    assert not plan_update(measured(), read_back, []).refusals
    update(tmp_path, measured())
    assert "[]" not in summary.read_text()
    assert not existing(tmp_path).kept, "an absent key is no other environment"


def test_changed_value_changes_its_lines_only(tmp_path: Path) -> None:
    summary, _ = update(tmp_path, measured())
    before = summary.read_text().splitlines()
    update(tmp_path, measured(metrics=measured().metrics | {"perplexity": perplexity(24.9)}))
    changed = [new for old, new in zip(before, summary.read_text().splitlines(), strict=True) if old != new]
    assert [line.split(" = ")[0] for line in changed] == ["perplexity", "file", "sha256"]


def test_superseded_raw_file_goes(tmp_path: Path) -> None:
    update(tmp_path, measured())
    other = existing(tmp_path).path.with_name("nightly.0123456789ab.json")
    other.write_text("another tier's")
    summary, raw = update(tmp_path, measured(metrics={"perplexity": perplexity(24.9)}))
    assert sorted(summary.parent.iterdir()) == sorted([summary, raw, other])


# --- partial updates ---------------------------------------------------------------------------------


def test_partial_update_keeps_the_rest_with_its_origin(tmp_path: Path) -> None:
    update(tmp_path, measured())
    later = measured(
        metrics={"perplexity": perplexity(24.7)},
        created="2026-08-02T00:00:00+00:00",
        fingerprint="f2",
        environment={"torch": "2.14.0"},
    )
    update(tmp_path, later, reason="torch 2.14")
    baseline = existing(tmp_path)
    assert baseline.metrics == {"perplexity": perplexity(24.7), "memory/weight_bytes": WEIGHT_BYTES}
    fresh, kept = baseline.origin("perplexity"), baseline.origin("memory/weight_bytes")
    assert (fresh.created, fresh.reason, fresh.environment) == (
        "2026-08-02",
        "torch 2.14",
        {"torch": "2.14.0"},
    )
    assert (kept.created, kept.reason, kept.fingerprint) == ("2026-07-01", "first", "f1")
    assert kept.environment == measured().environment
    earlier = re.findall(r' earlier = "(.*)"}$', baseline.path.read_text(), re.MULTILINE)
    assert len(earlier) == 1  # a reviewer sees which metric is older, and where from
    assert f"[earlier.{earlier[0]}]" in baseline.path.read_text()
    # a third update that measures both leaves no trace of the first
    update(tmp_path, measured(created="2026-09-01"), reason="all")
    assert "earlier" not in baseline.path.read_text()
    assert not existing(tmp_path).kept


def test_partial_update_of_the_same_run_needs_no_second_origin(tmp_path: Path) -> None:
    update(tmp_path, measured(metrics={"perplexity": perplexity()}))
    update(tmp_path, measured(metrics={"memory/weight_bytes": WEIGHT_BYTES}))
    assert existing(tmp_path).metrics == measured().metrics
    assert not existing(tmp_path).kept


# --- absolute timings --------------------------------------------------------------------------------

TIMED = {"perplexity": perplexity(), "throughput/decode": DECODE, "throughput/ratio/decode": RATIO}


def test_no_timing_of_an_unnamed_machine_is_written(tmp_path: Path) -> None:
    update(tmp_path, measured(metrics=TIMED))
    assert existing(tmp_path).metrics.keys() == {"perplexity", "throughput/ratio/decode"}
    text = b"".join(tree(tmp_path).values()).decode()
    for timing in ("throughput/decode", "99.12345", "0.3219876", "61.2345", "7.6543"):
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


# --- refusals ----------------------------------------------------------------------------------------


def verdict(status: Status, text: str = "", metric: str = "perplexity", cell: str = CELL) -> Verdict:
    return Verdict(cell=cell, metric=metric, status=status, text=text)


@pytest.mark.parametrize("reason", ["", "  ", "\n\t\x00"])
def test_update_without_a_reason_is_refused(tmp_path: Path, reason: str) -> None:
    with pytest.raises(InputError, match="needs a reason: --reason"):
        update(tmp_path, measured(), reason=reason)
    assert tree(tmp_path) == {}


def test_incomplete_measurement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{CELL} .smoke.: the baseline is not updated:\n.*incomplete"):
        update(tmp_path, measured(complete=False), accept_regressions=True)
    assert tree(tmp_path) == {}


def test_failed_measurement_is_refused(tmp_path: Path) -> None:
    crash = verdict(Status.ERROR, "killed by SIGKILL")
    with pytest.raises(InputError, match="perplexity: killed by SIGKILL"):
        update(tmp_path, measured(), crash, accept_regressions=True)
    assert tree(tmp_path) == {}


def test_regression_needs_to_be_accepted(tmp_path: Path) -> None:
    update(tmp_path, measured())
    before = tree(tmp_path)
    worse = measured(metrics={"perplexity": perplexity(32.0)})
    with pytest.raises(InputError, match=r"perplexity: 29 % worse .--accept-regressions"):
        update(tmp_path, worse, verdict(Status.REGRESSION, "29 % worse"))
    assert tree(tmp_path) == before
    update(tmp_path, worse, verdict(Status.REGRESSION, "29 % worse"), accept_regressions=True)
    assert existing(tmp_path).metrics["perplexity"].value == 32.0


def test_verdicts_of_other_cells_do_not_count(tmp_path: Path) -> None:
    assert update(tmp_path, measured(), verdict(Status.ERROR, "crash", cell="smollm2-135m/llamacpp/Q2_K"))


def test_raw_value_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    metric = perplexity().model_copy(update={"raw": {"choices": [-math.inf]}})
    with pytest.raises(QuantgateError, match=r"metrics.perplexity.raw has a non-finite number"):
        update(tmp_path, measured(metrics={"perplexity": metric}))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("cell", "tier", "machine"),
    [
        ("../../etc", TIER, None),
        ("a/b", TIER, None),
        ("a/b/c/d", TIER, None),
        ("a/b\\..\\x/c", TIER, None),
        (CELL, "../smoke", None),
        (CELL, "", None),
        (CELL, TIER, "../bench1"),
        (CELL, TIER, "a@b"),
    ],
)
def test_names_cannot_leave_the_root(cell: str, tier: str, machine: str | None) -> None:
    with pytest.raises(InputError, match=r"use letters, digits|not of the form"):
        baseline_path(Path("baselines"), cell, tier, machine)


def test_machine_name_cannot_leave_the_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"machine '\.\./x'"):
        check_machine(tmp_path, "../x", {}, create=True)


# --- damaged files -----------------------------------------------------------------------------------


def replaced(old: str, new: str) -> Callable[[Path, Path], None]:
    def damage(summary: Path, raw: Path) -> None:
        text = summary.read_text()
        assert old in text
        summary.write_text(text.replace(old, new, 1))

    return damage


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "not toml": (replaced("value = ", "value ="[:-1]), r"smoke\.toml: corrupted: .*line \d+"),
    "merge conflict": (replaced("cell = ", "<<<<<<< HEAD\ncell = "), r"smoke\.toml: corrupted: "),
    "not utf-8": (lambda s, r: s.write_bytes(b"\xff"), r"smoke\.toml: corrupted: "),
    "wrong key": (
        replaced("stderr = ", "sterr = "),
        r"smoke\.toml: metrics\.perplexity\.sterr: unknown key.*Did you mean 'stderr'",
    ),
    "wrong type": (replaced("value = 24.8", 'value = "much"'), r"smoke\.toml: metrics\.perplexity\.value: "),
    "missing key": (replaced('reason = "first"\n', ""), r"smoke\.toml: reason: "),
    "format 0": (replaced(f"format = {FORMAT}", "format = 0"), r"smoke\.toml: format: "),
    "copied cell": (
        replaced('Q4_K_M"', 'Q2_K"'),
        r"smoke\.toml: cell is '.*Q2_K', but the file's place .*Q4_K_M",
    ),
    "other raw file": (
        replaced('file = "smoke.', 'file = "../smoke.'),
        r"smoke\.toml: raw\.file: '\.\./smoke",
    ),
    "unknown origin": (
        replaced('kind = "exact"', 'kind = "exact", earlier = "x"'),
        r"smoke\.toml: metrics.memory/weight_bytes.earlier: there is no \[earlier\.x\]",
    ),
    "unknown conditions": (
        replaced('conditions = "perplexity"', 'conditions = "x"'),
        r"smoke\.toml: metrics\.perplexity\.conditions: 'x' is not in \[conditions\]",
    ),
    "conditions in place": (
        replaced('conditions = "perplexity"', "conditions = { n_ctx = 512 }"),
        r"smoke\.toml: metrics\.perplexity\.conditions: Input should be a valid string",
    ),
    "a condition that is a list": (
        replaced("n_ctx = 512", "n_ctx = [512]"),
        r"smoke\.toml: conditions\.perplexity\.n_ctx",
    ),
    "samples in the summary": (
        replaced('kind = "exact"', 'kind = "exact", samples = [1.0]'),
        r"smoke\.toml: metrics\.memory/weight_bytes\.samples: unknown key",
    ),
    "raw missing": (
        lambda s, r: r.unlink(),
        r"smoke\.[0-9a-f]{12}\.json: cannot be read .*raw\.file of smoke\.toml",
    ),
    "raw truncated": (
        lambda s, r: r.write_bytes(r.read_bytes()[:-20]),
        r"smoke\.[0-9a-f]{12}\.json: truncated or changed: .*raw\.sha256 of smoke\.toml",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_baseline_says_file_key_and_remedy(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    summary, raw = update(tmp_path, measured())
    damage(summary, raw)
    with pytest.raises(InputError) as caught:
        read(tmp_path, CELL, TIER)
    assert re.search(message, str(caught.value))
    named = str(caught.value).split(": ")[0]
    assert f"git checkout -- {named}`, or delete it and update again" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "value = 24.8",
            "value = 2.8",
            r"metrics\.perplexity: value = 2\.8, but 24\.8.* by the samples in smoke\.",
        ),
        (
            "value = 98362432",
            "value = 98362433",
            r"metrics\.memory/weight_bytes: its line \(value = 98362433\.0\)",
        ),
        ("stderr = 0.30000000000000004", "stderr = 0.3", r"metrics\.perplexity: its line"),
        ("n_ctx = 512", "n_ctx = 256", r"metrics\.perplexity: its line .* or its conditions are not those"),
        ("scale = 1.0", "scale = 1", r"metrics\.perplexity: its line"),
        ('better = "lower"', 'better = "higher"', "its line"),
    ],
)
def test_a_summary_edited_by_hand_is_damaged(tmp_path: Path, old: str, new: str, said: str) -> None:
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    text = summary.read_text()
    assert old in text
    summary.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=said) as caught:
        read(tmp_path, CELL, TIER)
    assert "git checkout" in str(caught.value)


def test_lines_of_two_updates_do_not_go_together(tmp_path: Path) -> None:
    """A merge by lines takes the value of one and the raw file of the other."""
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    ours = summary.read_text()
    update(tmp_path, measured(metrics={"perplexity": perplexity(25.0), "memory/weight_bytes": WEIGHT_BYTES}))
    theirs = summary.read_text()
    line = re.compile(r"^perplexity = .*$", re.MULTILINE)
    summary.write_text(line.sub(line.findall(ours)[0], theirs))
    with pytest.raises(InputError, match=r"metrics.perplexity: value = 24\.8, but (25\.0|24\.99)"):
        read(tmp_path, CELL, TIER)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("level", {"value": 5.0, "samples": [4.0, 5.0, 7.0]}),
        ("ratio", {"value": 5.2, "samples": [4.0, 5.0, 7.0]}),
        ("rounds", {"value": 25.0, "samples": [3.0, 4.0, 5.0], "raw": {"tokens": 100}, "better": "higher"}),
        ("rounds", {"value": 4.0, "samples": [3.0, 4.0, 5.0]}),
        ("paired", {"value": 2.5, "samples": [1.0, 3.0], "weights": [1.0, 3.0]}),
        ("paired", {"value": 1e-20, "samples": [0.1, -0.1]}),
        ("paired", {"value": math.exp(2.5), "samples": [1.0, 3.0], "weights": [1.0, 3.0], "link": "exp"}),
        ("exact", {"value": 2.5}),
    ],
)
def test_values_are_held_against_their_samples(kind: str, change: dict[str, object]) -> None:
    """Of files that were written before there were seals, too."""
    right = Metric.model_validate({"kind": kind, "unit": "", "better": "lower", **change})
    assert inconsistency(right, None) == inconsistency(right, seal_of(right)) == ""
    wrong = right.model_copy(update={"value": right.value * 3 + 1})
    assert "its line" in inconsistency(wrong, seal_of(right)) or kind != "exact"
    assert bool(inconsistency(wrong, None)) == (kind != "exact")
    assert inconsistency(wrong, seal_of(right))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = " + "9" * 5000, "corrupted"),
        ("format = 2\nx = " + "[" * 20000 + "]" * 20000, "corrupted"),
        ("format = 2\ncell = 1e999", "cell"),
    ],
    ids=["digits", "nested", "infinite"],
)
def test_a_summary_that_no_parser_takes_is_damaged(tmp_path: Path, text: str, said: str) -> None:
    summary = baseline_path(tmp_path, CELL, TIER)
    summary.parent.mkdir(parents=True)
    summary.write_text(text)
    with pytest.raises(InputError, match=rf"(?s){said}.*git checkout"):
        read(tmp_path, CELL, TIER)


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 50000 + "]" * 50000,
        "[1]",
        '{"perplexity": 1}',
        '{"perplexity": {"samples": [1' + "0" * 400 + "]}}",
    ],
    ids=["nested", "list", "number", "digits"],
)
def test_a_raw_file_that_is_something_else_is_damaged(tmp_path: Path, raw: str) -> None:
    """Though the summary names it by its hash."""
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    new = hashlib.sha256(raw.encode()).hexdigest()
    text = re.sub(r"[0-9a-f]{64}", new, summary.read_text())
    summary.write_text(re.sub(r"smoke\.[0-9a-f]{12}", f"smoke.{new[:12]}", text))
    summary.with_name(f"smoke.{new[:12]}.json").write_text(raw)
    with pytest.raises(InputError, match="not what quantgate writes"):
        read(tmp_path, CELL, TIER)


def test_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    replaced(f"format = {FORMAT}\n", f"format = {FORMAT + 1}\nunheard_of = 1\n")(summary, raw)
    with pytest.raises(InputError, match=rf"smoke\.toml: format = {FORMAT + 1} .*newer quantgate.*; upgrade"):
        read(tmp_path, CELL, TIER)


def test_older_format_names_both_ways_out(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    replaced(f"format = {FORMAT}\n", "format = 1\n")(summary, raw)
    with pytest.raises(InputError) as caught:
        read(tmp_path, CELL, TIER)
    assert str(caught.value) == (
        f"{summary}: format = 1 was written by an older quantgate (this one reads 2 to {FORMAT}); "
        "check out the file that belongs to this version, or delete it and update again"
    )


def test_raw_file_edited_together_with_its_hash(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    sha256 = hashlib.sha256(b"{").hexdigest()
    replaced(raw.name, f"smoke.{sha256[:12]}.json")(summary, raw)
    summary.write_text(re.sub(r'sha256 = ".*"', f'sha256 = "{sha256}"', summary.read_text()))
    summary.with_name(f"smoke.{sha256[:12]}.json").write_text("{")
    with pytest.raises(InputError, match=r"\.json: not what quantgate writes: "):
        read(tmp_path, CELL, TIER)


def test_unreadable_summary(tmp_path: Path) -> None:
    baseline_path(tmp_path, CELL, TIER).mkdir(parents=True)
    with pytest.raises(InputError, match=r"smoke\.toml: cannot be read \(Is a directory\)"):
        read(tmp_path, CELL, TIER)


# --- interrupted and concurrent updates --------------------------------------------------------------


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
    fsync, start, told = os.fsync, threading.Barrier(4), []

    def slow(handle: int) -> None:
        threading.Event().wait(0.05)
        fsync(handle)

    def write(value: float) -> None:
        plan = plan_update(measured(metrics={"perplexity": perplexity(value)}), old, [])
        start.wait()
        try:
            write_update(tmp_path, plan, reason=f"writer {value}")
        except InputError as error:
            told.append(str(error))

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=write, args=(value,)) for value in (24.1, 24.2, 24.3, 24.4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 3
    assert all("changed by another run; run again" in text for text in told)
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


# --- what a person sees ------------------------------------------------------------------------------


def shown(plan: Update) -> list[str]:
    from rich.console import Console

    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(format_update(plan))
    return [re.sub(r"\s*[│┃]\s*", " | ", line).strip(" |") for line in capture.get().splitlines()]


def test_table_of_an_update(tmp_path: Path) -> None:
    update(tmp_path, measured())
    metrics = {"perplexity": perplexity(26.04), "memory/bpw": WEIGHT_BYTES, "throughput/decode": DECODE}
    plan = plan_update(measured(metrics=metrics), read(tmp_path, CELL, TIER), [verdict(Status.REGRESSION)])
    assert [(row.metric, row.old, row.new, row.kept) for row in plan.rows] == [
        ("memory/bpw", None, 98_362_432, ""),
        ("memory/weight_bytes", 98_362_432, None, "2026-07-01"),
        ("perplexity", 24.8, 26.04, ""),
    ]
    assert plan.rows[2].difference == pytest.approx(1.24)
    assert plan.rows[2].status is Status.REGRESSION
    lines = shown(plan)
    assert f"{CELL} (smoke)" in lines[0]
    assert "memory/bpw (bytes) | - | 98,362,432 | first" in lines
    assert "memory/weight_bytes (bytes) | 98,362,432 | kept from 2026-07-01" in lines
    assert "perplexity (ppl) | 24.8 | 26.04 | +1.24 (+5.00%)" in lines


def test_table_warns_of_timings_of_a_busy_machine(tmp_path: Path) -> None:
    busy = {"disturbances": [{"others": 0.6, "steal": 0.0, "load": 3.0}]}
    ratio = DECODE.model_copy(update={"kind": "ratio", "unit": "x", "raw": busy})
    metrics = {"perplexity": perplexity(24.8), "throughput/decode_ratio": ratio}
    text = " ".join(shown(plan_update(measured(metrics=metrics), None, [])))
    assert "throughput/decode_ratio was timed while other work took up to 60 % of the processor" in text
    assert "update them again on an idle machine: -m throughput" in text
    assert not any("idle" in line for line in shown(plan_update(measured(), None, [])))


def test_table_shows_what_is_unchanged(tmp_path: Path) -> None:
    update(tmp_path, measured())
    assert "perplexity (ppl) | 24.8 | 24.8 | none" in shown(plan_update(measured(), existing(tmp_path), []))


def test_changed_environment() -> None:
    old: dict[str, Scalar] = {"torch": "2.12.0", "threads": 2, "gpu": None, "same": 1.5, "blas": "mkl"}
    new: dict[str, Scalar] = {"torch": "2.13.0", "threads": 4, "same": 1.5, "driver": "550"}
    assert changed_environment(old, new) == [
        "blas mkl -> none",
        "driver none -> 550",
        "threads 2 -> 4",
        "torch 2.12.0 -> 2.13.0",
    ]
    assert changed_environment(new, new) == []


def test_import_is_cheap() -> None:
    script = "import sys, quantgate.baselines.update, json; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=IMPORT_ROOT, check=True, capture_output=True
    ).stdout
    assert not {"torch", "numpy", "rich", "filelock", "tomlkit"} & set(json.loads(found))
