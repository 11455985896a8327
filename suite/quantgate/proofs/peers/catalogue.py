"""Define the rows: what both sides measure, and which numbers are compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from quantgate.files import hash_of
from quantgate.proofs.checks import Check
from quantgate.proofs.peers import harness, parse, tools
from quantgate.proofs.peers.answers import same_answers
from quantgate.proofs.peers.bed import REFERENCE, Bed, Pairs, SuiteRun, one_after_the_other
from quantgate.proofs.peers.config import Config, Shots, TimedShots
from quantgate.proofs.peers.outcome import agreement, gain, largest_difference, paired, share
from quantgate.records import Measurement


@dataclass(frozen=True)
class Entry:
    """One row. compare: measures both sides and returns the checks; raises QuantgateError."""

    name: str
    text: str
    compare: Callable[[Bed], list[Check]]


def catalogue(config: Config) -> list[Entry]:
    """Return every row of the configuration. Rows named `speed/...` need an otherwise idle machine: `-k ^speed/`
    selects them, `-k '^(?!speed/)'` the others."""
    perplexity, divergence, speed = config.perplexity, config.divergence, config.scoring
    likelihoods = {"": config.likelihood.zero_shot, "five-shot/": config.likelihood.five_shot}
    return [
        *(
            Entry(
                f"likelihood/{which}{cell}",
                f"{cell} against lm-eval's HFLM with the same weights",
                partial(likelihood, cell, limit, shots),
            )
            for which, shots in likelihoods.items()
            for cell, limit in config.likelihood.nats.items()
        ),
        *(
            Entry(
                f"answers/{way}",
                "tokens and marks of written answers against lm-eval's HFLM",
                partial(same_answers, way == "chat"),
            )
            for way in ("plain", "chat")
        ),
        *(
            Entry(
                f"perplexity/{scheme}", f"{scheme} against llama-perplexity", partial(same_perplexity, scheme)
            )
            for scheme in perplexity.schemes
        ),
        *(
            Entry(
                f"divergence/{scheme}",
                f"{scheme} from F16 against llama-perplexity --kl-divergence",
                partial(same_divergence, scheme),
            )
            for scheme in divergence.schemes
        ),
        Entry("speed/scoring/zero-shot", "time of lm-eval over ours", partial(scoring, speed.zero_shot)),
        Entry("speed/scoring/five-shot", "time of lm-eval over ours", partial(scoring, speed.five_shot)),
        *(
            Entry(f"speed/perplexity/{scheme}", f"{scheme}, whole process", partial(perplexity_time, scheme))
            for scheme in perplexity.timed
        ),
        *(
            Entry(f"speed/throughput/{scheme}", f"{scheme} against llama-bench", partial(throughput, scheme))
            for scheme in config.throughput.schemes
        ),
    ]


# --- lm-eval --------------------------------------------------------------------------------------


def likelihood(cell: str, limit: float, shots: Shots, bed: Bed) -> list[Check]:
    """Compare the log-likelihood of every choice with that of lm-eval's class on the same weights, and count the items
    that are judged or predicted differently. A GGUF with rounded weights is also compared with the unrounded ones."""
    options = bed.config.likelihood
    items = bed.items or shots.items
    ours = bed.ours(accuracy={"tasks": options.tasks, "items": items, "fewshot": shots.examples})
    size = options.batch_size

    def peer(weights: str) -> dict[str, harness.TaskScores]:
        return bed.lm_eval(ours, size, cell=weights, softmax=options.softmax)[size]

    record = bed.noted(ours.measure(cell, *(f"accuracy/{name}" for name in ours.tasks)))
    tie = None if cell == REFERENCE else limit
    what = "judged differently" if tie is None else f"predicted differently, except ties within {tie:g} nats"
    ours_cell = ours.cell(cell)
    rounded = ours_cell.checkpoint == "gguf" and ours_cell.bits < ours.cell(REFERENCE).bits
    same_weights = cell if rounded else REFERENCE
    checks = []
    for weights in dict.fromkeys((same_weights, REFERENCE)):
        theirs = bed.once(f"lm-eval {shots} {weights}", partial(peer, weights))
        difference, other = apart(ours, record, theirs, tie)
        bound, note = (limit, "") if weights == same_weights else (None, ", weights before rounding")
        checks += [
            Check(
                what=f"largest difference{note}", difference=difference, difference_unit="nats", limit=bound
            ),
            Check(what=f"{what} (acc, acc_norm){note}", difference=other, difference_unit="items", limit=0),
        ]
    return checks


def apart(
    ours: SuiteRun, record: Measurement, theirs: dict[str, harness.TaskScores], tie: float | None
) -> tuple[float, int]:
    """Return the largest difference in nats, and the number of items that are judged differently or (with `tie`)
    predicted differently. Raises MeasurementError where the two sides scored different tokens."""
    differences, others = [], []
    for name, scores in theirs.items():
        task, metrics = ours.task(name), record.metrics
        harness.check_tokens(task, scores)
        mine = metrics[f"accuracy/{name}/acc"].raw["loglikelihoods"]
        differences.append(largest_difference(mine, scores.loglikelihoods))
        if tie is None:
            samples = {m: metrics[f"accuracy/{name}/{m}"].samples or [] for m in task.metrics}
            others.append(harness.judged_differently(samples, scores))
        else:
            others.append(harness.predicted_differently(task, mine, scores, tie))
    return max(differences), sum(others)


def scoring(shots: TimedShots, bed: Bed) -> list[Check]:
    """Compare the seconds of scoring alone, one process a side: lm-eval with its best batch size and otherwise default
    settings, over the suite; in total and by task. The scores of the two sides are compared as well."""
    options = bed.config.scoring

    def workload(items: int) -> SuiteRun:
        return bed.ours(accuracy={"tasks": options.tasks, "items": items, "fewshot": shots.examples})

    def trial() -> int:
        seconds = {
            size: sum(task.seconds for task in tasks.values())
            for size, tasks in bed.lm_eval(workload(min(shots.trial, items)), *options.batch_sizes).items()
        }
        return min(seconds, key=lambda size: seconds[size])

    items = bed.items or shots.items
    ours, size = workload(items), bed.once(f"batch size {shots.examples}", trial)

    def mine() -> Measurement:
        return ours.measure(REFERENCE, *(f"accuracy/{name}" for name in ours.tasks))

    pair = one_after_the_other(mine, lambda: bed.lm_eval(ours, size)[size])
    records, scores = Pairs(pair).take(bed.repeats)
    here = [record.scoring for record in records]
    there = [{name: task.seconds for name, task in run.items()} for run in scores]
    difference, other = apart(ours, records[-1], scores[-1], None)
    return [
        gain(
            f"all tasks, lm-eval in batches of {size}",
            [sum(run.values()) for run in here],
            [sum(run.values()) for run in there],
            shots.total,
        ),
        *(
            gain(name, [run[name] for run in here], [run[name] for run in there], shots.each)
            for name in ours.tasks
        ),
        Check(what="largest difference", difference=difference, difference_unit="nats"),
        Check(what="judged differently (acc, acc_norm)", difference=other, difference_unit="items", limit=0),
    ]


# --- llama.cpp's tools ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of one run. seconds: of the whole process; of ours without imports, which only the first cell of a run
    pays."""

    value: float
    seconds: float


