"""Accuracy on lm-evaluation-harness tasks: its prompts and choices, scored by our own scorer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from suite.records import Metric, Needs, Record
from suite.run.session import Item, Session, Task
from suite.scoring import Scored, TokenSequence, score


class Options(Record):
    """tasks: names of lm-evaluation-harness tasks (tasks.toml says where their data lies offline).
    items: how many of each, the first ones. budget: tokens of a forward pass (part of the key: the batch
    can change the last digits)."""

    tasks: list[str] = Field(min_length=1)
    items: int = Field(default=32, ge=2)
    budget: int = Field(default=512, ge=16)


def needs(options: Options) -> Needs:
    """The items of each task."""
    return Needs(tasks=dict.fromkeys(options.tasks, options.items))


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """`accuracy/<task>/acc` and, for multiple choice, `accuracy/<task>/acc_norm`; value and samples 0 to 1."""
    options = session.options("accuracy", Options)
    metrics: dict[str, Metric] = {}
    names = [t for t in options.tasks if t in parts or not parts]
    for number, name in enumerate(names):
        task = session.task(name)
        groups = [
            [TokenSequence((*c.context, *c.continuation), len(c.context)) for c in item.choices]
            for item in task.items
        ]

        def progress(done: int, total: int, number: int = number) -> None:
            session.progress(number + done / total, len(names))

        scored = score(session.backend, groups, options.budget, progress)
        metrics.update(_metrics(session, options, task, scored))
    return metrics


def _metrics(session: Session, options: Options, task: Task, scored: list[list[Scored]]) -> dict[str, Metric]:
    samples: dict[str, list[float]] = {}
    for item, choices in zip(task.items, scored, strict=True):
        for metric, value in item_metrics(task, item, choices).items():
            samples.setdefault(metric, []).append(value)
    raw = {
        "loglikelihoods": [[s.total for s in choices] for choices in scored],
        "gold": [item.gold for item in task.items],
    }
    conditions = {
        "source": session.source_hash,
        "task": task.name,
        "task version": task.version,
        "items": len(task.items),
        "data": task.data_hash,
        "prompts": task.prompt_hash,
        "tokens": task.token_hash,
        "budget": options.budget,
    }
    return {
        f"accuracy/{task.name}/{metric}": Metric(
            kind="paired",
            value=float(np.mean(values)),
            unit="fraction",
            better="higher",
            stderr=float(np.std(values, ddof=1) / math.sqrt(len(values))),
            samples=values,
            conditions=conditions,
            raw=raw if metric == "acc" else {},
        )
        for metric, values in samples.items()
    }


def item_metrics(task: Task, item: Item, scored: list[Scored]) -> dict[str, float]:
    """Metrics of one item as `ConfigurableTask.process_results` of lm-evaluation-harness defines them.

    Multiple choice: `acc` is 1 where the choice of highest log-likelihood is the gold one; `acc_norm` the same
    with each log-likelihood divided by the length of its choice in characters. Log-likelihood tasks: `acc` is 1
    where the whole continuation is what greedy decoding gives. A test holds these against lm-eval's own.
    """
    if task.output_type == "loglikelihood":
        return {"acc": float(scored[0].all_greedy)}
    loglikelihoods = np.array([s.total for s in scored])
    lengths = np.array([c.characters for c in item.choices], dtype=float)
    best = {"acc": loglikelihoods.argmax(), "acc_norm": (loglikelihoods / lengths).argmax()}
    return {metric: float(int(best[metric]) in item.gold) for metric in task.metrics}
