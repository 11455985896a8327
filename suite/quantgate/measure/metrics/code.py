"""Programs that the model writes, run against their tests: the share that passes (pass@1 of Chen et al. 2021, arXiv
2107.03374, with one greedy answer), on HumanEval and MBPP.

A tier must name this group and the user must allow it, since it runs what a model wrote: each program runs in
`quantgate.measure.sandbox` or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import Field

from quantgate.backends.base import Generates, Stops
from quantgate.errors import MeasurementError
from quantgate.items import Program, Programs
from quantgate.jobs import Needs
from quantgate.measure.groups import Group, paired
from quantgate.measure.options import Names
from quantgate.measure.sandbox import run_program
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record, Scalar

ALLOW = "QUANTGATE_EXECUTE_CODE"


class Options(Record):
    """tasks: humaneval, mbpp. items: how many of each, the first ones. tokens: an answer has at most so many.
    seconds: processor time that a program may take."""

    tasks: Names
    items: int = Field(default=16, ge=2)
    tokens: int = Field(default=128, ge=1)
    seconds: int = Field(default=5, ge=1)


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `code/<task>/pass_at_1`, samples 0 or 1. Raises MeasurementError where the user has not allowed it, or the
    sandbox cannot be set up."""
    if os.environ.get(ALLOW) != "1":
        raise MeasurementError(f"this runs programs that the model wrote: set {ALLOW}=1 to allow it")
    options = session.options("code", Options)
    if run_program("pass") != "passed":
        raise MeasurementError("Python does not start in the sandbox: no program was run")
    metrics = {}
    for name, progress in session.each(options.tasks, parts):
        programs = session.programs(name)
        answers, outcomes = [], []
        for done, item in enumerate(programs.items):
            progress(done, len(programs.items))
            answers.append(answer(session, programs, item, options.tokens))
            outcomes.append(run_program(assembled(item, answers[-1]), options.seconds))
        conditions: dict[str, Scalar] = {
            "source": session.source_hash,
            "task": programs.name,
            "task version": programs.version,
            "items": len(programs.items),
            "data": programs.data_hash,
            "tokens": programs.token_hash,
            "length": options.tokens,
            "seconds": options.seconds,
        }
        metrics[f"code/{name}/pass_at_1"] = paired(
            [float(outcome == "passed") for outcome in outcomes],
            conditions,
            unit="fraction",
            better="higher",
            answers=True,
            raw={"outcomes": outcomes, "answers": answers},
        )
    return metrics


def answer(session: Session, programs: Programs, item: Program, limit: int) -> str:
    """Return what the model writes after the prompt, greedily, up to the first of the task's stops."""
    backend, tokenizer = session.backend, session.detokenizer
    assert isinstance(backend, Generates)
    before = len(tokenizer.decode(item.prompt, skip_special_tokens=False))

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode([*item.prompt, *ids], skip_special_tokens=False)[before:])

    stops = Stops(frozenset(programs.ends), tuple(programs.stops), decode)
    ids = backend.generate(item.prompt, limit, stops)
    text = decode(ids[:-1] if ids and ids[-1] in programs.ends else ids)
    return text[: min((text.find(stop) for stop in programs.stops if stop in text), default=len(text))]


def assembled(item: Program, written: str) -> str:
    """Return the program with its tests, as the harness puts them together."""
    return f"{item.begin}{written}\n{item.test}"


GROUP = Group(
    options=Options,
    metrics={"code/{tasks}/pass_at_1": Declared("paired", share=True)},
    measure=measure,
    family="code",
    has_parts=True,
    capabilities=frozenset({"generates"}),
    needs=lambda options: Needs(programs=dict.fromkeys(options.tasks, options.items)),
)
