"""Findings against expected states and baselines."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quantgate.errors import InputError
from quantgate.proofs.papers.expected import (
    BASELINES,
    Accepted,
    Entry,
    Expected,
    accept,
    load_baseline,
    load_entries,
    module_of,
    outcomes,
    workload_of,
)
from quantgate.proofs.papers.plugin import Answers, FindingCase, Question, questions
from quantgate.proofs.papers.section import Finding
from quantgate.run.inputs import load_matrix

from selftest.proofs.papers_points import finding, point, record


def test_the_file_names_modules_that_are_there_and_cells_of_their_tier() -> None:
    matrix = load_matrix()
    for name, entry in load_entries().items():
        assert module_of(name).PAPER.question
        assert entry.chosen(matrix.cells(entry.tier))
        assert all(r.split("/")[0] in matrix.tier(entry.tier).group_options for r in entry.requests)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "papers.toml"
    file.write_text('[kbit]\ntier = "papers"\nrequests = ["perplexity"]\n[kbit.findings]\none = "perhaps"\n')
    with pytest.raises(InputError, match=r"papers.toml: kbit.findings.one.state: .*Allowed: .*holds"):
        load_entries(file)
    with pytest.raises(InputError, match=r"nothing: there is no suite/quantgate/proofs/papers/nothing.py"):
        module_of("nothing")


@pytest.mark.parametrize("written", [{}, {"one": "holds", "two": "holds"}])
def test_the_file_and_the_module_have_the_same_findings(written: dict[str, str]) -> None:
    entry = Entry.model_validate({"tier": "t", "requests": ["perplexity"], "findings": written})
    key = "two" if written else "one"
    with pytest.raises(InputError, match=f"x.findings.{key}: is not in "):
        outcomes("x", entry, [finding()], "w", None)


SAME = Accepted(value=0.5, low=0.25, high=0.75)


@functools.cache
def first() -> Question:
    """The first question of the k-bit section, of three of its cells."""
    question = questions("papers", load_matrix().cells("papers"))[0]
    return replace(question, cells=question.cells[:3])


def case(
    monkeypatch: pytest.MonkeyPatch,
    results: list[Finding],
    expected: Any,
    root: Path,
    baseline: Accepted | None = SAME,
) -> FindingCase:
    """Of the first finding of the k-bit section, as if that had come out so, and had this baseline."""
    question = first()
    entry = question.entry.model_copy(update={"findings": {question.key: Expected.model_validate(expected)}})
    monkeypatch.setattr("quantgate.proofs.papers.kbit.findings", lambda measured: results)
    records = {cell.id: record(cell, point("a", cell.bits, 5.0)) for cell in question.cells}
    if baseline:
        accepted = replace(
            finding(key=question.key),
            value=baseline.value,
            low=baseline.low or 0.0,
            high=baseline.high or 0.0,
        )
        accept(
            "kbit",
            [accepted],
            workload_of([(c, records[c.id]) for c in question.cells], entry.requests),
            "a reason",
            root,
        )
    return FindingCase(replace(question, entry=entry), Answers(root), lambda cell: records[cell.id])


def test_a_finding_that_holds_as_expected_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = first().key
    case(monkeypatch, [finding(key=key)], "holds", tmp_path).check()


@pytest.mark.parametrize("state", ["does not hold", "open"])
def test_a_finding_that_does_not_hold_as_expected_is_an_expected_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    key = first().key
    with pytest.raises(
        pytest.xfail.Exception, match=rf"It falls: {state}\n.*\n  measured: 0.5 nats .*\n  Small."
    ):
        case(monkeypatch, [finding(state, key)], {"state": state, "why": "Small."}, tmp_path).check()


@pytest.mark.parametrize(
    ("state", "expected"), [("does not hold", "holds"), ("holds", "open"), ("open", "holds")]
)
def test_a_finding_that_has_changed_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, expected: str
) -> None:
    key = first().key
    with pytest.raises(pytest.fail.Exception, match=f"It falls: {state}, expected: {expected} "):
        case(monkeypatch, [finding(state, key)], expected, tmp_path).check()


@pytest.mark.parametrize("state", ["holds", "does not hold", "open"])
def test_a_finding_of_which_nothing_is_known_is_skipped_with_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    key = first().key
    text = rf"It falls: {state}\n.*\n  measured: 0.5 nats .*\n  nothing is expected yet"
    with pytest.raises(pytest.skip.Exception, match=text):
        case(monkeypatch, [finding(state, key)], "unknown", tmp_path).check()


def test_a_finding_that_has_left_its_baseline_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Though it is open, as before."""
    key = first().key

    def check(baseline: Accepted | None) -> None:
        case(monkeypatch, [finding("open", key)], "open", tmp_path, baseline).check()

    with pytest.raises(
        pytest.fail.Exception, match=r"open, has no baseline .*baselines/papers/kbit.toml; .*-k"
    ):
        check(None)
    text = r"It falls: open, has left its baseline 0.9 \(may be 0.6 to 1.05\)"
    with pytest.raises(pytest.fail.Exception, match=text):
        check(Accepted(value=0.9, low=0.3, high=1.2))
    with pytest.raises(pytest.xfail.Exception):
        check(Accepted(value=0.9, low=0.1, high=1.2))


