"""Accuracy on lm-evaluation-harness tasks: its prompts and choices, scored by `quantgate.measure.scoring`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from quantgate.backends.tree import TokenSequence
from quantgate.errors import MeasurementError
from quantgate.files import hash_of
from quantgate.items import Item, Task
from quantgate.jobs import Needs
from quantgate.measure.groups import Better, Column, Group, paired
from quantgate.measure.options import OfTasks
from quantgate.measure.scoring import Scored, fitted, score
from quantgate.measure.session import Session
from quantgate.measure.way import Handshake, fastest_budget, way_of
from quantgate.records import Declared, Metric, Scalar

MEAN = "mean"
"""Stands in a request for all tasks together."""
UNITS = {"margin": "nats", "margin_norm": "nats/character", "likelihood_diff": "nats"}
ANSWERS = ("acc", "acc_norm", "pct_stereotype", "ss")
"""Metrics whose samples are right or wrong; the `acc` of `mass` is a share."""
LESS_IS_BETTER = ("pct_stereotype", "likelihood_diff", "ss")


class Options(OfTasks):
    """tasks: names of lm-evaluation-harness tasks (tasks.toml says where their data lies offline). items_of: items of
    tasks that take another number. budget: tokens of a forward pass (part of the key: the batch can change the last
    digits); "auto": the number in the cell's baseline; without one, what is fastest on this machine."""

    ENTRIES: ClassVar[Mapping[str, str]] = {"items_of": "tasks"}
    """By a table of options, the list that its keys are in."""

    items_of: dict[str, Annotated[int, Field(ge=2)]] = Field(default_factory=dict)
    budget: Annotated[int, Field(ge=16)] | Literal["auto"] = 512


def needs(options: Options) -> Needs:
    """Return the items of each task, with examples."""
    counts = {name: options.items_of.get(name, options.items) for name in options.tasks}
    return Needs(tasks={name: options.posed(count) for name, count in counts.items()})


def expected(options: Options) -> dict[str, Metric]:
    """Return the gated metrics with as many samples as they will have."""
    counts = {name: posed.items for name, posed in needs(options).tasks.items()}
    metrics = {
        f"accuracy/{task}/{name}": _metric(
            name, [float(name == "acc")] * count, {"task": task, "items": count}, answers=name == "acc"
        )
        for name in ("margin", "margin_norm", "acc")
        for task, count in counts.items()
    }
    mean = _mean([metrics[f"accuracy/{task}/acc"] for task in counts])
    items = {"items": options.items} if len(set(counts.values())) == 1 else {}
    return {**metrics, f"accuracy/{MEAN}/acc": mean.model_copy(update={"conditions": items})}


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return for each task `accuracy/<task>/acc` (values and samples 0 to 1) and `margin` (nats), and `acc_norm` and
    `margin_norm` (nats per character) where it has them; of tasks about bias, and of those that score a given answer,
    what `item_metrics` gives; and `accuracy/mean/acc`, the mean of the `acc` of the tasks that have one."""
    options = session.options("accuracy", Options)
    every = MEAN in parts or not parts
    budget = None if options.budget == "auto" else options.budget
    metrics: dict[str, Metric] = {}
    positions, cuts = session.backend.sizes().positions, list[str]()
    for name, progress in session.each(options.tasks, () if every else parts):
        task = session.task(name)
        groups, cut = fitted(groups_of(task), positions)
        if cut:
            cuts.append(f"{cut} of {len(groups)} items of {name}")
        handshake = way_of(session, lambda: list(_groups_of_all(session, options)))
        budget = budget or fastest_budget(session, groups, handshake.way)
        begin = time.perf_counter()
        scored = score(session.backend, groups, budget, progress, way=handshake.way)
        session.scoring[name] = time.perf_counter() - begin
        metrics.update(_metrics(session, task, scored, budget, handshake, {"cut items": cut} if cut else {}))
    if cuts:
        session.notes["positions"] = (
            f"longer than the model's {positions:,} positions, so their beginnings are left out, as "
            f"lm-evaluation-harness does: {', '.join(cuts)}"
        )
    if every:
        with_acc = [metrics[key] for name in options.tasks if (key := f"accuracy/{name}/acc") in metrics]
        if not with_acc:
            raise MeasurementError("none of the tasks has an accuracy to take the mean of: add one that has")
        metrics[f"accuracy/{MEAN}/acc"] = _mean(with_acc)
    return metrics


def as_measured(options: Options, metrics: Mapping[str, Metric]) -> Options:
    """Replace the budget "auto" by the one that a record's accuracies were computed with."""
    if options.budget != "auto":
        return options
    budgets = (m.conditions.get("budget") for name, m in metrics.items() if name.startswith("accuracy/"))
    budget = next((budget for budget in budgets if isinstance(budget, int)), None)
    return options.model_copy(update={"budget": budget}) if budget else options


