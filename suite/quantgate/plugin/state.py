"""What one pytest run knows: its options checked, its input read, its runner and rules."""

from __future__ import annotations

import logging
import os
import shlex
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from quantgate.baselines.store import Update, check_machine
from quantgate.baselines.store import read as read_baseline
from quantgate.cache.prune import bound, limit_bytes, sweep
from quantgate.config.hardware import missing_hardware
from quantgate.config.matrix import Cell, Matrix
from quantgate.config.tolerances import TOLERANCES
from quantgate.errors import AssetError, InputError, QuantgateError
from quantgate.files import path_problem, read_plain_text
from quantgate.judge import Tolerances, coverage, gate_level, load_tolerances
from quantgate.locks import BusyError, locked
from quantgate.machine.environment import Environment, machine
from quantgate.machine.quota import cores as quota
from quantgate.machine.quota import usable_cores
from quantgate.measure.groups import group_of
from quantgate.paths import cache_dir
from quantgate.plugin.case import Rules
from quantgate.records import Metric, Scalar, Verdict
from quantgate.report.progress import Progress
from quantgate.run.against import Against
from quantgate.run.bench import Bench
from quantgate.run.demand import lengths_of, needs_of
from quantgate.run.foresee import foreseen
from quantgate.run.gates import check_tolerances, most_gates
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need, make_plan
from quantgate.run.runner import Runner, Settings
from quantgate.supply.environments import environment_of, parse
from quantgate.supply.supply import Supply

PAIRS = 6
"""Even, so that each side goes first equally often. By simulation of both stages (`quantgate.judge.confirm`,
tolerance 2.5 %),
6 pairs find 5 % fewer tokens/s with 95 % power where the ratios of pairs have a standard deviation of 3 % and there is
one gate, or of 2 % and there are a hundred."""

PARTNERS = {"reason": "update_baselines", "accept_regressions": "update_baselines", "pairs": "against"}
"""Options that do nothing without another one."""


