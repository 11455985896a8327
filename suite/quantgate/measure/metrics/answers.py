"""Questions answered in writing: tasks of lm-evaluation-harness of output type generate_until. Its prompts, the ends
that it names, its filters and its marks; the text is written greedily, one sequence in a batch (`Generates.generate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from quantgate.backends.base import Stops
from quantgate.errors import MeasurementError
from quantgate.files import hash_of
from quantgate.items import NLTK_DATA, RULES, Questions
from quantgate.jobs import Needs
from quantgate.measure.groups import Column, Group, paired
from quantgate.measure.options import OfTasks
from quantgate.measure.session import Session
from quantgate.measure.written import check_room, of_texts, write
from quantgate.records import Declared, Metric, Scalar

POOLED = "pooled"
"""Stands in a request for the items of all tasks together."""
JUDGED = ("solved", "format")


class Options(OfTasks):
    """tasks: names of lm-evaluation-harness tasks, or of fixtures/tasks. tokens: an answer has at most so many; None:
    as the task says."""

    chat: bool = True
    tokens: int | None = Field(default=None, ge=1)


def needs(options: Options) -> Needs:
    """Return the questions of each task."""
    return Needs(questions=dict.fromkeys(options.tasks, options.posed(options.items)))


def expected(options: Options) -> dict[str, Metric]:
    """Return the gated metrics with as many samples as they will have."""
    metrics = {
        f"answers/{task}/{kind}": _marks([1.0] * options.items, {"task": task, "items": options.items})
        for task in options.tasks
        for kind in JUDGED
    }
    return metrics | _pooled(options, metrics)


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return of each task `answers/<task>/solved`, the share of answers that one of the task's filters finds right,
    `format`, the share in which its strict filter finds an answer (`quantgate.supply.marks`), and `texts/length`,
    `texts/limit` and `texts/loops` (`of_texts`); and `answers/pooled/solved` and `format`, of the items of all tasks.

    A task that cannot be measured is noted (`Session.unmeasured`), and the others are measured.
    """
    options = session.options("answers", Options)
    every = POOLED in parts or not parts
    metrics: dict[str, Metric] = {}
    for name, progress in session.each(options.tasks, () if every else parts):
        try:
            metrics |= _of_task(session, options, name, progress)
        except MeasurementError as error:
            session.unmeasured[f"answers/{name}"] = str(error)
    lacking = [name for name in options.tasks if f"answers/{name}/solved" not in metrics]
    if every and lacking:
        session.unmeasured[f"answers/{POOLED}"] = session.unmeasured[f"answers/{lacking[0]}"]
    elif every:
        metrics |= _pooled(options, metrics)
    return metrics


def _of_task(
    session: Session, options: Options, name: str, progress: Callable[[float, float], None]
) -> dict[str, Metric]:
    questions = session.questions(name)
    limit = options.tokens or questions.limit
    otherwise = "set a lower fewshot, or leave the task out"
    what = f"task {questions.name!r}"
    check_room(session, "answers", questions.items, limit, what, otherwise)
    stops = _stops(session, questions)
    texts = write(session, questions.items, limit, stops, what, progress)
    answers = [answer_of(session, questions, text) for text in texts]
    from quantgate.supply.marks import mark  # and all of `supply` with it

    marks = mark(questions, answers, session.folder(NLTK_DATA), session.folder(f"{RULES}/{name}"))
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "task": questions.name,
        "task version": questions.version,
        "items": len(questions.items),
        "data": questions.data_hash,
        "tokens": questions.token_hash,
        "chat": questions.chat,
        "template": questions.template or None,
        "fewshot": questions.fewshot,
        "length": limit,
        **session.attention,
    }
    shares = {each: math.fsum(one) / len(one) for each, one in marks.by_filter.items()}
    return {
        **of_texts(f"answers/{name}/texts", texts, stops, limit, conditions),
        f"answers/{name}/format": _marks(marks.format, conditions),
        f"answers/{name}/solved": _marks(
            marks.solved, {**conditions, "metric": marks.metric}, raw={"by filter": shares}
        ),
    }


def _stops(session: Session, questions: Questions) -> Stops:
    """Return what ends an answer, tokens and texts; the one that did stands in it."""

    def decode(ids: Sequence[int]) -> str:
        return str(session.detokenizer.decode(list(ids), skip_special_tokens=False))

    return Stops(frozenset(questions.ends), tuple(questions.until), decode)


def answer_of(session: Session, questions: Questions, text: Sequence[int]) -> str:
    """Return a written text up to where the task says that it ends, as the harness cuts it: at its first `until`, what
    is left at the second, and so on."""
    answer = str(session.detokenizer.decode(list(text), skip_special_tokens=True))
    for until in questions.until:
        answer = answer.split(until)[0]
    return answer


def _marks(values: Sequence[float], conditions: dict[str, Scalar], **further: object) -> Metric:
    return paired(values, conditions, unit="fraction", better="higher", answers=True, **further)


def _pooled(options: Options, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the shares of the items of all tasks, each item counting the same."""
    pooled = {}
    for kind in JUDGED:
        tasks = [metrics[f"answers/{name}/{kind}"] for name in options.tasks]
        conditions: dict[str, Scalar] = {
            str(task.conditions["task"]): hash_of([task.conditions]) for task in tasks
        }
        samples = [value for task in tasks for value in task.samples or ()]
        pooled[f"answers/{POOLED}/{kind}"] = _marks(samples, conditions)
    return pooled


GROUP = Group(
    options=Options,
    metrics={
        "answers/{tasks}/texts": Declared(
            "paired"
        ),  # its reproduction: whether all tokens are the baseline's
        "answers/{tasks}/solved": Declared("paired", share=True),
        "answers/{tasks}/format": Declared("paired"),
        **{f"answers/{{tasks}}/texts/{name}": Declared("paired") for name in ("limit", "loops")},
        "answers/{tasks}/texts/length": Declared("paired", "exp"),
        f"answers/{POOLED}/solved": Declared("paired", share=True),
        f"answers/{POOLED}/format": Declared("paired"),
    },
    measure=measure,
    family="quality",
    order=21,  # what is imported here to mark answers is in no peak of another group
    relative=True,
    has_parts=True,
    capabilities=frozenset({"generates"}),
    needs=needs,
    expected=expected,
    columns=(Column("solved", "", 1, 4, 1, (f"answers/{POOLED}/solved",), ("answers/*",), percent=True),),
)