def groups_of(task: Task) -> list[list[TokenSequence]]:
    """Return the choices of each item, as they are scored."""
    return [
        [TokenSequence((*c.context, *c.continuation), len(c.context)) for c in item.choices]
        for item in task.items
    ]


def _groups_of_all(session: Session, options: Options) -> Iterator[list[TokenSequence]]:
    """Yield the items of all tasks of the tier: the handshake is the same whichever of them the cases need."""
    positions = session.backend.sizes().positions
    for name in options.tasks:
        with suppress(MeasurementError):  # a missing task is an error of its cases alone
            yield from fitted(groups_of(session.task(name)), positions)[0]


def _metrics(
    session: Session,
    task: Task,
    scored: list[list[Scored]],
    budget: int,
    handshake: Handshake,
    further: dict[str, Scalar],
) -> dict[str, Metric]:
    samples: dict[str, list[float]] = {}
    for item, choices in zip(task.items, scored, strict=True):
        values = item_metrics(task, item, choices) | margins(task, item, choices)
        for metric, value in values.items():
            samples.setdefault(metric, []).append(value)
    raw = {
        "loglikelihoods": [[s.total for s in choices] for choices in scored],
        "gold": [item.gold for item in task.items],
        "scoring": asdict(handshake),
    }
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "task": task.name,
        "task version": task.version,
        "items": len(task.items),
        "data": task.data_hash,
        "prompts": task.prompt_hash,
        "tokens": task.token_hash,
        "budget": budget,
        "scoring": handshake.way,
        **session.attention,
        **further,
        "fewshot": task.fewshot or None,
        "chat": True if task.template else None,
        "template": task.template or None,
    }
    metrics = {
        name: _metric(name, values, conditions, answers=name in ANSWERS and task.results != "mass")
        for name, values in samples.items()
    }
    first = next(iter(metrics))
    metrics[first] = metrics[first].model_copy(update={"raw": raw})
    return {f"accuracy/{task.name}/{name}": metric for name, metric in metrics.items()}


def _metric(name: str, values: list[float], conditions: dict[str, Scalar], **further: Any) -> Metric:
    better: Better = "lower" if name in LESS_IS_BETTER else "higher"
    return paired(values, conditions, unit=UNITS.get(name, "fraction"), better=better, **further)


def _mean(tasks: Sequence[Metric]) -> Metric:
    """Return the mean `acc` over the items of all tasks, each task counting the same."""
    conditions: dict[str, Scalar] = {
        str(task.conditions["task"]): hash_of([task.conditions]) for task in tasks
    }
    sizes = [len(task.samples or ()) for task in tasks]
    weights = [max(sizes) / size for size in sizes for _ in range(size)] if len(set(sizes)) > 1 else None
    values = [value for task in tasks for value in task.samples or ()]
    return _metric(
        "acc",
        values,
        conditions,
        stderr=math.sqrt(math.fsum((task.stderr or 0.0) ** 2 for task in tasks)) / len(tasks),
        weights=weights,
        answers=weights is None and all(task.answers for task in tasks),  # flips count alike
    )


