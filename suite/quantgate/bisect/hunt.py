"""Answer the search: build environments, measure them, keep every reply, say what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from quantgate.bisect.ends import in_order, needs_here, split
from quantgate.bisect.outcome import difference_in_words, reply_in_words
from quantgate.bisect.search import Answer, Finding, Pins, changes_between, search
from quantgate.bisect.state import State, place
from quantgate.bisect.steps import Versions
from quantgate.bisect.trial import LEVELS, TARGETS, Question, Reply, Trial, answered, status_of
from quantgate.errors import MeasurementError, QuantgateError
from quantgate.machine.environment import Environment
from quantgate.records import Status
from quantgate.report.progress import Progress
from quantgate.supply.environments import examined, layer

CONFLICT = "The conflict is caused by:"
"""So pip begins the requirements that do not go together, each in a line of its own."""


@dataclass
class Hunt:
    """One search. here: what is installed, as requirements by package. progress: also takes what is said meanwhile."""

    question: Question
    good: Pins
    bad: Pins
    here: Mapping[str, str]
    state: State
    progress: Progress
    versions: Versions
    count: int = 0
    """Environments beside the two ends that the search has asked for; it asks for none twice."""
    skipped: list[str] = field(default_factory=list)
    """Those of them that could not be judged, each with what differs from the good end, and the reason."""
    _environments: dict[str, Environment] = field(default_factory=dict)

    def aim(self) -> Reply:
        """Judge the bad end. Its status is what the search looks for, if it is one of `TARGETS`. Raises
        MeasurementError where one of the ends cannot be built or measured."""
        reply = self._patient(self.bad, "bad end")
        if reply.answer == Answer.BROKEN:
            raise MeasurementError(f"the bad end cannot be judged: {reply.text}")
        return reply

    def run(self) -> Finding:
        """Search. `aim` comes first."""
        packages = [change.package for change in changes_between(self.good, self.bad)]
        order = in_order(packages, needs_here)
        return search(self.good, self.bad, self._judge, self.versions.steps, order)

    def reply(self, pins: Pins) -> Reply | None:
        """Return the reply with the largest sample about an environment; None: it was not asked for."""
        replies = [self.state.reply(pins, level) for level in range(LEVELS)]
        return next((r for r in reversed(replies) if r and r.answer != Answer.BROKEN), None)

    def python(self, pins: Pins) -> str:
        """Return the interpreter of an environment, built on top of what is here unless it is in the cache. Raises
        InputError."""
        needed, others = split(pins, changes_between(self.good, self.bad), self.here)
        return str(layer(needed, self.progress.note, others)) if needed else sys.executable

    def _judge(self, pins: Pins) -> Answer:
        self.count += 1
        new = difference_in_words(self.good, pins)
        self.progress.note(f"environment {self.count}: the good end with {new}")
        reply = self._patient(pins, "it")
        if reply.answer in (Answer.BROKEN, Answer.INCONCLUSIVE):
            self.skipped.append(f"{new}: {reply.answer}: {reply.text}")
        return reply.answer

    def _patient(self, pins: Pins, name: str) -> Reply:
        levels = LEVELS if self.question.can_grow() else 1
        return patient(lambda level: self._reply(pins, level, name), levels)

    def _reply(self, pins: Pins, level: int, name: str) -> Reply:
        """Return what the judge says, from the state where it has said so before."""
        kept = self.state.reply(pins, level)
        reply = kept or self._measured(pins, level)
        if kept is None:
            self.state.add(pins, level, reply)
        more = ", with a larger sample" if level else ""
        before = ", as judged before" if kept else ""
        self.progress.note(f"{name} is {reply_in_words(reply)}{more}{before}")
        return reply

    def _measured(self, pins: Pins, level: int) -> Reply:
        """Build and measure. Raises MeasurementError where the good end fails."""
        try:
            good = self._environment(self.good)
        except QuantgateError as error:
            raise MeasurementError(f"the good end cannot be built: {reason(error)}") from error
        try:
            environment = self._environment(pins)
        except QuantgateError as error:
            return Reply(answer=Answer.BROKEN, text=reason(error))
        trial = Trial(self.question, good, self.state.folder, self.progress)
        try:
            verdict = trial.verdict(environment, place(pins), level)
        except MeasurementError as error:
            if not level:
                raise
            return Reply(answer=Answer.BROKEN, text=f"no larger sample can be taken: {reason(error)}")
        target = self.state.target
        if target is None:  # this is the bad end
            target = status_of(verdict)
            if target not in TARGETS:
                target = Status.REGRESSION
            else:
                self.state.aim(target)
        return answered(verdict, target)

    def _environment(self, pins: Pins) -> Environment:
        """Return an environment with what is installed there. Raises InputError."""
        if place(pins) not in self._environments:
            self._environments[place(pins)] = examined(Path(self.python(pins)))
        return self._environments[place(pins)]


def patient(ask: Callable[[int], Reply], levels: int) -> Reply:
    """Return the reply with the smallest sample that is not `inconclusive`: that of level 0 first, of `levels` at most.
    A level that cannot be measured, as the text or the items end, leaves the reply before it."""
    reply = ask(0)
    for level in range(1, levels):
        if reply.answer != Answer.INCONCLUSIVE:
            break
        more = ask(level)
        if more.answer == Answer.BROKEN:
            break
        reply = more
    return reply


def reason(error: Exception) -> str:
    """Return an error in one line: of pip's output which requirements are in conflict, or the line that says what is
    wrong."""
    lines = str(error).splitlines() or [type(error).__name__]
    output = [line.removeprefix("    | ") for line in lines]
    if CONFLICT in output:
        its = takewhile(lambda line: line.startswith(" "), output[output.index(CONFLICT) + 1 :])
        return f"pip cannot install these versions together: {'; '.join(map(str.strip, its))}"
    errors = [line.partition("ERROR: ")[2] for line in output if "ERROR: " in line]
    return next(filter(str.strip, errors), lines[0])
