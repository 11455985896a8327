"""Curves, fronts and findings over points whose truth is known."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantgate.config.matrix import MATRIX, Cell
from quantgate.errors import InputError
from quantgate.proofs.papers.__main__ import main
from quantgate.proofs.papers.baseline import BASELINES, Known, accept, load, path_of, workload_of
from quantgate.proofs.papers.cases import Answers, FindingCase, questions
from quantgate.proofs.papers.expected import Entry, Expected, Outcome, load_entries, module_of, outcomes
from quantgate.proofs.papers.kbit_findings import FEW, MANY, TYPES, best_precision, correlation, findings
from quantgate.proofs.papers.points import TASK, Curve, Point, curve, lead, pareto, points_of
from quantgate.proofs.papers.section import Finding, decide
from quantgate.proofs.papers.statistics import around, bootstrap, mean_interval, middle
from quantgate.proofs.pocket.plan import load_plan
from quantgate.records import Measurement, Metric
from quantgate.run.inputs import load_matrix
from scipy import stats

MODELS = {"a": 1e6, "b": 4e6, "c": 16e6}
SIZES = np.full(32, 128.0)


def point(model: str, bits: float, loss: float, **options: Any) -> Point:
    noise = np.random.default_rng(int(loss * 1e9) % 2**32).normal(0, 0.0005, 32)
    return Point(
        model=model,
        scheme="s",
        options={"device": "cpu", "dtype": "float32", "bits": bits, **options},
        bits=bits,
        total_bits=MODELS[model] * bits,
        losses=loss + noise - noise.mean(),
        sizes=SIZES,
        divergences=np.full(32, 0.5 * (loss - base(model))) + noise,
        hits=np.full(8, 0.9 - 0.1 * loss),
    )


def base(model: str) -> float:
    return 8 - math.log2(MODELS[model]) / 5


def cost(bits: int, block: int, data_type: str) -> float:
    """What a scheme loses: half with each bit; blocks matter below 6 bits; int is the worst."""
    worse = {"int": 1.4, "float": 1.2, "dynamic": 1.3, "quantile": 1.0}[data_type]
    blocks = np.log2(block / 64) * (0.04 if bits in FEW else 0.0)
    return float(worse * (2.0 ** (3 - bits)) * 0.2 * (1 + blocks))


def grid() -> list[Point]:
    return [
        point(m, b, base(m) + cost(b, block, t), data_type=t, block=block)
        for m in MODELS
        for t in TYPES
        for block in (64, 128, 256, 1024)
        for b in (*FEW, *MANY)
    ] + [point(m, 16, base(m)) for m in MODELS]


def test_the_front_is_what_nothing_beats() -> None:
    points = [
        point("a", b, loss) for b, loss in [(3, 5.0), (4, 4.0), (5, 4.5), (6, 3.5), (8, 3.5), (16, 3.4)]
    ]
    assert [p.bits for p in pareto(points)] == [3, 4, 6, 16]
    assert [p.bits for p in pareto(points, cost=lambda p: -p.loss)] == [3]


def test_a_curve_is_interpolated_between_its_models_and_no_further() -> None:
    found = curve("x", [point("b", 4, 3.0), point("a", 4, 5.0)])
    middle = np.log2(4e6) + 1
    assert found.at(middle) == pytest.approx(4.0)
    assert np.isnan(found.at(middle + 2))


def test_lead_is_the_mean_gap_where_both_are() -> None:
    one = Curve("one", (10.0, 20.0), (5.0, 4.0))
    other = Curve("other", (15.0, 25.0), (5.0, 4.0))
    assert lead(one, other) == pytest.approx(0.5)
    assert lead(other, one) == pytest.approx(-0.5)
    assert np.isnan(lead(one, Curve("far", (30.0, 40.0), (1.0, 0.5))))


def test_findings_that_hold_are_found() -> None:
    found = {f.key: f for f in findings(grid())}
    assert len(found) == len(TYPES) + len(FEW) + len(MANY) + 2 * len(FEW) + 2 + 1
    assert [f.key for f in found.values() if f.state != "holds" and not f.key.startswith("four-bits")] == []
    block = found["blocks-4-bits"]
    assert block.low < block.value < block.high
    expected = np.mean([cost(4, 1024, t) - cost(4, 64, t) for t in TYPES])
    assert block.value == pytest.approx(expected, abs=1e-6)
    gain = cost(4, 64, "int") - cost(4, 64, "float")
    assert found["float-against-int-4-bits"].value == pytest.approx(gain)


def test_findings_that_do_not_hold_say_so() -> None:
    def worse(p: Point) -> Point:
        if p.options.get("data_type") == "float" and p.bits == 5:
            assert p.divergences is not None
            return replace(p, losses=p.losses + 0.5, divergences=p.divergences + 0.5)
        if p.bits == 6 and p.options.get("block") == 1024:
            return replace(p, losses=p.losses + 0.1)
        return p

    failing = {f.key for f in findings([worse(p) for p in grid()]) if f.state == "does not hold"}
    assert {"falls-with-bits-float", "blocks-6-bits", "float-against-int-5-bits"} <= failing
    assert not {"falls-with-bits-int", "blocks-7-bits", "float-against-int-4-bits"} & failing


def test_a_bit_that_surely_hurts_comes_before_one_of_which_nothing_is_known() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 32)

    def changed(p: Point) -> Point:
        assert p.divergences is not None
        more = {5: 0.1, 8: noise - noise.mean()}
        return replace(p, divergences=p.divergences + more.get(int(p.bits), 0.0))

    points = [changed(p) if p.options.get("data_type") == "float" else p for p in grid()]
    found = {f.key: f for f in findings(points)}["falls-with-bits-float"]
    assert found.state == "does not hold"
    assert "from 4 to 5 bits" in found.text


def test_what_the_text_cannot_tell_is_open() -> None:
    def noisy(p: Point) -> Point:
        if p.options.get("data_type") == "float" and p.bits == 4:
            return replace(p, losses=p.losses + np.random.default_rng(0).normal(0, 1, 32))
        return p

    found = {f.key: f for f in findings([noisy(p) for p in grid()])}
    assert found["float-against-int-4-bits"].state == "open"
    assert found["float-against-int-3-bits"].state == "holds"


def test_intervals_of_means_are_students() -> None:
    values = np.array([1.0, 2.0, 4.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))


def test_a_bootstrap_of_a_mean_comes_near_it() -> None:
    values = np.random.default_rng(1).normal(2, 1, 400)
    found = bootstrap(len(values), lambda rows: float(values[rows].mean()))
    assert found == pytest.approx(mean_interval(values), abs=0.01)
    assert middle(np.array([np.nan, 1.0, np.inf])) == (1.0, 1.0)
    assert np.isnan(middle(np.array([np.nan]))).all()


def test_an_interval_is_around_the_value_of_a_folded_statistic() -> None:
    """Draws of a distance from nought, which is nought over all units, lie on one side of it."""
    draws = np.abs(np.random.default_rng(0).normal(0, 1, 1000))
    assert middle(draws)[0] > 0
    low, high = around(0.0, draws)
    assert low < 0.0 < high
    assert high - low == pytest.approx(np.subtract(*middle(draws)[::-1]))
    plain = np.random.default_rng(0).normal(2, 1, 1000)
    assert around(float(plain.mean()), plain) == pytest.approx(middle(plain))


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(0.1, 0.2, "holds"), (-0.1, 0.2, "open"), (-0.2, 0.0, "does not hold"), (math.nan, math.nan, "open")],
)
def test_an_interval_decides(low: float, high: float, state: str) -> None:
    assert decide(low, high, above=0) == state
    assert decide(-high, -low, below=0) == state
    assert decide(low, high, above=-1, below=1) == ("holds" if state != "open" or low == -0.1 else "open")


def test_the_best_precision_is_named() -> None:
    def scheme(bits: int, loss: float) -> list[Point]:
        return [point(m, bits, base(m) + loss, data_type="int", block=64) for m in MODELS]

    ahead, front = best_precision([*scheme(3, 1.0), *scheme(4, 0.05), *scheme(8, 0.0)])
    assert (ahead.state, front.state, front.value) == ("holds", "holds", 1.0)
    assert 0 < ahead.low <= ahead.value <= ahead.high
    ahead, front = best_precision([*scheme(3, 0.01), *scheme(4, 0.9), *scheme(8, 0.0)])
    assert (ahead.state, front.state, front.value) == ("does not hold", "does not hold", 0.0)
    assert "that of 3 bits" in ahead.text
    assert "on the front of the whole text: 3, 8 bits" in front.text


def test_correlation_has_its_interval() -> None:
    found = correlation(grid())
    assert found.value == pytest.approx(-1.0)
    assert found.state == "holds"
    source = np.random.default_rng(0)
    loose = correlation([replace(p, hits=source.normal(size=8)) for p in grid()])
    assert loose.low < loose.value < loose.high
    assert loose.state == "does not hold"


def test_items_that_all_cells_share_leave_a_correlation_open() -> None:
    """Three models of one accuracy each, at chance: as many cells as you like say no more than three do."""
    hits = {m: (np.random.default_rng(n).random(64) < 0.25).astype(float) for n, m in enumerate(MODELS)}
    found = correlation([replace(p, hits=hits[p.model]) for p in grid()])
    assert found.state == "open"


def test_a_cell_without_all_it_takes_is_no_point() -> None:
    cell = load_matrix().cells("papers")[0]
    whole = record(cell, point("a", cell.bits, 5.0))
    (found,) = points_of([(cell, whole)])
    assert (found.model, found.scheme, found.bits) == (cell.model, cell.scheme, cell.bits)
    assert found.loss == pytest.approx(5.0)
    for missing in ("perplexity", TASK, "memory/weight_bytes"):
        metrics = {name: metric for name, metric in whole.metrics.items() if name != missing}
        assert points_of([(cell, whole.model_copy(update={"metrics": metrics}))]) == []


def test_a_grid_with_holes_is_refused() -> None:
    with pytest.raises(InputError, match=r"^1 of 288 cells of the grid are missing: a int3-b64 "):
        findings(grid()[1:])


# --- what is expected, and the cases ----------------------------------------------------------------


def finding(state: Any = "holds", key: str = "one") -> Finding:
    return Finding(key, "It falls", "it falls", 0.5, 0.25, 0.75, "nats", state, "of two")


def test_the_file_names_modules_that_are_there_and_cells_of_their_tier() -> None:
    matrix = load_matrix()
    for name, entry in load_entries().items():
        assert module_of(name).PAPER.question
        assert entry.chosen(matrix.cells(entry.tier))
        assert all(r.split("/")[0] in matrix.tier(entry.tier).group_options for r in entry.requests)


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "papers.toml"
    file.write_text('[kbit]\ntier = "papers"\nrequests = ["perplexity"]\n[kbit.findings]\none = "perhaps"\n')
    with pytest.raises(InputError, match=r"papers.toml: kbit.findings.one.state: .*'holds'"):
        load_entries(file)
    with pytest.raises(InputError, match=r"nothing: there is no suite/quantgate/proofs/papers/nothing.py"):
        module_of("nothing")


@pytest.mark.parametrize("written", [{}, {"one": "holds", "two": "holds"}])
def test_the_file_and_the_module_have_the_same_findings(written: dict[str, str]) -> None:
    entry = Entry.model_validate({"tier": "t", "requests": ["perplexity"], "findings": written})
    key = "two" if written else "one"
    with pytest.raises(InputError, match=f"x.findings.{key}: is not in "):
        outcomes("x", entry, [finding()], "w", None)


SAME = Known(value=0.5, low=0.25, high=0.75)


def case(
    monkeypatch: pytest.MonkeyPatch,
    found: list[Finding],
    expected: Any,
    root: Path,
    known: Known | None = SAME,
) -> FindingCase:
    """Of the first finding of the k-bit section, as if that had come out so, and had this baseline."""
    asked = questions("papers", load_matrix().cells("papers"))[0]
    entry = asked.entry.model_copy(update={"findings": {asked.key: Expected.model_validate(expected)}})
    monkeypatch.setattr("quantgate.proofs.papers.kbit.findings", lambda measured: found)
    records = {cell.id: record(cell, point("a", cell.bits, 5.0)) for cell in asked.cells}
    if known:
        accepted = replace(
            finding(key=asked.key), value=known.value, low=known.low or 0.0, high=known.high or 0.0
        )
        accept(
            "kbit",
            [accepted],
            workload_of([(c, records[c.id]) for c in asked.cells], entry.requests),
            "a reason",
            root,
        )
    return FindingCase(replace(asked, entry=entry), Answers(root), lambda cell: records[cell.id])


def test_a_finding_that_holds_as_expected_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = questions("papers", load_matrix().cells("papers"))[0].key
    case(monkeypatch, [finding(key=key)], "holds", tmp_path).check()


@pytest.mark.parametrize("state", ["does not hold", "open"])
def test_a_finding_that_does_not_hold_as_expected_is_an_expected_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    key = questions("papers", load_matrix().cells("papers"))[0].key
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
    key = questions("papers", load_matrix().cells("papers"))[0].key
    with pytest.raises(pytest.fail.Exception, match=f"It falls: {state}, expected: {expected} "):
        case(monkeypatch, [finding(state, key)], expected, tmp_path).check()


@pytest.mark.parametrize("state", ["holds", "does not hold", "open"])
def test_a_finding_of_which_nothing_is_known_is_skipped_with_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    key = questions("papers", load_matrix().cells("papers"))[0].key
    said = rf"It falls: {state}\n.*\n  measured: 0.5 nats .*\n  nothing is expected yet"
    with pytest.raises(pytest.skip.Exception, match=said):
        case(monkeypatch, [finding(state, key)], "unknown", tmp_path).check()


def test_a_finding_that_has_left_its_baseline_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Though it is open, as before."""
    key = questions("papers", load_matrix().cells("papers"))[0].key

    def check(known: Known | None) -> None:
        case(monkeypatch, [finding("open", key)], "open", tmp_path, known).check()

    with pytest.raises(
        pytest.fail.Exception, match=r"open, has no baseline .*baselines/papers/kbit.toml; .*-k"
    ):
        check(None)
    said = r"It falls: open, has left its baseline 0.9 \(may be 0.6 to 1.05\)"
    with pytest.raises(pytest.fail.Exception, match=said):
        check(Known(value=0.9, low=0.3, high=1.2))
    with pytest.raises(pytest.xfail.Exception):
        check(Known(value=0.9, low=0.1, high=1.2))


