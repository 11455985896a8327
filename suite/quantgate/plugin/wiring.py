"""What one run works with, built once from its options: matrix, tolerances, supply, measurer, rules."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from quantgate.backends.spec import backends, unused
from quantgate.baselines.store import StoredBaselines, check_machine
from quantgate.cache.prune import bound, limit_bytes, sweep
from quantgate.config.matrix import Cell, Matrix
from quantgate.config.resources import lacking
from quantgate.config.tolerances import TOLERANCES, load_tolerances
from quantgate.errors import AssetError, InputError
from quantgate.files import path_problem, writable
from quantgate.jobs import Spent
from quantgate.judge.compare import Rules
from quantgate.judge.sensitivity import gate_level
from quantgate.locks import BusyError, locked
from quantgate.machine.environment import Environment, cuda_devices, machine
from quantgate.machine.quota import cores as quota
from quantgate.machine.quota import usable_cores
from quantgate.measure.groups import group_of
from quantgate.paths import cache_dir, lacks_home
from quantgate.plugin.entry import MATRIX_FILE
from quantgate.plugin.options import Options
from quantgate.plugin.screen import Screen
from quantgate.plugin.start import Start
from quantgate.report.progress import Progress
from quantgate.run.against import AgainstRun
from quantgate.run.bench import Bench
from quantgate.run.cell import here, make_supply
from quantgate.run.gates import check_tolerances, foreseen, most_gates, possible
from quantgate.run.inputs import load_matrix
from quantgate.run.local import LocalCells
from quantgate.run.measurer import Cells, Measurer
from quantgate.run.plan import Need, Plan, make_plan
from quantgate.run.stored import StoredRun
from quantgate.supply.environments import environment_of, parse
from quantgate.supply.supply import Supply

if TYPE_CHECKING:
    from quantgate.run.cluster.machines import Machines

WIRING = pytest.StashKey["Wiring"]()


class Wiring:
    """What one run works with. Reads the matrix and the tolerances at once; `select` says what is measured, and
    `measurer` and `rules` are made when the first case asks for them."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.options = options
        self.begin = time.monotonic()
        self.start = Start()
        file = config.stash.get(MATRIX_FILE, None)
        self.root = file.parent if file else config.rootpath
        self.matrix: Matrix = load_matrix(options.matrix or file)
        self.tier = self.matrix.tier(options.tier)
        self.cells = {c.id: c for c in self.matrix.cells(options.tier)}
        self.threads = options.threads or usable_cores(quota())
        self.baselines = options.baselines or self.root / "baselines"
        self.stored = StoredBaselines(self.baselines, options.tier, options.machine)
        self.results = (options.results or self.root / ".quantgate").resolve()
        tolerances = load_tolerances(path := options.tolerances or TOLERANCES)
        check_tolerances(path, tolerances, self.matrix)
        self.tolerances = tolerances.for_tier(options.tier, self.matrix.roundings())
        self.needs: dict[str, list[Need]] = {}
        """By cell id, what the collected cases need."""
        self.skipped: dict[str, str] = {}
        """By cell id, why this machine leaves it out."""
        self.without: dict[tuple[str, str], str] = {}
        """By cell id and metric group, what the cell's backend cannot do, so that there are no cases."""
        self.with_cases: set[str] = set()
        """Metric groups of the tier that a collected test function asks for, whatever -k and -m leave of its cases."""
        self.spent: list[Spent] = []
        """The wall time of each measuring process, in their order."""
        self.against: Environment | None = None
        """The other environment of an A/B run; from `open_environments` on."""
        # The processes of pytest-xdist share a name, so that each cell is measured by one of them.
        self.run = getattr(config, "workerinput", {}).get("testrunuid") or uuid.uuid4().hex
        self.screen = Screen(config)
        self.progress = Progress(self.screen.file, len(self.cells), fresh_line=self.screen.fresh_line)
        self._open = ExitStack()
        self._open.callback(self.screen.close)
        self._open.callback(self.progress.close)
        self.supply = self._supply()
        self.machines: Machines | None = None
        """The nodes of a cluster that measure in place of this machine."""
        self.claimed = False
        """Whether the folder of results is this run's."""

    def close(self) -> None:
        """End what runs, bound the cache, and give back what is open."""
        self._open.close()

    def check(self) -> None:
        """Refuse input that does not fit together. Raises InputError."""
        options = self.options
        comparing = [g for g, o in self.tier.group_options.items() if len(group_of(g).needs(o).texts) > 1]
        if options.text is not None and comparing:
            raise InputError(
                f"{options.flag('text')} cannot be combined with tier {options.tier}, which compares several texts "
                f"({comparing[0]}): remove it"
            )
        for path in (cache_dir(), self.results, self.root):
            if problem := path_problem(path):
                raise InputError(problem)
        limit_bytes()
        self.supply.check()
        if options.executor is not None:
            from quantgate.run.cluster.machines import Machines  # of all runs, this one alone needs Ray

            self.machines = Machines(options.address, self.threads)
            self._open.callback(self.machines.close)
        if options.machine is not None:
            check_machine(self.baselines, options.machine, self.fingerprint, create=options.update_baselines)

    def check_fit(self) -> None:
        """Refuse a matrix that does not go with the checkpoints on this machine of the selected cells. Raises
        InputError. What is wrong with a checkpoint itself, its cells say."""
        for cell in self.needs:
            with suppress(AssetError, OSError):
                self.supply.check_fit(self.cells[cell], local=True)

    def claim_results(self) -> None:
        """Keep other runs out of the folder of results until `close`. Raises InputError where another one uses it, or
        nothing can be written there."""
        if lacks_home():
            raise InputError(
                "the cache would lie in your home folder, and this user has none: set QUANTGATE_CACHE"
            )
        sweep(cache_dir())
        lock = self.results / ".lock"
        self.claimed = True
        try:
            self._open.enter_context(locked(lock, f"write to {self.results}", patience=1.0))
            if self.options.results is None:  # so that it is not added to git by mistake
                (self.results / ".gitignore").write_text("*\n")
        except BusyError as error:
            remedy = "wait for it, or name another folder with --results=DIR"
            raise InputError(f"{self.results}: {error} writes its measurements there: {remedy}") from None
        except OSError as error:
            where = f"{error.filename or lock}: {error.strerror}"
            raise InputError(f"{where}; name a folder that can be written with --results=DIR") from None
        self._open.callback(self._bound_cache)

    def select(self, needs: Iterable[Need]) -> None:
        """Set what is measured: what the collected cases need, but for cells that this machine leaves out."""
        self.needs, selected = {}, set()
        for need in needs:
            selected.add(need.cell.id)
            if need.cell.id not in self.skipped:
                self.needs.setdefault(need.cell.id, []).append(need)
        self.skipped = {cell: why for cell, why in self.skipped.items() if cell in selected}

    def open_environments(self) -> None:
        """Find or build the environment that `--against` names, or compare the versions of a cluster's nodes. Raises
        InputError."""
        options, say = self.options, self.screen.say
        if options.against is not None and self.needs:
            self.against = environment_of(parse(options.against), say)
        if self.machines is not None and self.needs:
            self.machines.look(say, mixed=options.mixed_nodes, updating=options.update_baselines)

    def foresee(self) -> None:
        """Say before an update what its samples will be too few for. Raises InputError for gates that could never turn
        red, and for a folder that cannot be written."""
        if not self.options.update_baselines:
            return
        if not writable(self.baselines):
            remedy = f"name a folder that can be written with {self.options.flag('baselines')}=DIR"
            raise InputError(f"{self.baselines}: no baseline can be written there: {remedy}")
        void, narrow = foreseen(self._all_needs, self.cells.values(), self.tier, self.tolerances)
        if void:
            lines = [f"{text}; as it is, this gate can never fail" for text in void]
            raise InputError("\n".join([f"tier {self.options.tier}: samples are too small", *lines]))
        for text in narrow:
            self.screen.say(f"note: {text}")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells the machine that measures from others, with the threads that are used."""
        return {**(machine() if self.machines is None else self.machines.facts), "threads": self.threads}

    @property
    def bits(self) -> dict[str, float]:
        """Nominal bits by cell id."""
        return {cell.id: cell.bits for cell in self.cells.values()}

    def reason_to_skip(self, cell: Cell) -> str:
        """Return why this machine leaves the cell out; empty where it does not."""
        if self.machines is None and cell.scheme_options.get("device") == "cuda" and not cuda_devices():
            return "needs a CUDA device; this machine has none"
        lacks = self.machines.lacking(cell) if self.machines else lacking(cell.resources, [here()])
        return lacks or backends()[cell.backend].missing(cell.scheme_options) or self.supply.refused(cell)

    @cached_property
    def measurer(self) -> Measurer:
        """Measures what is selected."""
        plan = make_plan(
            self._all_needs,
            self.cells,
            references=self.against is None,
            groups=self.tier.group_options,
        )
        self.progress.total = len(plan.cells)
        bench = self._bench(self.supply)
        if self.against is None:
            return StoredRun(plan, self._cells(plan, bench), self.stored)
        place = "in the environment that is compared against: "
        other = self._bench(self._supply(self.against), worker=self.against.worker, place=place)
        return AgainstRun(plan, {"old": other, "new": bench}, self.progress, self.options.pair_count)

    def _cells(self, plan: Plan, bench: Bench) -> Cells:
        options = self.options
        if self.machines is None:
            return LocalCells(plan, bench, self.progress, self.stored, options.reuse)
        cells = self.machines.cells(
            plan, bench, self.progress, self.stored, options.text, reuse=options.reuse
        )
        self._open.callback(cells.close)
        return cells

    def _bench(self, supply: Supply, **environment: Any) -> Bench:
        bench = Bench(
            self.matrix, self.tier, self.options.tier, supply, self.threads, self.results, self.run,
            spent=self.spent, **environment,
        )  # fmt: skip
        self._open.callback(bench.close)
        return bench

    @cached_property
    def rules(self) -> Rules:
        """How what is selected is judged."""
        against = self.options.against is not None
        return Rules(
            tolerances=self.tolerances,
            alpha=self._level(),
            against=against,
            timings=against or self.options.machine is not None,
            unused=unused(),
            minimum_shares={cell.id: cell.minimum_share for cell in self.cells.values()},
        )

    def _level(self) -> float:
        """Return the level of one gate. As many share the run's as the baselines of the selected cases have; in an A/B
        run no baseline says how many there are, so it is the most that there can be."""
        if self.options.against is not None:
            metrics = possible(self.tier.group_options, relatives=False)
            gates = sum(most_gates(need, metrics, self.tolerances) for need in self._all_needs)
            return self.tolerances.run_alpha / max(1, gates)
        covered = {
            cell: {name: m for name, m in metrics.items() if any(n.covers(name) for n in self.needs[cell])}
            for cell, metrics in self.stored.metrics(self.needs).items()
        }
        return gate_level(self.tolerances, covered, self.stored.anchored(covered))

    @property
    def _all_needs(self) -> list[Need]:
        return [need for needs in self.needs.values() for need in needs]

    def _supply(self, environment: Environment | None = None) -> Supply:
        logs = self.results / "logs" / ("against" if environment else "")
        supply = make_supply(
            self.matrix, self.tier, self.threads, logs, self.progress.preparation, self.options.text,
            environment,
        )  # fmt: skip
        self._open.callback(supply.close)
        return supply

    def _bound_cache(self) -> None:
        if removed := bound(time.time() - (time.monotonic() - self.begin)):
            size = sum(thing.bytes for thing in removed) / 1e9
            self.screen.say(f"removed from the cache: {size:.1f} GB that no run has used for a day or more")
