"""Scenarios of perplexity and accuracy: the committed baselines, with effects of known size added."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from quantgate.proofs.power.noise import Cells, Noise
from quantgate.proofs.power.paired import (
    Answers,
    Array,
    Pair,
    Part,
    answer_replays,
    as_between,
    by_cluster,
    replays,
    shift_for,
    stretched,
    uniform,
    with_samples,
)
from quantgate.proofs.power.study import Replay, Scenario
from quantgate.records import Metric

PERPLEXITY = (0.002, 0.005, 0.01, 0.02)
ACCURACY = (0.01, 0.02, 0.05)
LOSSES = (("llamacpp/Q8_0", "llamacpp/F16"), ("llamacpp/Q4_K_M", "llamacpp/F16"))
"""Real losses, worse against better, whose spread over the windows an effect is given: a small one, spread most
unevenly of all the schemes, and a larger one."""


LOSS = "perplexity/loss"


def perplexity(cells: Cells, noise: Noise) -> list[Scenario]:
    """Effects 0 and `PERPLEXITY` (relative) on a cell, not on its reference: the same in every block of tokens, and
    spread as real losses spread."""
    measured = {cell: metrics for cell, metrics in cells.items() if "perplexity" in metrics}
    if not measured:
        return []
    source = f"baselines of {len(measured)} cells; {noise.origin}"

    def scenario(effect: float, spread: str, effects: Mapping[str, Array]) -> Scenario:
        parts = {cell: _parts(cell, measured[cell], noise, change) for cell, change in effects.items()}
        words = source if spread in ("none", "uniform") else f"{source}; windows of that loss"
        run = partial(_perplexity_replays, parts)
        return Scenario("perplexity", effect, spread, words, len(parts), run, place=noise.place)

    def everywhere(mean: float) -> dict[str, Array]:
        return {cell: uniform(metrics["perplexity"], mean) for cell, metrics in measured.items()}

    scenarios = [scenario(0.0, "none", everywhere(0.0))]
    for effect in PERPLEXITY:
        mean = math.log1p(effect)
        scenarios.append(scenario(effect, "uniform", everywhere(mean)))
        for pair in LOSSES:
            effects = {}
            for cell in measured:
                worse, better = (measured.get(f"{cell.split('/')[0]}/{one}") for one in pair)
                if worse and better:
                    effects[cell] = as_between(worse["perplexity"], better["perplexity"], mean)
            worse_name, better_name = (one.split("/")[1] for one in pair)
            if effects:
                scenarios.append(scenario(effect, f"as {worse_name} loses to {better_name}", effects))
    return scenarios


def _parts(cell: str, metrics: Mapping[str, Metric], noise: Noise, effect: Array) -> dict[str, Part]:
    """Perplexity, and its ratio to the reference's, which adds its noise."""
    text = metrics["perplexity"]
    noisy = by_cluster(text, noise.differences(cell, "perplexity"))
    parts = {"perplexity": Part(text, stretched(noisy), effect)}
    if LOSS in metrics:
        reference = str(metrics[LOSS].conditions["relative to"])
        other = by_cluster(text, noise.differences(reference, "perplexity"))
        # Cells without recorded noise share the same differences, which would cancel.
        both = noisy - other if noisy.shape == other.shape and (noisy != other).any() else noisy
        parts[LOSS] = Part(metrics[LOSS], stretched(both), effect)
    return parts