def same_perplexity(scheme: str, bed: Bed) -> list[Check]:
    """Compare the perplexities."""
    ours, theirs = perplexities(scheme, bed).take(1)
    values = [run.value for run in ours], [run.value for run in theirs]
    return [agreement("perplexity", *values, "", bed.config.perplexity.relative)]


def perplexity_time(scheme: str, bed: Bed) -> list[Check]:
    """Compare the wall times."""
    ours, theirs = perplexities(scheme, bed).take(bed.repeats)
    seconds = [run.seconds for run in ours], [run.seconds for run in theirs]
    return [paired(share("wall time", *seconds, bed.config.perplexity.time))]


def perplexities(scheme: str, bed: Bed) -> Pairs[Perplexity, Perplexity]:
    """Return the runs of both sides on the same text, by llama.cpp's protocol, in turns."""
    options = bed.config.perplexity
    size = {"n_ctx": options.n_ctx, "windows": options.windows}
    ours = bed.ours(bed.text, perplexity={"text": options.text, "protocol": "half", **size})
    cell = f"llamacpp/{scheme}"

    def pair(number: int) -> tuple[Perplexity, Perplexity]:
        arguments = tools.perplexity(ours.checkpoint(cell), plain_text(bed, ours, options.text), **size)
        name = f"perplexity-{scheme}"
        record, ran = bed.beside(ours, cell, ["perplexity"], "llama-perplexity", arguments, name)(number)
        mine = Perplexity(record.metrics["perplexity"].value, record.seconds - record.phases["start"])
        return mine, Perplexity(parse.perplexity(ran.output + ran.log), ran.seconds)

    return bed.once(f"perplexity {scheme}", lambda: Pairs(pair))