def test_a_baseline_of_another_workload_is_not_comparable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = first().key
    one = case(monkeypatch, [finding("open", key)], "open", tmp_path)
    accept("kbit", [finding("open", key)], "another", "a reason", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="open, not comparable: its baseline is of other cells"):
        one.check()


def test_a_workload_is_its_cells_and_their_conditions() -> None:
    cells = load_matrix().cells("papers")[:2]
    measured = [(cell, record(cell, point("a", cell.bits, 5.0))) for cell in cells]
    requests = ["perplexity", "divergence"]
    workload = workload_of(measured, requests)
    different = [(c, record(c, point("a", c.bits, 4.0))) for c in cells]
    assert workload_of(different, requests) == workload, "whatever came out"
    assert workload_of(measured[:1], requests) != workload

    def with_metric(name: str, **conditions: Any) -> str:
        metrics = dict(measured[0][1].metrics)
        metrics[name] = metrics["perplexity"].model_copy(update={"conditions": conditions})
        other = measured[0][1].model_copy(update={"metrics": metrics})
        return workload_of([(cells[0], other), measured[1]], requests)

    assert with_metric("perplexity", windows=3) != workload
    assert with_metric("perplexity", attention="eager") == workload, "how it was computed is no part of it"
    relative = {"windows": 3, "relative to": "a reference"}
    assert with_metric("perplexity/loss", **relative) == workload, "a run adds it, and no finding uses it"
    assert with_metric("accuracy/continuation/acc", task="continuation") == workload, "no request covers it"


@pytest.mark.parametrize(
    ("accepted", "value", "allowed"),
    [
        (Accepted(value=0.5, low=0.3, high=0.9), 0.41, True),
        (Accepted(value=0.5, low=0.3, high=0.9), 0.39, False),
        (Accepted(value=0.5, low=0.3, high=0.9), 0.69, True),
        (Accepted(value=0.5, low=0.3, high=0.9), 0.71, False),
        (Accepted(value=1.0, low=1.0, high=1.0), 0.9975, True),
        (Accepted(value=1.0, low=1.0, high=1.0), 0.98, False),
        (Accepted(value=0.64), 0.64 * (1 + 1e-9), True),
        (Accepted(value=0.64), 0.6401, False),
        (Accepted(value=0.0), 0.0, True),
        (Accepted(value=0.5, low=0.3, high=0.9), math.nan, False),
    ],
)
def test_a_finding_may_move_within_half_of_its_uncertainty(
    accepted: Accepted, value: float, allowed: bool
) -> None:
    assert accepted.allows(replace(finding(), value=value)) is allowed


def test_findings_are_accepted_by_section_with_a_reason(tmp_path: Path) -> None:
    assert load_baseline("kbit", tmp_path) is None
    exact = replace(finding(key="size"), low=math.nan, high=math.nan)
    path = accept("kbit", [finding(), exact], "w", "first\ntime", tmp_path)
    result = load_baseline("kbit", tmp_path)
    assert result is not None
    assert result.findings == {"one": SAME, "size": Accepted(value=0.5)}
    assert (result.workload, result.reason) == ("w", "first time")
    assert load_baseline("scale", tmp_path) is None
    before = path.read_bytes()
    for one, reason, text in [
        (finding(), " ", "needs --reason"),
        (replace(finding(), value=math.nan), "x", "kbit: one is not a number .*-k"),
    ]:
        with pytest.raises(InputError, match=text):
            accept("kbit", [one], "w", reason, tmp_path)
        assert path.read_bytes() == before
    path.write_text(path.read_text().replace("value = 0.5", 'value = "much"'))
    with pytest.raises(InputError, match=r"(?s)kbit.toml: findings.one.value: .*git checkout"):
        load_baseline("kbit", tmp_path)


def test_every_finding_has_a_baseline() -> None:
    """What is committed: of each whose state is known, the number that it was decided by."""
    for name, entry in load_entries().items():
        measured = {key for key, expected in entry.findings.items() if expected.state != "unknown"}
        accepted = load_baseline(name)
        assert (accepted.findings.keys() if accepted else set()) == measured
    assert {f.stem for f in (BASELINES / "papers").iterdir()} == load_entries().keys()


def test_what_is_not_measured_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(measured: Any) -> list[Finding]:
        raise InputError("cells are missing")

    one = case(monkeypatch, [], "holds", tmp_path)
    monkeypatch.setattr("quantgate.proofs.papers.kbit.findings", broken)
    for _ in range(2):  # the second time without asking again
        with pytest.raises(pytest.fail.Exception, match="error: cells are missing"):
            one.check()
        monkeypatch.setattr("quantgate.proofs.papers.kbit.findings", lambda measured: [])
