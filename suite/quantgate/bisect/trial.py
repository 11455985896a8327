"""One question to the judge: is a metric of a cell, measured in one environment, what it is in the good one?"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from quantgate.backends.spec import unused
from quantgate.bisect.search import Answer
from quantgate.config.matrix import Cell, Matrix, Tier
from quantgate.config.sentences import nearest
from quantgate.config.tolerances import REPRODUCTION, Tolerances
from quantgate.errors import InputError, MeasurementError
from quantgate.files import write_atomic
from quantgate.judge.anchor import measured_name
from quantgate.judge.compare import Comparison, Rules, origin
from quantgate.machine.environment import Environment
from quantgate.measure.groups import case_of, group_name, metric_groups, reading_reference
from quantgate.plugin.case import judge_case
from quantgate.processes.progress import OnProgress, ignore_progress
from quantgate.records import AGREEMENT, MOVED, Measurement, Record, Status, Verdict
from quantgate.report.progress import Progress
from quantgate.run.against import AgainstRun, Side
from quantgate.run.bench import Bench
from quantgate.run.cell import make_supply
from quantgate.run.gates import gates_of
from quantgate.run.inputs import lacking_capabilities
from quantgate.run.local import reusable
from quantgate.run.measurer import Measurer, check_measured
from quantgate.run.plan import Need, make_plan, repeated
from quantgate.words import shortened

LEVELS = 3
"""Times that a sample is taken before the answer stays `inconclusive`: each is `GROWTH` times the one before."""
GROWTH = 4
"""Halves the interval."""
SAMPLES = ("windows", "items")
"""Options of metric groups that say how large a sample is; of timings and memory peaks it is the number of pairs."""
LOOKS = 32
"""Verdicts that share the chance of a false alarm of one run: more than a search asks for."""
TARGETS = (*MOVED, Status.IMPROVEMENT, Status.NOT_COMPARABLE)
"""What the bad end may be. Every environment that is the same is bad."""


@dataclass(frozen=True)
class Question:
    """What is asked of every environment, in one way. Raises InputError for what cannot be asked."""

    matrix: Matrix
    tier_name: str
    cell: Cell
    metric: str
    tolerances: Tolerances
    threads: int
    text: Path | None
    pairs: int

    @property
    def need(self) -> Need:
        """The case that judges the metric."""
        return Need(self.cell, case_of(self.metric.removesuffix(REPRODUCTION)))

    @property
    def rules(self) -> Rules:
        alpha = self.tolerances.run_alpha / LOOKS
        shares = {self.cell.id: self.cell.minimum_share}
        return Rules(
            self.tolerances, alpha, against=True, timings=True, minimum_shares=shares, unused=unused()
        )

    @property
    def nested(self) -> bool:
        """Whether the metric varies between processes, so that both sides are measured in turns."""
        return bool(repeated([self.need.request], self.matrix.tier(self.tier_name).group_options))

    def tier(self, level: int) -> Tier:
        """Return the tier with the metric's group alone, and at each level a sample `GROWTH` times as large."""
        tier, group = self.matrix.tier(self.tier_name), group_name(self.need.request)
        options = tier.group_options[group]
        if not self.nested:
            options = grown(options, GROWTH**level)
        return tier.model_copy(update={"group_options": {group: options}})

    def can_grow(self) -> bool:
        """Whether a larger sample can be taken."""
        return self.nested or self.tier(1) != self.tier(0)

    def answer_of(self, judged: Sequence[Verdict]) -> Verdict | None:
        """Return the verdict on the metric; of a reproduction that is not judged, why its metric is not."""
        by_metric = {verdict.metric: verdict for verdict in judged}
        for name in (self.metric.removesuffix(REPRODUCTION), self.need.request):
            if name in by_metric and by_metric[name].status in (Status.ERROR, Status.NOT_COMPARABLE):
                by_metric.setdefault(self.metric, by_metric[name])
        return by_metric.get(self.metric)

    @contextmanager
    def bench(
        self,
        environment: Environment,
        results: Path,
        level: int = 0,
        *,
        say: OnProgress = ignore_progress,
        run_id: str = "",
        words: str = "",
    ) -> Iterator[Bench]:
        """Give what measures in an environment at a level. words: begin its errors."""
        tier = self.tier(level)
        supply = make_supply(self.matrix, tier, self.threads, results / "logs", say, self.text, environment)
        bench = Bench(
            self.matrix, tier, self.tier_name, supply, self.threads, results, run_id,
            worker=environment.worker, place=words,
        )  # fmt: skip
        with closing(supply), closing(bench):
            yield bench

    def work(self, results: Path) -> str:
        """Return a hash of what is measured: the content of the weights, the texts and the tasks, whatever their
        paths; libraries as they are here."""
        with self.bench(Environment(), results) as bench:
            return bench.fingerprint(self.cell)

    def check(self) -> None:
        """Refuse a cell and a metric that cannot be judged in an A/B run. Raises InputError."""
        tier, cell = self.matrix.tier(self.tier_name), self.cell
        group = group_name(self.metric)
        where = f"tier {self.tier_name} of {self.matrix.path}"
        if group not in tier.group_options:
            there = ", ".join(sorted(tier.group_options))
            reason = "no metric of this name" if group not in metric_groups() else f"no {group}"
            raise InputError(f"--metric {self.metric}: {where} measures {reason}; it has {there}")
        alone = origin(measured_name(self.metric))
        if self.metric == AGREEMENT or alone != self.metric:
            raise InputError(
                f"--metric {self.metric}: is relative to another cell of the same run or to an anchor, while here each "
                f"environment is held against the good one: name {alone}"
            )
        if lacks := lacking_capabilities(cell, group):
            raise InputError(
                f"--metric {self.metric}: {cell.backend} lacks the capability {' and '.join(lacks)}"
            )
        names = gates_of(self.matrix, self.tier_name)[cell.id]
        if self.metric not in names:
            its = [name for name in names if group_name(name) == group]
            close = nearest(self.metric, its)
            hint = (
                f"did you mean {close!r}?"
                if close
                else f"of {group} it has {shortened(its, 12) or 'nothing'}"
            )
            raise InputError(f"--metric {self.metric}: {where} does not measure it of {cell.id}; {hint}")
        if self.tolerances.of(self.metric, cell.id, against=True) is None and not self.rules.limits(
            self.metric, cell.id
        ):
            raise InputError(
                f"--metric {self.metric}: has no tolerance for {cell.id}, so nothing says which change is too much: "
                "name a metric that is gated"
            )