def same_divergence(scheme: str, bed: Bed) -> list[Check]:
    """Compare the divergence from F16 on the same windows."""
    options = bed.config.divergence
    size = {"n_ctx": options.n_ctx, "windows": options.windows}
    ours = bed.ours(divergence={"text": options.text, "protocol": "half", **size})
    bed.once("divergence reference", lambda: ours.measure("llamacpp/F16", "divergence"))
    metrics = bed.noted(ours.measure(f"llamacpp/{scheme}", "divergence")).metrics
    logits = bed.results / "made" / f"logits-{scheme}.bin"
    try:
        text = plain_text(bed, ours, options.text)
        bed.tool(
            "llama-perplexity",
            tools.save_logits(ours.checkpoint("llamacpp/F16"), text, **size, logits=logits),
            "save-logits",
        )
        arguments = tools.divergence(ours.checkpoint(f"llamacpp/{scheme}"), options.n_ctx, logits)
        ran = bed.tool("llama-perplexity", arguments, f"divergence-{scheme}")
    finally:
        logits.unlink(missing_ok=True)  # hundreds of megabytes
    theirs = parse.kl_statistics(ran.output + ran.log)

    def value(metric: str) -> list[float]:
        return [metrics[f"divergence/{metric}"].value]

    same_top = abs(value("same_top")[0] - theirs.same_top)
    return [
        agreement("mean", value("kl_mean"), [theirs.mean], "nats", options.kl_mean),
        Check(
            what="same top token", ours=value("same_top")[0], peer=theirs.same_top, unit="fraction",
            difference=same_top, difference_unit="fraction", limit=options.same_top,
        ),
        agreement("99 %", value("kl_99"), [theirs.q99], "nats", None),
        agreement("largest", value("kl_max"), [theirs.largest], "nats", None),
        agreement("change of the true token", value("delta_p_rms"), [theirs.delta_p_rms], "fraction", None),
    ]  # fmt: skip


def throughput(scheme: str, bed: Bed) -> list[Check]:
    """Compare tokens/s of prefill and decoding between fresh processes in turns: the median of each process's rounds,
    and the median ratio of the pairs."""
    options = bed.config.throughput
    size = {"prompt": options.prompt, "decode": options.decode, "rounds": options.rounds}
    ours = bed.ours(throughput={**size, "seconds": 600.0})
    cell = f"llamacpp/{scheme}"

    def pair(number: int) -> tuple[tuple[float, float], tuple[float, float]]:
        requests = ["throughput/prefill", "throughput/decode"]
        arguments = tools.bench(ours.checkpoint(cell), **size)
        record, ran = bed.beside(ours, cell, requests, "llama-bench", arguments, f"bench-{scheme}")(number)
        prefill, decode = (record.metrics[request].value for request in requests)
        return (prefill, decode), (
            statistics.median(parse.rates(ran.output, options.prompt, 0)),
            statistics.median(parse.rates(ran.output, 0, options.decode)),
        )

    a, b = Pairs(pair).take(max(bed.repeats, options.pairs))
    return [
        paired(agreement(what, [run[i] for run in a], [run[i] for run in b], "tokens/s", options.relative))
        for i, what in enumerate((f"prefill {options.prompt}", f"decode {options.decode}"))
    ]


def plain_text(bed: Bed, ours: SuiteRun, name: str) -> Path:
    """Return a file with a text of the workload."""
    arguments: dict[str, Any] = {"spec": ours.supply.specs("text")[name], "tokens": ours.tokens(name)}
    file = f"text-{hash_of(arguments)}.txt"
    return bed.once(file, lambda: bed.made(file, tools.plain_text, **arguments))
