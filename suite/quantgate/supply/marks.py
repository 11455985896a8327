"""Score written answers as lm-evaluation-harness does: by its filters and its `process_results`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantgate.errors import MeasurementError, in_one_line
from quantgate.items import Questions
from quantgate.supply.sources import task_file
from quantgate.supply.tasks import build_task, read_nltk_data

SCORES = ("f1", "bleu", "chrf", "ter", "rouge", "bleurt", "meteor", "bertscore")
"""Beginnings of the names of metrics that are no yes or no, even where all values are 0 or 1."""


@dataclass(frozen=True)
class Marks:
    """The harness's scores of answers.

    metric: the task's first that is 0 or 1. by_filter: by the name of each of the task's filters, that metric of each
    answer. solved: 1 where any filter finds the answer right. format: 1 where the strict filter finds an answer: what
    it does not read in an empty text, too. That is the filter with `strict` in its name, else the first.
    """

    metric: str
    by_filter: dict[str, list[float]]
    solved: list[float]
    format: list[float]


def mark(
    questions: Questions, answers: Sequence[str], nltk_data: Path | None = None, rules: Path | None = None
) -> Marks:
    """Return the marks of the answers to all questions.

    nltk_data: what the task's rules read with NLTK. rules: the folder of the task's file; None: the harness's, or the
    shipped one. Raises MeasurementError where a filter or the task's function fails, and for a task none of whose
    metrics says yes or no.
    """
    name = questions.name
    try:
        if nltk_data is not None:
            read_nltk_data(nltk_data)
        task = _task(questions, rules or task_file(name).parent)
        blank = _filtered(task, [""] * len(answers))
        filtered = _filtered(task, answers)
        values = {
            each: [
                task.process_results(one.doc, [read]) for one, read in zip(task.instances, reads, strict=True)
            ]
            for each, reads in filtered.items()
        }
    except Exception as error:
        raise MeasurementError(
            f"task {name!r}: lm-eval's filters and results fail on what the model wrote ({in_one_line(error)}): "
            "leave the task out, or mend it"
        ) from error
    metric = _yes_or_no(name, values)
    by_filter = {each: [float(one[metric]) for one in items] for each, items in values.items()}
    strict = next((each for each in filtered if "strict" in each), next(iter(filtered)))
    return Marks(
        metric=metric,
        by_filter=by_filter,
        solved=[max(marks) for marks in zip(*by_filter.values(), strict=True)],
        format=[float(a != b) for a, b in zip(filtered[strict], blank[strict], strict=True)],
    )


def _task(questions: Questions, folder: Path) -> Any:
    """Return the harness's task on the documents of the questions, which need no preparation any more."""
    import datasets

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(questions.documents)})

    def configure(config: dict[str, Any]) -> dict[str, Any]:
        unused = ("training_split", "validation_split", "fewshot_split", "fewshot_config", "process_docs")
        on_these = {"test_split": "test", "num_fewshot": 0, "custom_dataset": lambda **_: data}
        return config | dict.fromkeys(unused) | on_these

    task = build_task(questions.name, folder, configure)
    task.build_all_requests(rank=0, world_size=1)
    return task


def _filtered(task: Any, answers: Sequence[str]) -> dict[str, list[Any]]:
    """Return by the name of each filter what it makes of the answers."""
    for instance, answer in zip(task.instances, answers, strict=True):
        instance.resps, instance.filtered_resps = [answer], {}
    task.apply_filters()
    names = task.instances[0].filtered_resps
    return {name: [one.filtered_resps[name] for one in task.instances] for name in names}


def _yes_or_no(name: str, values: dict[str, list[dict[str, Any]]]) -> str:
    """Return the task's first metric that is 0 or 1 for every answer. Raises MeasurementError."""
    every = [one for items in values.values() for one in items]
    for metric in every[0]:
        if not metric.startswith(SCORES) and all(_is_mark(one.get(metric)) for one in every):
            return metric
    raise MeasurementError(
        f"task {name!r} has no metric that says right or wrong (its metrics: {', '.join(every[0])}): choose another"
    )


def _is_mark(value: Any) -> bool:
    return bool(np.isscalar(value)) and value in (0, 1)