def grown(options: Record, factor: int) -> Record:
    """Return a group's options for a sample that is `factor` times as large; the same where none of `SAMPLES` is among
    them."""
    if factor == 1:
        return options
    more = {
        key: getattr(options, key) * factor for key in SAMPLES if isinstance(getattr(options, key, None), int)
    }
    each = getattr(options, "items_of", None)
    if isinstance(each, Mapping) and each:
        more["items_of"] = {name: count * factor for name, count in each.items()}
    return options.model_copy(update=more)


class Reply(Record):
    """An answer with its reason; verdict: on the metric, where there is one."""

    answer: Answer
    text: str
    verdict: Verdict | None = None


def status_of(verdict: Verdict) -> Status:
    """Return the status; of a value that is wrong whatever the good end is, that of a regression."""
    return Status.REGRESSION if verdict.wrong else verdict.status


def answered(verdict: Verdict, target: Status) -> Reply:
    """Return what a verdict says of an environment. target: the status of the bad end; every other environment with
    that status is bad, and one that passes is good."""
    status, reason = status_of(verdict), verdict.text.partition("\n")[0]
    if status == target:
        answer = Answer.BAD
    elif status == Status.INCONCLUSIVE:
        answer = Answer.INCONCLUSIVE
    elif status in (Status.PASS, Status.IMPROVEMENT):
        answer = Answer.GOOD
    elif status in MOVED and target == Status.IMPROVEMENT:
        answer = Answer.GOOD  # not the change that is looked for
    else:
        answer, reason = Answer.BROKEN, f"{verdict.status}: {reason}"
    return Reply(answer=answer, text=reason, verdict=verdict)


@dataclass(eq=False)
class Trial:
    """Measures environments and holds each against the good one. Its records stay in `results`, so that the good one is
    measured once for each size of sample (timings apart, which are taken on both sides in turns)."""

    question: Question
    good: Environment
    results: Path
    progress: Progress

    def verdict(self, environment: Environment, place: str, level: int) -> Verdict:
        """Return the judge's verdict on the metric. place: the environment's folder below the results. Raises
        MeasurementError where the good environment cannot be measured, InputError where the metric is not judged."""
        question, cell = self.question, self.question.cell
        bench = partial(question.bench, level=level, say=self.progress.preparation, run_id=uuid.uuid4().hex)
        folders = [self.results / name / str(level) for name in ("good", place)]
        with (
            bench(self.good, folders[0], words="in the good environment: ") as old,
            bench(environment, folders[1]) as new,
        ):
            benches: dict[Side, Bench] = {"old": old, "new": new}
            measurer: Measurer
            if question.nested:
                plan = make_plan([question.need], {cell.id: cell}, references=False)
                measurer = AgainstRun(plan, benches, self.progress, question.pairs * 2**level)
            else:
                measurer = OnceEach(benches, self.progress)
                measurer.old(cell, question.need.request)
            judged = judge_case(question.need, measurer, question.rules).verdicts
        if verdict := question.answer_of(judged):
            return verdict
        names = ", ".join(v.metric for v in judged)
        raise InputError(f"--metric {question.metric}: is not measured of {cell.id}; there are {names}")


@dataclass(eq=False)
class OnceEach:
    """Measures each side once, for a metric that repeats to the last digit in one environment; a record that was left
    by an interrupted search is taken again. A `Measurer`."""

    benches: Mapping[Side, Bench]
    progress: Progress

    def old(self, cell: Cell, request: str) -> Measurement:
        """Return the good side's record. Raises MeasurementError."""
        return self._record("old", cell, request)

    def compare(self, cell: Cell, request: str) -> Comparison:
        """Return both sides' records."""
        old = self._record("old", cell, request)
        self.benches["new"].settle(cell.id, old.metrics)  # it takes the options that the good side settled
        return Comparison(self._record("new", cell, request), old)

    def reference(self, cell: Cell) -> None:
        """Return None: the cell is held against itself."""

    def finished(self) -> Mapping[str, Measurement]:
        """Return nothing: one cell is measured."""
        return {}

    def measurement(self, cell: Cell) -> NoReturn:
        """Raise: there is no plan."""
        raise NotImplementedError

    def again(self, cell: Cell, request: str) -> NoReturn:
        """Raise: what does not vary needs no second look."""
        raise NotImplementedError

    def _record(self, side: Side, cell: Cell, request: str) -> Measurement:
        bench = self.benches[side]
        if (kept := reusable(bench, cell, [request], reuse=True)) is not None:
            return kept
        if reasons := bench.missing(cell, [request]):
            raise MeasurementError(reasons[request])
        if bench.lacks_reference(cell, [request]):
            bench.run(bench.reference(cell), reading_reference([request]), "logprobs")
        with self.progress.measuring(cell.id, [group_name(request)]):
            record = bench.run(cell, [request], on_progress=self.progress.of_process(cell.id, 0, 1))
        check_measured(record, request)
        write_atomic(bench.file(cell), record.model_dump_json(indent=1).encode())
        return record