def _perplexity_replays(
    parts: Mapping[str, dict[str, Part]], count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell, cell_parts in parts.items():
        for pairs in replays(cell_parts, count, random):
            yield Replay(cell, pairs)


def accuracy(cells: Cells, noise: Noise) -> list[Scenario]:
    """Effects 0 and `ACCURACY` (points as a share) in every task: as flips of random items, and as the sinking of
    every margin by what takes as many answers of all cells together below zero."""
    answered = {
        cell: (answers, metrics.get(MEAN))
        for cell, metrics in cells.items()
        if (answers := _answers(cell, metrics, noise))
    }
    if not answered:
        return []
    source = f"baselines of {len(answered)} cells; {noise.origin}"
    decided = [
        a.margin.samples or [] for answers, _ in answered.values() for a in answers if a.margin_decides
    ]
    margins = np.concatenate([*decided, []])

    def scenario(effect: float, spread: str, lost: float, shift: float) -> Scenario:
        run = partial(_accuracy_replays, answered, lost, shift)
        return Scenario("accuracy", effect, spread, source, len(answered), run, place=noise.place)

    scenarios = [scenario(0.0, "none", 0.0, 0.0)]
    for effect in ACCURACY:
        scenarios.append(scenario(effect, "flips", effect, 0.0))
        scenarios.append(scenario(effect, "margins sink", effect, shift_for(margins, effect)))
    return scenarios


MEAN = "accuracy/mean/acc"


def _answers(cell: str, metrics: Mapping[str, Metric], noise: Noise) -> list[Answers]:
    tasks = [
        name.split("/")[1] for name in metrics if name.startswith("accuracy/") and name.endswith("/margin")
    ]
    return [
        Answers(
            task,
            _without_choices(metrics[f"accuracy/{task}/acc"]),
            _without_choices(metrics[f"accuracy/{task}/margin"]),
            stretched(np.array(noise.differences(cell, f"accuracy/{task}/margin"))),
        )
        for task in tasks
    ]


def _without_choices(metric: Metric) -> Metric:
    """Drop the log-likelihoods of all choices: replays do not draw them, and their gate would always be green."""
    return metric.model_copy(update={"raw": {k: v for k, v in metric.raw.items() if k != "loglikelihoods"}})


def _accuracy_replays(
    answered: Mapping[str, tuple[list[Answers], Metric | None]],
    lost: float,
    shift: float,
    count: int,
    random: np.random.Generator,
) -> Iterator[Replay]:
    for cell, (answers, mean) in answered.items():
        for together in zip(*(answer_replays(a, lost, shift, count, random) for a in answers), strict=True):
            pairs = {name: pair for task in together for name, pair in task.items()}
            if mean is not None:
                pairs[MEAN] = _mean(mean, [pairs[f"accuracy/{a.task}/acc"] for a in answers])
            yield Replay(cell, pairs)


def _mean(mean: Metric, tasks: Sequence[Pair]) -> Pair:
    """Of all tasks together, each counting the same."""
    sizes = [len(old.samples or ()) for old, _ in tasks]
    weights = np.repeat([max(sizes) / size for size in sizes], sizes) if mean.weights else None
    old, new = (np.concatenate([pair[side].samples or [] for pair in tasks]) for side in (0, 1))
    return with_samples(mean, old, weights), with_samples(mean, new, weights)


def divergence(cells: Cells, noise: Noise) -> list[Scenario]:
    """Effect 0 on whatever of the divergence from the reference has recorded harmless differences."""
    noisy = {
        cell: {
            n: m
            for n, m in metrics.items()
            if n.startswith("divergence/") and n in noise.paired.get(cell, {})
        }
        for cell, metrics in cells.items()
    }
    noisy = {cell: metrics for cell, metrics in noisy.items() if metrics}
    if not noisy:
        return []
    run = partial(_divergence_replays, noisy, noise)
    source = f"baselines of {len(noisy)} cells; {noise.origin}"
    return [Scenario("divergence", 0.0, "none", source, len(noisy), run, place=noise.place)]


def _divergence_replays(
    noisy: Cells, noise: Noise, count: int, random: np.random.Generator
) -> Iterator[Replay]:
    for cell, metrics in noisy.items():
        each = {
            name: _harmless(metric, noise.differences(cell, name), count, random)
            for name, metric in metrics.items()
        }
        for together in zip(*each.values(), strict=True):
            yield Replay(cell, dict(zip(each, together, strict=True)))


def _harmless(
    metric: Metric, differences: list[float], count: int, random: np.random.Generator
) -> Iterator[Pair]:
    if metric.kind == "paired":
        harmless = stretched(by_cluster(metric, differences))
        for pairs in replays({"": Part(metric, harmless, uniform(metric, 0.0))}, count, random):
            yield pairs[""]
    else:
        for change in random.choice(differences, size=count) * random.choice([-1.0, 1.0], size=count):
            yield metric, metric.model_copy(update={"value": metric.value + float(change)})