def test_a_baseline_of_another_workload_is_not_comparable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = questions("papers", load_matrix().cells("papers"))[0].key
    one = case(monkeypatch, [finding("open", key)], "open", tmp_path)
    accept("kbit", [finding("open", key)], "another", "a reason", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="open, not comparable: its baseline is of other cells"):
        one.check()


def test_a_workload_is_its_cells_and_their_conditions() -> None:
    cells = load_matrix().cells("papers")[:2]
    measured = [(cell, record(cell, point("a", cell.bits, 5.0))) for cell in cells]
    requests = ["perplexity", "divergence"]
    asked = workload_of(measured, requests)
    different = [(c, record(c, point("a", c.bits, 4.0))) for c in cells]
    assert workload_of(different, requests) == asked, "whatever came out"
    assert workload_of(measured[:1], requests) != asked

    def with_metric(name: str, **conditions: Any) -> str:
        metrics = dict(measured[0][1].metrics)
        metrics[name] = metrics["perplexity"].model_copy(update={"conditions": conditions})
        other = measured[0][1].model_copy(update={"metrics": metrics})
        return workload_of([(cells[0], other), measured[1]], requests)

    assert with_metric("perplexity", windows=3) != asked
    assert with_metric("perplexity", attention="eager") == asked, "how it was computed is no part of it"
    relative = {"windows": 3, "relative to": "a reference"}
    assert with_metric("perplexity/loss", **relative) == asked, "a run adds it, and no finding uses it"
    assert with_metric("accuracy/continuation/acc", task="continuation") == asked, "nobody asked for it"