def margin(item: Item, scores: Sequence[float]) -> float:
    """Return by how much the right answer leads: the score of the best right choice minus that of the best wrong one;
    the score itself where there is one choice. It shifts long before an answer flips."""
    if len(scores) == 1:
        return scores[0]
    right = [score for number, score in enumerate(scores) if number in item.gold]
    wrong = [score for number, score in enumerate(scores) if number not in item.gold]
    return max(right) - max(wrong, default=0.0)


def margins(task: Task, item: Item, scored: list[Scored]) -> dict[str, float]:
    """Return `margin`, nats, and of tasks with `acc_norm` and of given answers `margin_norm`, nats per character. Tasks
    about bias have none: which of their choices is right is not the question."""
    if task.results in ("pair", "stereoset"):
        return {}
    totals = [s.total for s in scored]
    values = {"margin": margin(item, totals)}
    if "acc_norm" in task.metrics or task.results == "gold":
        per_character = [t / c.characters for t, c in zip(totals, item.choices, strict=True)]
        values["margin_norm"] = margin(item, per_character)
    return values


def item_metrics(task: Task, item: Item, scored: list[Scored]) -> dict[str, float]:
    """Return the metrics of one item, by `task.results`:

    choice: as `ConfigurableTask.process_results` of lm-evaluation-harness defines them. Multiple choice: `acc` is 1
    where the choice of highest log-likelihood is the gold one; `acc_norm` the same with each log-likelihood divided
    by the length of its choice in characters. Log-likelihood tasks: `acc` is 1 where the whole continuation is what
    greedy decoding gives. mass: `acc` is the share of probability on the right choices (the harness's truthfulqa_mc2).
    pair: of the stereotyping sentence and the other one, `pct_stereotype` is 1 where the first is likelier,
    `likelihood_diff` how far they are apart, nats (the harness's crows_pairs). stereoset: `lms` and `ss` of Nadeem
    et al. 2021, section 4. gold: none, the margins say how likely the answer is.
    """
    totals = np.array([s.total for s in scored])
    match task.results:
        case "gold":
            return {}
        case "mass":
            shares = np.exp(totals - totals.max())
            return {"acc": float(shares[item.gold].sum() / shares.sum())}
        case "pair":
            more, less = totals
            return {"pct_stereotype": float(more > less), "likelihood_diff": float(abs(more - less))}
        case "stereoset":
            stereotype, opposite, unrelated = totals / [len(c.continuation) for c in item.choices]
            meaningful = float(np.mean([stereotype > unrelated, opposite > unrelated]))
            return {"lms": meaningful, "ss": float(stereotype > opposite)}
    if task.output_type == "loglikelihood":
        return {"acc": float(scored[0].all_greedy)}
    lengths = np.array([c.characters for c in item.choices], dtype=float)
    best = {"acc": totals.argmax(), "acc_norm": (totals / lengths).argmax()}
    return {metric: float(int(best[metric]) in item.gold) for metric in task.metrics}


SHARES = ("acc", "acc_norm", "lms")
"""Metrics that are shares of right answers."""
NAMES = (*SHARES, "margin", "margin_norm", "choices", "pct_stereotype", "likelihood_diff", "ss")
"""Metrics of a task; `choices` is made of the log-likelihoods in `raw`."""

GROUP = Group(
    options=Options,
    metrics={
        **{f"accuracy/{{tasks}}/{name}": Declared("paired", share=name in SHARES) for name in NAMES},
        f"accuracy/{MEAN}/acc": Declared("paired", share=True),
    },
    measure=measure,
    family="quality",
    relative=True,
    has_parts=True,
    capabilities=frozenset({"scores"}),
    needs=needs,
    expected=expected,
    as_measured=as_measured,
    columns=(
        Column(
            "accuracy",
            "mean",
            1,
            4,
            6,
            ("accuracy/*/acc_norm", "accuracy/*/acc"),
            ("accuracy/*",),
            percent=True,
            last=(f"accuracy/{MEAN}/*",),
        ),
    ),
)
