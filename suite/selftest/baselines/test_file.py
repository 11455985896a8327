"""What is written to a baseline comes back; a partial update keeps the rest."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from quantgate.baselines.raw import seal_of
from quantgate.baselines.store import read
from quantgate.baselines.update import plan_update
from quantgate.config.matrix import selecting
from quantgate.records import Metric, Scalar

from selftest.baselines.accepted import CELL, TIER, WEIGHT_BYTES, existing, measured, perplexity, tree, update


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
    result = tomllib.loads(summary.read_text())
    named = {name: entry.get("conditions") for name, entry in result["metrics"].items()}
    assert named == {name: name for name in metrics} | {"a/two": "a/one", "c/none": None}
    assert result["conditions"].keys() == metrics.keys() - {"a/two", "c/none"}
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
    older_seal = seal_of(metric, {**metric.conditions, "limit": None})
    text = raw.read_text().replace(seal_of(metric, metric.conditions), older_seal)
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