class State:
    """What one pytest run knows. Files are read when the first case is collected, not before."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.option = config.option
        self.begin = time.monotonic()
        self.needs: list[Need] = []
        self.skipped: dict[str, str] = {}
        self.verdicts: list[Verdict] = []
        self.cases: dict[str, list[Verdict]] = {}
        """The verdicts by case (its node id)."""
        self.environments: dict[str, dict[str, Scalar]] = {}
        """By cell, what it was measured in."""
        self.updates: list[Update | QuantgateError] = []
        self.case_seconds = 0.0
        self.foreign_failures = 0
        self.exit_status: int | None = None
        """What the process ends with; None until the run has ended."""
        self.digests: dict[str, dict[str, str]] = {}
        """Of each cell's baseline files as they were when this run first read them."""
        self.matrix: Matrix = load_matrix(self.option.matrix)
        self.tier = self.matrix.tier(self.option.tier)
        self.cells = {c.id: c for c in self.matrix.cells(self.option.tier)}
        self.root = config.rootpath
        self.threads = self.option.threads or usable_cores(quota())
        self.baselines = self.option.baselines or self.root / "baselines"
        self.results = (self.option.results or self.root / ".quantgate").resolve()
        self.progress_file = _own_stdout(config)
        self.supply = self._supply()
        self._runner: Runner | Against | None = None
        self.against: Environment | None = None
        """The other environment of an A/B run; from `open_against` on."""
        self.progress: Progress | None = None
        self._notices = _Notices(self._say if not is_worker(config) else _to_stderr())
        logging.getLogger("quantgate").addHandler(self._notices)
        self.claimed = False
        """Whether the folder of results is this run's."""
        self._claimed = ExitStack()

    def close(self) -> None:
        """End what runs, and give back what is open."""
        if self._runner is not None:
            self._runner.close()
        if self.progress is not None:
            self.progress.close()
        if self.claimed:
            self._bound_cache()
        self._claimed.close()
        logging.getLogger("quantgate").removeHandler(self._notices)
        self.progress_file.close()

    def _bound_cache(self) -> None:
        began = time.time() - (time.monotonic() - self.begin)
        if removed := bound(began):
            size = sum(thing.bytes for thing in removed) / 1e9
            self._say(
                f"removed from the cache: {len(removed)} things not used for a day or more, {size:.1f} GB"
            )

    def claim_results(self) -> None:
        """Keep other runs out of the folder of results until `close`. Raises InputError where another one uses it, or
        nothing can be written there."""
        sweep(cache_dir())
        lock = self.results / ".lock"
        self.claimed = True
        try:
            self._claimed.enter_context(locked(lock, f"write to {self.results}", patience=1.0))
        except BusyError as error:
            raise InputError(
                f"{self.results}: {error} writes its measurements there: wait for it, or name another folder with "
                "--results"
            ) from None
        except OSError as error:
            raise InputError(
                f"{error.filename or lock}: {error.strerror}; name a folder that can be written with --results"
            ) from None

    @property
    def command(self) -> str:
        """How the command that repeats a case begins."""
        return shlex.join(["pytest", "--tier", self.option.tier, *self.inputs, *self.circumstances])

    @property
    def inputs(self) -> list[str]:
        """The options that name the user's own input."""
        option = self.option
        return _words({"--matrix": option.matrix, "--tolerances": option.tolerances, "--text": option.text})

    @property
    def circumstances(self) -> list[str]:
        """The other options that bear on what is measured and judged."""
        option = self.option
        return _words(
            {
                "--threads": option.threads,
                "--baselines": option.baselines,
                "--machine": option.machine,
                "--against": option.against,
                "--pairs": option.pairs,
            }
        )

    def check(self) -> None:
        """Refuse options that do not fit together. Raises InputError."""
        if self.option.update_baselines and not self.option.reason.strip():
            raise InputError('--update-baselines needs --reason "why the values change"')
        for name, partner in PARTNERS.items():
            if getattr(self.option, name) and not getattr(self.option, partner):
                one, other = (f"--{word.replace('_', '-')}" for word in (name, partner))
                raise InputError(f"{one} does nothing without {other}: add that, or leave it out")
        if self.option.text is not None:
            if not self.option.text.is_file():
                raise InputError(f"--text {self.option.text}: no such file")
            read_plain_text(self.option.text)
        if self.option.threads is not None and self.option.threads < 1:
            raise InputError(f"--threads {self.option.threads}: must be 1 or more")
        for name in ("results", "baselines", "report"):
            folder: Path | None = getattr(self.option, name)
            if folder is not None and folder.exists() and not folder.is_dir():
                raise InputError(f"--{name} {folder}: is a file, not a folder; name another")
        compared = [g for g, o in self.tier.group_options.items() if len(group_of(g).needs(o).texts) > 1]
        if self.option.text is not None and compared:
            raise InputError(
                f"--text does not go with tier {self.option.tier}, which compares texts ({compared[0]}): leave it out"
            )
        self._check_min_judged()
        self._check_against()
        paths = [
            getattr(self.option, name) for name in ("matrix", "tolerances", "text", "baselines", "report")
        ]
        for path in (cache_dir(), self.results, self.root, *filter(None, paths)):
            if problem := path_problem(path):
                raise InputError(problem)
        limit_bytes()
        _ = self.tolerances
        self.supply.check()
        if self.option.machine:
            check_machine(
                self.baselines, self.option.machine, self.fingerprint, create=self.option.update_baselines
            )

    def _check_min_judged(self) -> None:
        share = self.option.min_judged
        if share is None:
            return
        if not 0 <= share <= 1:
            raise InputError(f"--min-judged {share:g}: must be between 0 and 1 (0.9 is nine gates of ten)")
        if self.option.update_baselines:
            raise InputError(
                "--min-judged does not go with --update-baselines, which judges nothing that is new: leave one out"
            )

    @property
    def lacks_judged(self) -> bool:
        """Whether fewer gates were judged than `--min-judged` asks for."""
        if self.option.min_judged is None:
            return False
        seen = coverage(self.verdicts)
        share = 0.0 if self.skipped and not seen.gates else seen.share
        least: float = self.option.min_judged
        return share < least

    def check_fit(self) -> None:
        """Refuse a matrix that does not go with the checkpoints of the selected cells, of those that are here. Raises
        InputError. What is wrong with a checkpoint itself is said by its cells."""
        for cell in {need.cell.id: need.cell for need in self.needs}.values():
            with suppress(AssetError):
                self.supply.check_fit(cell, local=True)

    def _check_against(self) -> None:
        if self.option.against is None:
            return
        others = ("update_baselines", "machine", "require_baselines", "reuse")
        if taken := [f"--{name.replace('_', '-')}" for name in others if getattr(self.option, name)]:
            raise InputError(
                f"--against does not go with {taken[0]}: an A/B run measures both environments now and leaves "
                "baselines alone"
            )
        if self.pairs < 2:
            raise InputError(f"--pairs {self.pairs}: must be 2 or more; one pair says nothing of noise")
        parse(self.option.against)

    @property
    def pairs(self) -> int:
        """Of processes, in an A/B run."""
        return PAIRS if self.option.pairs is None else int(self.option.pairs)

    def open_against(self) -> None:
        """Find or build the environment that `--against` names. Raises InputError."""
        if self.option.against is not None and self.needs:
            self.against = environment_of(parse(self.option.against), self._say)

    def foresee(self) -> None:
        """Say before an update what its samples will be too few for. Raises InputError for gates that would be void."""
        if not self.option.update_baselines:
            return
        void, narrow = foreseen(self.needs, self.cells.values(), self.tier, self.tolerances)
        if void:
            lines = [f"{text}; as it is, this gate never turns red" for text in void]
            raise InputError("\n".join([f"tier {self.option.tier}: samples are too small", *lines]))
        for text in narrow:
            self._say(f"note: {text}")

    def _say(self, text: str) -> None:
        self._fresh_line()
        self.progress_file.write(f"{text}\n")
        self.progress_file.flush()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of this machine, with the threads that are used."""
        return {**machine(), "threads": self.threads}

    def reason_to_skip(self, cell: Cell) -> str:
        """Why this machine leaves the cell out; empty when it does not."""
        return missing_hardware(cell) or self.supply.refused(cell.model)

    @property
    def runner(self) -> Runner | Against:
        if self._runner is None:
            plan = make_plan(self.needs, self.cells, references=self.against is None)
            self.progress = Progress(self.progress_file, len(plan.cells), fresh_line=self._fresh_line)
            settings = Settings(
                tier_name=self.option.tier,
                threads=self.threads,
                results=self.results,
                reuse=self.option.reuse,
                run=_run_name(self.config),
            )
            if self.against is None:
                self._runner = Runner(self.matrix, self.tier, settings, plan, self.supply, self.progress)
                self._settle(self._runner, plan.cells)
            else:
                place = "in the environment that is compared against: "
                old = replace(settings, worker=self.against.worker, place=place)
                self._runner = Against(
                    self.tier,
                    plan,
                    {
                        "old": Bench(self.matrix, self.tier, old, self._supply(self.against)),
                        "new": Bench(self.matrix, self.tier, settings, self.supply),
                    },
                    self.progress,
                    self.pairs,
                    settings.run,
                )
        return self._runner

    def _settle(self, runner: Runner, cells: Iterable[str]) -> None:
        """What the tier leaves open is as in the cells' baselines."""
        runner.settle(self.baseline_metrics(cells))

    def _supply(self, environment: Environment | None = None) -> Supply:
        logs = self.results / "logs" / ("against" if environment else "")
        options = self.tier.group_options
        return Supply(
            self.matrix,
            self.tier,
            self.threads,
            logs,
            self._event,
            self.option.text,
            needs_of(options),
            lengths_of(options),
            environment,
        )

    @property
    def bits(self) -> dict[str, float]:
        """Nominal bits by cell."""
        return {cell.id: cell.bits for cell in self.cells.values()}

    @cached_property
    def tolerances(self) -> Tolerances:
        path = self.option.tolerances or TOLERANCES
        found = load_tolerances(path)
        check_tolerances(path, found, self.matrix)
        return found.for_tier(self.option.tier, self.matrix.roundings())

    @cached_property
    def rules(self) -> Rules:
        known = {
            cell: {name: m for name, m in metrics.items() if any(n.covers(name) for n in self.needs_of(cell))}
            for cell, metrics in self.baseline_metrics(n.cell.id for n in self.needs).items()
        }
        return Rules(
            baselines=self.baselines,
            tier=self.option.tier,
            tolerances=self.tolerances,
            alpha=self._level_against() if self.option.against else gate_level(self.tolerances, known),
            machine=self.option.machine,
            require_baselines=self.option.require_baselines,
            updating=self.option.update_baselines,
            against=self.option.against is not None,
            command=self.command,
        )

    def _level_against(self) -> float:
        """The level of one gate where no baseline says how many there are: by the most that a case can have."""
        gates = sum(most_gates(need, self.tier.group_options, self.tolerances) for need in self.needs)
        return self.tolerances.run_alpha / max(1, gates)

    def needs_of(self, cell: str) -> list[Need]:
        """What the collected cases need of one cell."""
        return [n for n in self.needs if n.cell.id == cell]

    def baseline_metrics(self, cells: Iterable[str]) -> dict[str, dict[str, Metric]]:
        """Of each cell that has a baseline which can be read; the cases of the others say why not."""
        found = {}
        for cell in dict.fromkeys(cells):
            with suppress(QuantgateError):
                one = read_baseline(self.baselines, cell, self.option.tier, self.option.machine)
                self.digests.setdefault(cell, one.digests if one else {})
                if one:
                    found[cell] = one.metrics
        return found

    def _fresh_line(self) -> None:
        """End the line that pytest has begun (`suite/test_memory.py ..`)."""
        find = self.config.pluginmanager.get_plugin
        reporter, capture = find("terminalreporter"), find("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.flush()

    def _event(self, phase: str, done: float, total: float) -> None:
        if self.progress is not None:
            self.progress.event(self.runner.current, phase, done, total)


def _words(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line, without those that were not given.

    With `=`: pytest looks for its rootdir before it knows our options, and takes a path that stands alone for a
    folder of tests.
    """
    return [f"{name}={value}" for name, value in options.items() if value is not None]


def is_worker(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist, which hands its reports to another."""
    return hasattr(config, "workerinput")


def _run_name(config: pytest.Config) -> str:
    """Of this run; the processes of pytest-xdist share theirs, so that each cell is measured by one of them."""
    shared = getattr(config, "workerinput", {}).get("testrunuid")
    return shared or uuid.uuid4().hex


class _Notices(logging.Handler):
    """Shows warnings as they come: who holds a lock, what of the cache is made anew."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


def _to_stderr() -> Callable[[str], None]:
    """Writes to standard error, which pytest does not capture before it has begun."""
    descriptor = os.dup(2)

    def say(text: str) -> None:
        os.write(descriptor, f"{text}\n".encode(errors="backslashreplace"))

    return say


def _own_stdout(config: pytest.Config) -> Any:
    """A duplicate of standard output that pytest does not capture; nowhere in a process of pytest-xdist."""
    if is_worker(config):
        return Path(os.devnull).open("w")
    return os.fdopen(os.dup(1), "w", errors="backslashreplace")
