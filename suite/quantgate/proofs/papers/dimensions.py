"""Knowledge and capacity, alignment, efficiency: the embedded model in every scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quantgate.config.matrix import Cell
from quantgate.errors import InputError
from quantgate.proofs.papers.section import (
    HEIGHT,
    TOLERABLE,
    WIDTH,
    Figure,
    Finding,
    Measured,
    Paper,
    State,
    Table,
    chart_data,
    decide,
    is_simulated,
    load_altair,
)
from quantgate.proofs.papers.statistics import (
    Correlation,
    Draws,
    correlation,
    losses,
    pearson,
    score_draws,
    share_of_tasks,
    spearman,
    task_draws,
)
from quantgate.records import Measurement

PAPER = Paper(
    authors="Renren Jin, Jiangcun Du, Wuwei Huang, Wei Liu, Jian Luan, Bin Wang and Deyi Xiong",
    title="A Comprehensive Evaluation of Quantization Strategies for Large Language Models",
    year=2024,
    arxiv="2402.16775",
    question=(
        "Perplexity alone says little about what a quantized model still can do. The paper looks at three "
        "dimensions: what a model knows and is able to (knowledge and capacity), whether it is truthful and "
        "fair (alignment), and what it costs (efficiency). How much of each is left at 8, 4, 3 and 2 bits, "
        "and is perplexity a good proxy for it? It quantizes chat models of 7 to 72 billion parameters."
    ),
    setup=(
        "A chat model of 135 million parameters in the schemes of bitsandbytes and llama.cpp and in "
        "simulated integers of 8 to 2 bits, on the first items of fourteen tasks. A task with right answers "
        "counts its accuracy, a task about bias how near the model is to preferring neither side (1: no "
        "preference). A model this small is near chance on some of them: intervals are wide, and say so. "
        "Two tasks have no accuracy here and are shown beside the others: the likelihood of the reference "
        "solution (GSM8K) and of a true answer (TruthfulQA). Timings are shown, never judged: whether "
        "quantization makes a model faster depends on the kernels, and often it does not."
    ),
)
KNOWLEDGE = ("arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "mmlu", "lambada_openai")
ALIGNMENT = ("bbq", "crows_pairs_english", "stereoset", "winobias", "factual_summaries")
LIKELIHOOD = ("gsm8k_gold", "truthfulqa_gold")
"""Tasks without an accuracy: log-likelihood of the given answer, nats per character."""
DIMENSIONS = {"knowledge": KNOWLEDGE, "alignment": ALIGNMENT}


def findings(measured: Measured) -> list[Finding]:
    """Return the findings: 4 bits against full precision and fewer bits, perplexity against both dimensions, memory."""
    loss = losses(measured)
    bits = [cell.bits for cell, _ in measured]
    full, four, fewer = _where(bits, 16, 32), _where(bits, 4, 4), _where(bits, 0, 3)
    if not (full and four and fewer):
        raise InputError("cells of 16 or 32, of 4 and of at most 3 bits are compared; measure the whole tier")
    results = []
    scores = {name: score_draws(measured, tasks) for name, tasks in DIMENSIONS.items()}
    for name, draws in scores.items():
        results += [_four_bits(name, draws, four, full), _fewer_bits(name, draws, fewer, four)]
    for name, draws in scores.items():
        results += [
            _proxy(f"perplexity-ranks-{name}", f"perplexity orders {name}", correlation(loss, draws, spearman),
                   "Spearman's rank correlation of perplexity with the mean score"),
            _proxy(f"perplexity-line-{name}", f"perplexity is in line with {name}", correlation(loss, draws, pearson),
                   "Pearson's linear correlation of loss (nats per token) with the mean score"),
        ]  # fmt: skip
    every = [task_draws(measured, task) for tasks in DIMENSIONS.values() for task in tasks]
    return [*results, _most_tasks(share_of_tasks(loss, every), len(every)), _memory(measured, four, full)]


def figures(measured: Measured) -> list[Figure]:
    """Return the score of each dimension over measured bits per weight, and over the loss that quantization adds."""
    alt, rows = load_altair(), _rows(measured)
    return [
        Figure(
            "dimensions-profile",
            "Knowledge and alignment over bits per weight",
            "A point for each cell, with the 95 % interval over its items. Bits are measured: embeddings "
            "and layers that a scheme leaves alone count.",
            _chart(rows, _bits(alt)),
        ),
        Figure(
            "dimensions-proxy",
            "Perplexity as a proxy",
            "The same scores over the logarithm of perplexity, less that of the best cell; the axis is stretched "
            "where most cells are. If perplexity is a proxy, points fall from the upper left to the lower right.",
            _chart(rows, _added(alt)),
        ),
    ]


def tables(measured: Measured) -> list[Table]:
    """Return the profile of every cell."""
    scores = {name: score_draws(measured, tasks) for name, tasks in DIMENSIONS.items()}
    header = (
        "cell", "bits per weight", "perplexity", "knowledge (95 %)", "alignment (95 %)", *LIKELIHOOD,
        "weights, MB", "prefill, tokens/s", "decode, tokens/s",
    )  # fmt: skip
    rows = [
        (
            f"{cell.backend}/{cell.scheme}",
            f"{record.metrics['memory/bits_per_weight'].value:.2f}",
            f"{record.metrics['perplexity'].value:.2f}",
            *(_with_interval(draws, number) for draws in scores.values()),
            *(f"{record.metrics[f'accuracy/{task}/margin_norm'].value:.3f}" for task in LIKELIHOOD),
            f"{record.metrics['memory/weight_bytes'].value / 1e6:.1f}",
            *(_speed(cell, record, kind) for kind in ("prefill", "decode")),
        )
        for number, (cell, record) in enumerate(measured)
    ]
    return [
        Table(
            "Profile of each cell (the last two tasks: nats per character of the given answer)", header, rows
        )
    ]


def _where(bits: Sequence[float], low: float, high: float) -> list[int]:
    return [number for number, value in enumerate(bits) if low <= value <= high]


def _four_bits(name: str, draws: Draws, four: Sequence[int], full: Sequence[int]) -> Finding:
    value, low, high = draws.difference(four, full)
    return Finding(
        f"four-bits-{name}", f"4 bits keep {name}", "performance comparable to that of the model that is not quantized",
        value, low, high, "points of 1", decide(low, high, above=-TOLERABLE),
        f"mean score of the {len(four)} cells of 4 bits minus that of the {len(full)} of full precision; comparable: a "
        f"loss below {TOLERABLE}",
    )  # fmt: skip


def _fewer_bits(name: str, draws: Draws, fewer: Sequence[int], four: Sequence[int]) -> Finding:
    value, low, high = draws.difference(fewer, four)
    return Finding(
        f"three-bits-{name}", f"3 bits and fewer lose {name}", "performance falls off below 4 bits",
        value, low, high, "points of 1", decide(low, high, below=0),
        f"mean score of the {len(fewer)} cells of at most 3 bits minus that of the {len(four)} of 4 bits",
    )  # fmt: skip


def _proxy(key: str, name: str, measured: Correlation, text: str) -> Finding:
    return Finding(
        key, name, "perplexity can serve as a proxy on most benchmarks",
        measured.value, measured.low, measured.high, "", decide(measured.low, measured.high, below=0),
        f"{text}; cells and items drawn anew",
    )  # fmt: skip


def _most_tasks(measured: Correlation, tasks: int) -> Finding:
    return Finding(
        "perplexity-proxy-most-tasks", "perplexity is a proxy on most tasks", "on most benchmarks",
        measured.value, measured.low, measured.high, "of the tasks", decide(measured.low, measured.high, above=0.5),
        f"share of the {tasks} tasks on which a higher perplexity goes with a lower score, by rank",
    )  # fmt: skip


def _memory(measured: Measured, four: Sequence[int], full: Sequence[int]) -> Finding:
    """Compare real weights only: the size of a simulated scheme is mere arithmetic."""
    size = np.array([record.metrics["memory/weight_bytes"].value for _, record in measured])
    real = [n for n in four if not is_simulated(measured[n][0])]
    worst = max(real, key=lambda n: size[n])
    ratio = float(size[worst] / min(size[n] for n in full if not is_simulated(measured[n][0])))
    state: State = "holds" if ratio < 1 else "does not hold"
    return Finding(
        "four-bits-memory", "4 bits take less memory", "quantization saves memory",
        ratio, float("nan"), float("nan"), "of the bytes", state,
        f"weights as loaded, the largest of the cells of 4 bits "
        f"({measured[worst][0].backend}/{measured[worst][0].scheme}) "
        "against the smallest of full precision; bytes are exact, so there is no interval",
    )  # fmt: skip


def _with_interval(draws: Draws, number: int) -> str:
    low, high = draws.interval(number)
    return f"{draws.all_items[number]:.3f} ({low:.3f} to {high:.3f})"


def _speed(cell: Cell, record: Measurement, kind: str) -> str:
    metric = record.metrics.get(f"throughput/{kind}")
    return "simulated" if is_simulated(cell) or metric is None else f"{metric.value:.0f}"


def _rows(measured: Measured) -> list[dict[str, Any]]:
    rows = []
    best = losses(measured).min()
    for name, tasks in DIMENSIONS.items():
        draws = score_draws(measured, tasks)
        for number, (cell, record) in enumerate(measured):
            low, high = draws.interval(number)
            rows.append(
                {
                    "dimension": name,
                    "cell": f"{cell.backend}/{cell.scheme}",
                    "backend": cell.backend,
                    "bits": record.metrics["memory/bits_per_weight"].value,
                    "added": float(np.log(record.metrics["perplexity"].value) - best),
                    "perplexity": record.metrics["perplexity"].value,
                    "score": float(draws.all_items[number]),
                    "low": low,
                    "high": high,
                }
            )
    return rows


def _bits(alt: Any) -> Any:
    return alt.X(
        "bits:Q",
        title="measured bits per weight",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(format="~g"),
    )


def _added(alt: Any) -> Any:
    """Return an axis that holds a hundredth of a nat and the nats of a collapse."""
    return alt.X(
        "added:Q",
        title="loss that quantization adds, nats per token",
        scale=alt.Scale(type="symlog", constant=0.05, nice=False, padding=12),
        axis=alt.Axis(values=[0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], format="~g"),
    )


def _chart(rows: Sequence[Mapping[str, Any]], x: Any) -> Any:
    alt = load_altair()
    base = alt.Chart(chart_data(rows)).encode(
        x,
        alt.Color("backend:N", title="library"),
        tooltip=["cell:N", alt.Tooltip("score:Q", format=".3f"), alt.Tooltip("bits:Q", format=".2f"),
                 alt.Tooltip("perplexity:Q", format=".2f")],
    )  # fmt: skip
    bars = base.mark_rule(opacity=0.4).encode(
        alt.Y("low:Q", title="score, 0 to 1", scale=alt.Scale(zero=False)), alt.Y2("high:Q")
    )
    points = base.mark_circle(size=50).encode(alt.Y("score:Q", scale=alt.Scale(zero=False)))
    return (
        (bars + points)
        .properties(width=WIDTH, height=HEIGHT)
        .facet(column=alt.Column("dimension:N", title=None, sort=["knowledge", "alignment"]))
    )