def test_a_section_that_was_accepted_passes_in_the_next_run(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of pytest, accepted by the command, judged by pytest: alone, and beside other cases."""
    from selftest import section

    options = ["--tier", "smoke", "-p", "selftest.section"]
    monkeypatch.setattr("quantgate.proofs.papers.__main__.load_entries", section.entries)
    first = project.run(*options, "-m", "papers")
    case = "finding[small/cost]"
    assert first.cases == {case: "failed"}
    assert "has no baseline" in first.output
    asked = ["--results", str(project.results), "--baselines", str(project.baselines)]
    asked += ["--matrix", str(project.matrix_file)]
    assert main([*asked, "--update-baselines", "--reason", "first"]) == 0
    assert main(asked) == 0
    again = project.run(*options, "-m", "papers", "--reuse")
    assert (again.cases, again.status) == ({case: "passed"}, 0), again.output
    lines = " ".join(again.output.split())
    assert f"{project.folder / 'report'}: no report was written, since no gate was judged" in lines
    assert "a page of the findings: python -m quantgate.proofs.papers --results=" in lines
    beside = project.run(*options, "-m", "papers or perplexity or tokenizer")
    assert beside.cases[case] == "passed", beside.output
    file = path_of("small", project.baselines)
    file.write_text(re.sub(r"(?<=value = )[-.0-9e]+", "0.9", file.read_text()))
    assert "has left its baseline 0.9" in project.run(*options, "-m", "papers", "--reuse").output


@pytest.mark.parametrize(
    ("known", "value", "allowed"),
    [
        (Known(value=0.5, low=0.3, high=0.9), 0.41, True),
        (Known(value=0.5, low=0.3, high=0.9), 0.39, False),
        (Known(value=0.5, low=0.3, high=0.9), 0.69, True),
        (Known(value=0.5, low=0.3, high=0.9), 0.71, False),
        (Known(value=1.0, low=1.0, high=1.0), 0.9975, True),
        (Known(value=1.0, low=1.0, high=1.0), 0.98, False),
        (Known(value=0.64), 0.64 * (1 + 1e-9), True),
        (Known(value=0.64), 0.6401, False),
        (Known(value=0.0), 0.0, True),
        (Known(value=0.5, low=0.3, high=0.9), math.nan, False),
    ],
)
def test_a_finding_may_move_within_half_of_its_uncertainty(known: Known, value: float, allowed: bool) -> None:
    assert known.allows(replace(finding(), value=value)) is allowed


def test_findings_are_accepted_by_section_with_a_reason(tmp_path: Path) -> None:
    assert load("kbit", tmp_path) is None
    exact = replace(finding(key="size"), low=math.nan, high=math.nan)
    path = accept("kbit", [finding(), exact], "w", "first\ntime", tmp_path)
    found = load("kbit", tmp_path)
    assert found is not None
    assert found.findings == {"one": SAME, "size": Known(value=0.5)}
    assert (found.workload, found.reason) == ("w", "first time")
    assert load("scale", tmp_path) is None
    before = path.read_bytes()
    for one, reason, said in [
        (finding(), " ", "needs --reason"),
        (replace(finding(), value=math.nan), "x", "kbit: one is not a number .*-k"),
    ]:
        with pytest.raises(InputError, match=said):
            accept("kbit", [one], "w", reason, tmp_path)
        assert path.read_bytes() == before
    path.write_text(path.read_text().replace("value = 0.5", 'value = "much"'))
    with pytest.raises(InputError, match=r"(?s)kbit.toml: findings.one.value: .*git checkout"):
        load("kbit", tmp_path)


def test_every_finding_has_a_baseline() -> None:
    """What is committed: of each whose state is known, the number that it was decided by."""
    for name, entry in load_entries().items():
        measured = {key for key, expected in entry.findings.items() if expected.state != "unknown"}
        accepted = load(name)
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


def test_findings_need_all_cells_and_come_after_them(project: Any) -> None:
    """Collected by pytest, selected by mark, measured once."""
    result = project.run("--tier", "papers", "--matrix", str(MATRIX), "--collect-only", "-q", "-m", "papers")
    names = [line for line in result.output.splitlines() if "test_finding[" in line]
    assert len(names) == len(load_entries()["kbit"].findings)
    assert "test_perplexity" not in result.output


# --- the command ----------------------------------------------------------------------------------


def test_a_folder_without_records_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path)]) == 4
    said = "".join(capsys.readouterr().out.split("\n"))
    assert f"pytest --tier papers -m papers --results={tmp_path}" in said
    assert f"{tmp_path}: nothing was measured there" in said


def record(cell: Cell, found: Point) -> Measurement:
    def metric(value: float, **more: Any) -> Metric:
        return Metric(kind="paired", value=value, unit="", better="lower", **more)

    samples = {"weights": found.sizes.tolist()}
    metrics = {
        "perplexity": metric(math.exp(found.loss), samples=found.losses.tolist(), **samples),
        TASK: metric(found.accuracy, samples=found.hits.tolist()),
        "memory/weight_bytes": metric(found.total_bits / 8),
    }
    if found.divergences is not None:
        metrics["divergence/kl_mean"] = metric(0.0, samples=found.divergences.tolist(), **samples)
    return Measurement(
        cell=cell.id,
        tier="papers",
        fingerprint="x",
        created="now",
        requests=load_entries()["kbit"].requests,
        metrics=metrics,
        complete=True,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record of every cell of the k-bit section."""
    folder = tmp_path_factory.mktemp("results")
    sizes = dict(zip(load_plan().sizes, [9e4, 2.3e5, 6.6e5, 2.9e6], strict=True))
    for cell in load_entries()["kbit"].chosen(load_matrix().cells("papers")):
        kind, block = cell.scheme_options.get("data_type"), cell.scheme_options.get("block", 64)
        worse = cost(int(cell.bits), block, kind) if kind in TYPES else 0.0
        found = point("a", cell.bits, 8 - math.log2(sizes[cell.model]) / 5 + worse)
        file = folder / "papers" / f"{cell.id}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        found = replace(found, total_bits=sizes[cell.model] * cell.bits)
        file.write_text(record(cell, found).model_dump_json())
    return folder


def test_records_become_a_table(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert main(["--results", str(results)]) == 0
    shown = capsys.readouterr().out
    for said in (
        "int: divergence falls with each bit",
        "4 bits: blocks of 64 against 1024",
        ": 3, 4, 5, 6, 7, 8, 16 bits",
    ):
        assert said in " ".join(shown.split())


def test_records_become_the_baseline_that_they_then_fit(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    asked = ["--results", str(results), "--baselines", str(tmp_path)]
    assert main([*asked, "-k", "kbit"]) == 0
    findings = load_entries()["kbit"].findings
    assert capsys.readouterr().out.count("has no baseline") == len(findings)
    assert main([*asked, "--update-baselines"]) == 4
    assert not path_of("kbit", tmp_path).exists()
    assert main([*asked, "--update-baselines", "--reason", "first"]) == 0
    said = capsys.readouterr().out
    assert f"kbit.toml: {len(findings)} findings" in said
    assert "calibration: left as it is: 32 of 32 cells were not measured" in said
    assert "baseline (" not in said.partition("wrote")[2]
    assert [f.name for f in path_of("kbit", tmp_path).parent.iterdir()] == ["kbit.toml"]
    assert main([*asked, "--update-baselines", "--reason", "again"]) == 0
    assert f"{len(findings)} findings, 0 of them new or beyond" in capsys.readouterr().out
    path = path_of("kbit", tmp_path)
    path.write_text(re.sub(r"(?<=correlation = \{value = )[-.0-9]+", "0.5", path.read_text()))
    assert main(asked) == 0
    assert capsys.readouterr().out.count("has left its baseline 0.5 ") == 1
    assert main([*asked, "--update-baselines", "--reason", "again"]) == 0
    assert "1 of them new or beyond what was accepted before: correlation" in capsys.readouterr().out
    path.write_text("format = [")
    assert main(asked) == 4
    assert "git checkout" in capsys.readouterr().out
    assert main(["-k", "nothing"]) == 4
    assert "there are kbit, dimensions" in capsys.readouterr().out


def test_records_become_a_page_that_loads_nothing(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    assert main(["--results", str(results), "--output", str(tmp_path)]) == 0
    html = (tmp_path / "papers.html").read_text()
    page = html.partition("<script>")[0]
    assert "The case for 4-bit precision" in page
    assert page.count('<span class="state') > len(load_entries()["kbit"].findings)
    assert not re.findall(
        r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page + html.rpartition("<script>")[2]
    )
    for name in re.findall(r'<div id="([^"]+)">', page):
        assert f'vegaEmbed("#{name}", {{' in html
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000, "something is drawn"


def test_what_has_changed_is_marked_on_the_page() -> None:
    from quantgate.proofs.papers import page
    from quantgate.proofs.papers.kbit import PAPER

    pytest.importorskip("vl_convert")
    small = Expected(state="holds", why="<Small>")
    found = [Outcome(finding("open"), small), Outcome(finding(), small)]
    html = page.render(
        [page.Shown("kbit", PAPER, outcomes=found), page.Shown("x", PAPER, missing="run <it>")]
    )
    assert html.count('<tr class="changed">') == 1
    assert "1 hold, 0 do not hold, 1 open" in html
    assert html.count("&lt;Small&gt;") == 1
    assert "Not measured: run &lt;it&gt;" in html
