"""pytest's hooks: which cases exist, their fixture, what happens when a run begins and ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from quantgate import __version__
from quantgate.errors import InputError, unexpected
from quantgate.measure.groups import group_name, metric_groups
from quantgate.plugin import case, finish
from quantgate.plugin.cases import group_of_case
from quantgate.plugin.entry import MATRIX_FILE, unread_table
from quantgate.plugin.info import notes_of
from quantgate.plugin.marks import (
    CASE,
    exempting,
    parts_of,
    register_marks,
    request_of,
    without_cases,
    wrong_request,
)
from quantgate.plugin.options import Options, add_options
from quantgate.plugin.screen import is_worker
from quantgate.plugin.wiring import WIRING, Wiring
from quantgate.records import Status
from quantgate.run.inputs import lacking_capabilities
from quantgate.run.plan import Need
from quantgate.words import plural

OUTCOME = pytest.StashKey[finish.Outcome]()


pytest_addoption = add_options


def pytest_configure(config: pytest.Config) -> None:
    """Register marks; refuse what does not fit together before anything is collected."""
    config.addinivalue_line(
        "markers",
        "quantgate(request, each=None, references=True): request: the metrics that the case judges; each: the option "
        "of the tier with one case per entry; references: whether reference cells have the case",
    )
    try:
        options = Options.of(config)
        if spread_by := _spread_by(config):
            options.check_parallel(spread_by)
        wiring = Wiring(config, options)
        wiring.check()
    except InputError as error:
        if config.option.help:  # which says what to write instead
            return
        raise pytest.UsageError(str(error)) from None
    config.stash[WIRING], config.stash[OUTCOME] = wiring, finish.Outcome(wiring.cells)
    register = config.pluginmanager.register
    register(config.stash[OUTCOME], "quantgate-outcome")
    register(case, "quantgate-case")
    if not config.pluginmanager.hasplugin("benchmark"):
        register(case.NoBenchmark(), "quantgate-no-benchmark")
    # -m may name what no case of this tier has.
    register_marks(config, {*metric_groups(), *(m for c in wiring.cells.values() for m in c.marks)})


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Take the variables that the repository's conftest.py files have set for the session."""
    session.config.stash[WIRING].start.take_variables()


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Collect nothing for a metric that the tier does not measure."""
    request = request_of(obj)
    if request is None or group_name(request) in collector.config.stash[WIRING].tier.group_options:
        return None
    if problem := wrong_request(request):
        raise collector.CollectError(f"{getattr(obj, '__name__', obj)}: {problem}")
    return []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one case per cell of the tier (and per entry of the workload's `each`)."""
    if CASE not in metafunc.fixturenames:
        return
    wiring = metafunc.config.stash[WIRING]
    marker = metafunc.definition.get_closest_marker("quantgate")
    if marker is None:
        text = f"takes {CASE}, but has no @pytest.mark.quantgate(REQUEST) that says what it measures: add it"
        pytest.fail(f"{metafunc.function.__name__}: {text}", pytrace=False)
    request = str(marker.args[0]) if marker.args else ""
    group = group_name(request)
    if group not in wiring.tier.group_options:
        # A mark of the module or class: those of functions were looked at when they were collected.
        text = wrong_request(request) or (
            f"the tier {wiring.options.tier} does not measure {group}: mark the function itself, so that such tiers "
            "leave it out"
        )
        pytest.fail(f"{metafunc.function.__name__}: {text}", pytrace=False)
    options = wiring.tier.group_options[group]
    wiring.with_cases.add(group)
    parts = parts_of(marker, options)
    register_marks(metafunc.config, [*request.split("/"), *filter(None, parts)])
    parameters = []
    for cell in wiring.cells.values():
        if cell.id == cell.reference and not marker.kwargs.get("references", True):
            continue
        if wiring.tier.leaves_out(cell.id, group):
            continue
        if lacks := lacking_capabilities(cell, group):
            wiring.without[cell.id, group] = f"{cell.backend} lacks the capability {' and '.join(lacks)}"
            continue
        if why := wiring.machines.left_out(group) if wiring.machines else "":
            wiring.without[cell.id, group] = why
            continue
        if reason := wiring.reason_to_skip(cell):
            wiring.skipped[cell.id] = reason
        for part in parts:
            names = dict.fromkeys([*cell.marks, *request.split("/"), *([part] if part else [])])
            marks = [getattr(pytest.mark, name) for name in names]
            marks += exempting(metafunc.config)
            if reason:
                marks.append(pytest.mark.skip(reason=reason))
            need = Need(cell, f"{request}/{part}" if part else request)
            parameters.append(pytest.param(need, id=f"{cell.id}/{part}" if part else cell.id, marks=marks))
    # Where no cell has the metric, one case that stands for none and does not stay (`pytest_collection_modifyitems`):
    # an ini file may make an empty set an error.
    metafunc.parametrize(CASE, parameters or [pytest.param(None, id="none")], indirect=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bring a cell's cases together, references first."""
    wiring = config.stash[WIRING]
    needs = {item: _needs(item) for item in items}
    items[:] = [i for i in items if needs[i] or CASE not in getattr(i, "fixturenames", ())]
    order = {cell: n for n, cell in enumerate(wiring.cells)}
    # A case that needs several cells comes after those of the last one. Tests that are no case keep their places.
    last = {item: max(order.get(need.cell.id, -1) for need in needs[item]) for item in items if needs[item]}
    ours = iter(sorted(last, key=lambda item: last[item]))
    items[:] = [next(ours) if item in last else item for item in items]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Measure what is left after -k, -m, --lf and other plugins. Before the first case: check that the matrix goes with
    the checkpoints and that an update has samples enough, take the folder of results, find the other environment of an
    A/B run."""
    wiring = session.config.stash[WIRING]
    wiring.select(need for item in session.items for need in _needs(item))
    controls = not is_worker(session.config)  # an error in a process of pytest-xdist makes it start another
    try:
        with wiring.start.restored():
            if controls:
                wiring.check_fit()
            if not session.config.option.collectonly:
                for line in without_cases(session.config, wiring) if controls else ():
                    wiring.screen.say(f"note: {line}")
                if wiring.needs and controls:
                    wiring.claim_results()
                wiring.open_environments()
                wiring.foresee()
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Refuse timings beside other cells, which would be worthless, and take the folder of results."""
    wiring = node.config.stash[WIRING]
    groups = {one for nodeid in ids if (one := group_of_case(nodeid, wiring.cells)) is not None}
    for group in sorted(groups - {""}):
        if problem := case.beside_others(group, _spread_by(node.config)):
            raise pytest.UsageError(problem)
    if groups and not wiring.claimed:
        try:
            wiring.claim_results()
        except InputError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a process of pytest-xdist what it left out, and its notes."""
    wiring, outcome = node.config.stash[WIRING], node.config.stash[OUTCOME]
    if shared := getattr(node, "workeroutput", {}).get("quantgate"):  # none of one that crashed
        wiring.skipped.update(shared["skipped"])
        outcome.notes += [(cell, note) for cell, note in shared["notes"]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Send the verdicts with the report of the teardown phase, across the processes of pytest-xdist too."""
    report: Any = yield
    if report.when == "teardown" and case.JUDGED in item.stash:
        judged = item.stash[case.JUDGED]
        report.quantgate = [v.model_dump(mode="json") for v in judged.verdicts]
        report.quantgate_environment = judged.environment
    needs = _needs(item) if CASE in getattr(item, "fixturenames", ()) else []
    report.quantgate_case = group_name(needs[0].request) if needs else ""
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write accepted baselines, then set the exit status."""
    config: Any = session.config
    wiring, outcome = config.stash[WIRING], config.stash[OUTCOME]
    if config.option.collectonly:
        return
    if is_worker(config):
        config.workeroutput["quantgate"] = {"skipped": wiring.skipped, "notes": list(notes_of(wiring))}
        return
    try:
        if wiring.options.update_baselines and wiring.needs and exitstatus in (0, 1):
            with wiring.start.restored():
                outcome.updates = finish.update_baselines(wiring, outcome)
    except Exception as error:
        outcome.updates = [unexpected(error)]
    session.exitstatus = outcome.exit_status = finish.exit_status(wiring, outcome, int(exitstatus))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> Any:
    """Write the table, each regression in full, updates, reports: last on the screen, after pytest-benchmark's."""
    wiring, outcome = config.stash[WIRING], config.stash[OUTCOME]
    with _unforeseen(terminalreporter, outcome):
        finish.shorten_failures(wiring, outcome, terminalreporter.stats.get("failed", []))
    yield
    if config.option.collectonly or is_worker(config):
        return
    if outcome.verdicts:
        with _unforeseen(terminalreporter, outcome), wiring.start.restored():
            finish.summarize(wiring, outcome, terminalreporter, int(exitstatus))
        return
    for line in finish.nothing_judged(wiring, outcome):
        terminalreporter.write_line(line)


@contextmanager
def _unforeseen(reporter: Any, outcome: finish.Outcome) -> Iterator[None]:
    """Give any exception the exit status of an error: with a traceback, it would be that of a regression."""
    try:
        yield
    except Exception as error:
        reporter._session.exitstatus = outcome.exit_status = finish.EXIT[Status.ERROR]
        reporter.write_line(str(unexpected(error)))


def pytest_report_header(config: pytest.Config) -> str:
    """Name the tier and what it is compared with."""
    wiring, file = config.stash[WIRING], config.stash.get(MATRIX_FILE, None)
    against = wiring.options.against
    both = wiring.options.matrix is None and file is not None and unread_table(file)
    return (
        f"quantgate {__version__}: tier {wiring.options.tier} of {wiring.matrix.path.name}, "
        f"{plural(len(wiring.cells), 'cell')}, {plural(wiring.threads, 'thread')}, "
        + (f"against {against}" if against else f"baselines in {wiring.baselines}")
        + (" (WARNING: [tool.quantgate] in pyproject.toml is not read beside it)" if both else "")
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what runs, and give back what is open."""
    wiring = config.stash.get(WIRING, None)
    try:
        if wiring is not None:
            with wiring.start.restored():
                try:
                    finish.write_unsaid(wiring, config.stash[OUTCOME])
                finally:
                    wiring.close()
    except Exception as error:
        print(unexpected(error), file=sys.stderr)


def _needs(item: pytest.Item) -> list[Need]:
    """Return what a case needs measured: the parameters of our fixtures that are a `Need`, or that have `needs` (a case
    of many cells)."""
    callspec = getattr(item, "callspec", None)
    parameters = callspec.params.items() if callspec else ()
    ours = [value for name, value in parameters if name.startswith("quantgate_")]
    return [n for p in ours for n in ([p] if isinstance(p, Need) else getattr(p, "needs", ()))]


def _spread_by(config: pytest.Config) -> str:
    """Return the options by which pytest-xdist or pytest-forked spreads the cases over processes; empty: neither
    does."""
    option = config.option
    if getattr(option, "forked", False):
        return "--forked"
    if is_worker(config) or getattr(option, "numprocesses", None):
        return "-n"
    return "--tx" if getattr(option, "dist", "no") != "no" and getattr(option, "tx", None) else ""
