"""Everything that is pytest's: options, which cases exist, fixtures, outcome, summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from quantgate import __version__
from quantgate.errors import InputError, QuantgateError, unexpected
from quantgate.measure.groups import group_of, metric_groups
from quantgate.plugin import finish
from quantgate.plugin.case import Gate, Replay
from quantgate.plugin.state import PAIRS, State, is_worker
from quantgate.records import Scalar, Status, Verdict
from quantgate.run.plan import Need

STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the suite; README has them in one table."""
    group = parser.getgroup("quantgate", "quantgate: regression gate for quantized language models")
    add = group.addoption
    add(
        "--tier",
        default="smoke",
        help="which cells and workloads: smoke (default), nightly, full, or one of your matrix",
    )
    add("--matrix", type=Path, metavar="PATH", help="your own matrix.toml: models, tiers, schemes")
    add(
        "--tolerances",
        type=Path,
        metavar="PATH",
        help="your own tolerances.toml, instead of the one in fixtures/",
    )
    add(
        "--text",
        type=Path,
        metavar="PATH",
        help="plain text file that takes the place of the tier's texts (perplexity, divergence, decoding, tokenizer)",
    )
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each measuring process (default: the cores it may use, of a quota whole ones)",
    )
    add("--baselines", type=Path, metavar="DIR", help="where baselines are kept (default: baselines/)")
    add(
        "--require-baselines",
        action="store_true",
        help="a case without baseline fails instead of being skipped",
    )
    add(
        "--update-baselines",
        action="store_true",
        help="make this run's measurements the baselines of the selected cells",
    )
    add("--reason", default="", metavar="TEXT", help="why the baselines change; kept in them")
    add(
        "--accept-regressions",
        action="store_true",
        help="with --update-baselines: also values worse than tolerance",
    )
    add(
        "--machine",
        metavar="NAME",
        help="gate absolute timings too: this machine is NAME, and its fingerprint must match",
    )
    add(
        "--against",
        metavar="PYTHON|VERSIONS",
        help="A/B, without baselines: judge this environment against that of another python, or against one that "
        "is built with these versions ('transformers==5.17.0'); both are measured here, in turns",
    )
    add(
        "--pairs",
        type=int,
        metavar="N",
        help=f"with --against: pairs of processes that timings and memory peaks are taken in (default: {PAIRS})",
    )
    add(
        "--min-judged",
        type=float,
        metavar="SHARE",
        help="fail (exit status 14) where fewer of the gates were judged, 0 to 1: 0.9 is nine of ten",
    )
    add("--results", type=Path, metavar="DIR", help="where measurements and logs go (default: .quantgate/)")
    add(
        "--reuse",
        action="store_true",
        help="take measurements of an earlier or interrupted run where nothing has changed",
    )
    add("--report", type=Path, metavar="DIR", help="write report.md and report.json there")
    add(
        "--profile",
        action="store_true",
        help="show at the end where the wall time went: by cell and phase, in forward passes and outside of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register marks; refuse what does not fit together before anything is collected."""
    add = config.addinivalue_line
    add(
        "markers",
        "gate(request, each=None, references=True): the metric request a case needs of its cell; one case per entry "
        "of `each`; whether there is one of a reference cell",
    )
    try:
        state = State(config)
        if _parallel(config) and state.option.update_baselines:
            raise InputError("--update-baselines does not go with -n: one process writes baselines")
        if _parallel(config) and state.option.against:
            raise InputError("--against does not go with -n: its processes take turns")
        if _parallel(config) and state.option.profile:
            raise InputError("--profile does not go with -n: what runs side by side adds up to no wall time")
        state.check()
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[STATE] = state
    config.pluginmanager.register(Collector(state), "quantgate-collector")
    # What no case of this tier has is still a name that -m may use.
    for name in sorted({*metric_groups(), *(m for c in state.cells.values() for m in c.marks)}):
        _mark(config, name)


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Nothing is collected for a metric that the tier does not measure."""
    state = collector.config.stash[STATE]
    for mark in getattr(obj, "pytestmark", ()) if isinstance(obj, FunctionType) else ():
        if mark.name == "gate" and mark.args[0].split("/")[0] not in state.tier.group_options:
            return []
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One case per cell of the tier (and per entry of the workload's `each`)."""
    state = metafunc.config.stash[STATE]
    marker = metafunc.definition.get_closest_marker("gate")
    if marker is None or "gate" not in metafunc.fixturenames:
        return
    request: str = marker.args[0]
    group = request.split("/")[0]
    options = state.tier.group_options[group]
    parameters = []
    for cell in state.cells.values():
        if cell.id == cell.reference and not marker.kwargs.get("references", True):
            continue
        if cell.simulated and "timings" in group_of(group).capabilities:
            continue
        reason = state.reason_to_skip(cell)
        if reason:
            state.skipped[cell.id] = reason
        for part in getattr(options, marker.kwargs["each"]) if "each" in marker.kwargs else [""]:
            names = dict.fromkeys([*cell.marks, *request.split("/"), *([part] if part else [])])
            marks = [_mark(metafunc.config, name) for name in names]
            if reason:
                marks.append(pytest.mark.skip(reason=reason))
            need = Need(cell, f"{request}/{part}" if part else request)
            parameters.append(pytest.param(need, id=f"{cell.id}/{part}" if part else cell.id, marks=marks))
    metafunc.parametrize("gate", parameters, indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The plan is what is left after -k and -m; a cell's cases come together, references first."""
    state = config.stash[STATE]
    # Where no cell has a metric, pytest puts a skipped case that stands for none.
    items[:] = [i for i in items if _needs(i) or "gate" not in getattr(i, "fixturenames", ())]
    order: dict[str, int] = {cell: n for n, cell in enumerate(state.cells)}
    # A case that needs several cells comes after those of the last one.
    items.sort(key=lambda item: max((order.get(n.cell.id, -1) for n in _needs(item)), default=-1))
    asked = [n for i in items for n in _needs(i)]
    state.needs = [n for n in asked if n.cell.id not in state.skipped]
    selected = {n.cell.id for n in asked}
    state.skipped = {cell: why for cell, why in state.skipped.items() if cell in selected}


def pytest_collection_finish(session: pytest.Session) -> None:
    """The matrix goes with the checkpoints, an update has samples enough, and the other environment of an A/B run is
    there, before the first case begins."""

    state = session.config.stash[STATE]
    try:
        if not is_worker(session.config):  # pytest-xdist would start another: there the cells say it
            state.check_fit()
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    if not session.config.option.collectonly:
        try:
            if state.needs and not is_worker(session.config):  # of pytest-xdist, the controller holds it
                state.claim_results()
            state.open_against()
            state.foresee()
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Timings taken while other cells run beside are worthless. The folder of results is this run's from now on."""
    for group in (name for name, one in metric_groups().items() if one.alone):
        if any(f"test_{group}.py::" in i for i in ids):
            raise pytest.UsageError(
                f"-n measures cells side by side, and {group} cases are selected: their timings would be worthless. "
                f"Leave -n out, or deselect them with -m 'not {group}'."
            )
    state = node.config.stash[STATE]
    gates = {f"test_{group}.py::" for group in metric_groups()}
    if not state.claimed and any(name in i for i in ids for name in gates):
        try:
            state.claim_results()
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """The case's cell and metric: `gate.check()`."""
    state = request.config.stash[STATE]
    replay = Replay()
    request.node.add_marker(pytest.mark.benchmark(timer=replay))
    gate = Gate(request.param, request.node.nodeid, state.runner, state.rules, replay)
    yield gate
    for verdict in gate.verdicts:
        request.node.user_properties.append((f"verdict {verdict.metric}", str(verdict.status)))
    request.node.stash[_VERDICTS] = gate.verdicts
    request.node.stash[_ENVIRONMENT] = gate.environment


_VERDICTS = pytest.StashKey[list[Verdict]]()
_ENVIRONMENT = pytest.StashKey[dict[str, Scalar]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Verdicts travel with the report of the teardown phase, across pytest-xdist's processes too."""
    report: Any = yield
    if report.when == "teardown" and _VERDICTS in item.stash:
        report.quantgate = [v.model_dump(mode="json") for v in item.stash[_VERDICTS]]
        report.quantgate_environment = item.stash[_ENVIRONMENT]
    report.quantgate_case = bool(item.get_closest_marker("gate"))
    return report


class Collector:
    """Gathers verdicts where the reports arrive: in the controlling process."""

    def __init__(self, state: State) -> None:
        self._state = state

    def pytest_runtest_logreport(self, report: Any) -> None:
        if verdicts := [Verdict.model_validate(v) for v in getattr(report, "quantgate", [])]:
            self._state.verdicts.extend(verdicts)
            self._state.cases[report.nodeid] = verdicts
            if environment := report.quantgate_environment:
                self._state.environments[verdicts[0].cell] = environment
        self._state.case_seconds += report.duration
        if report.failed and not getattr(report, "quantgate_case", False):
            self._state.foreign_failures += 1


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write accepted baselines, then say with the exit status what was found."""
    state = session.config.stash[STATE]
    if is_worker(session.config) or session.config.option.collectonly:
        return
    try:
        if state.option.update_baselines and state.needs and exitstatus in (0, 1):
            state.updates = finish.update_baselines(state)
    except Exception as error:
        state.updates = [unexpected(error)]
    refused = any(isinstance(one, QuantgateError) for one in state.updates)
    session.exitstatus = state.exit_status = finish.exit_status(state, int(exitstatus), refused)


def _unforeseen(session: pytest.Session, error: Exception) -> str:
    """End with the status of an error: with a traceback, it would be that of a regression."""
    session.exitstatus = session.config.stash[STATE].exit_status = finish.EXIT[Status.ERROR]
    return str(unexpected(error))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> Any:
    """The table, each regression in full, updates, reports: last on the screen, after pytest-benchmark's."""
    state = config.stash[STATE]
    session = terminalreporter._session
    try:
        finish.shorten_failures(state, terminalreporter.stats.get("failed", []))
    except Exception as error:
        terminalreporter.write_line(_unforeseen(session, error))
    yield
    if config.option.collectonly or is_worker(config):
        return
    try:
        if state.verdicts:
            finish.summarize(state, terminalreporter, int(exitstatus))
    except Exception as error:
        terminalreporter.write_line(_unforeseen(session, error))
    if not state.verdicts and state.option.report is not None:
        terminalreporter.write_line(f"{state.option.report}: no report was written, since no gate was judged")


def pytest_report_header(config: pytest.Config) -> str:
    state = config.stash[STATE]
    return (
        f"quantgate {__version__}: tier {state.option.tier} of {state.matrix.path.name}, {len(state.cells)} cells, "
        f"{state.threads} threads, "
        + (f"against {state.option.against}" if state.option.against else f"baselines in {state.baselines}")
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    state = config.stash.get(STATE, None)
    try:
        if state is not None:
            state.close()
    except Exception as error:
        print(unexpected(error), file=sys.stderr)


def _needs(item: pytest.Item) -> list[Need]:
    """What a case needs measured: its parameters that are a `Need`, or have `needs` of their own (one case of many
    cells)."""
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params.values() if callspec else ()
    needs = [n for p in parameters for n in ([p] if isinstance(p, Need) else getattr(p, "needs", ()))]
    return [need for need in needs if isinstance(need, Need)]


def _mark(config: pytest.Config, name: str) -> pytest.MarkDecorator:
    """A mark by its name, registered."""
    if not any(line.startswith(f"{name}:") for line in config.getini("markers")):
        config.addinivalue_line(
            "markers", f"{name}: cases of this model, backend, scheme, nominal bits or metric"
        )
    mark: pytest.MarkDecorator = getattr(pytest.mark, name)
    return mark


def _parallel(config: pytest.Config) -> bool:
    option = config.option
    spread = getattr(option, "dist", "no") != "no" and bool(
        getattr(option, "tx", None)
    )  # --dist load --tx 2*popen
    return is_worker(config) or spread or bool(getattr(option, "numprocesses", None))
