"""The rows on scores of formats of floats. Each takes the bed and returns checks."""

from __future__ import annotations

import json

from quantgate.measure.metrics import memory
from quantgate.proofs.checks import Check
from quantgate.proofs.cuda.bed import Bed, NotTriedError, installed
from quantgate.proofs.cuda.prepare import MADE, NAME
from quantgate.proofs.peers.outcome import largest_difference
from quantgate.records import Measurement

TASK = f"accuracy/{NAME}"
DECODING = ("decoding",) if installed("scipy") else ()
"""Where the module that it needs is there."""
QUALITY = ("accuracy", *DECODING, "divergence", "perplexity")
"""What is measured of the pocket models."""
RANDOM = ("accuracy", *DECODING, "memory", "perplexity")
"""Of the models of random weights, whose reference on the CPU would take minutes."""
SHORT = memory.Options(prompt=256, decode=4)
"""Of the hybrid, whose Mamba layers take gigabytes for a long prompt without kernels of their own."""


def prepared(bed: Bed) -> list[Check]:
    """The models and workloads of all other rows."""
    made = json.loads((bed.prepared / MADE).read_text())
    failed = [f"{name}: {reason}" for name, reason in made.items() if reason]
    what = f"not made: {'; '.join(failed)}" if failed else f"{', '.join(made)}"
    return [Check(what=what, difference=len(failed), difference_unit="items", limit=0)]


def references(bed: Bed) -> list[Check]:
    """What the cells of the device are held against, on the CPU: measured before any of them, since a server that has
    imported a library forks no cell of a device."""
    cells = [(model, scheme) for model in bed.config.pocket for scheme in ("fp32", "bf16")]
    for model, scheme in cells:
        on_cpu(bed, model, scheme)
    return [Check(what="cells of the CPU", difference=len(cells), difference_unit="items")]


def on_cpu(bed: Bed, model: str, scheme: str = "fp32") -> Measurement:
    """Return the record of a pocket model on the CPU."""
    return bed.measure(bed.cell_of_cpu(model, f"transformers/{scheme}"), QUALITY)


def pocket(bed: Bed, model: str, name: str, run: str = "") -> tuple[Measurement, Measurement]:
    """Return the records of a pocket model on the device in a format of floats, and of its fp32 on the CPU."""
    reference = on_cpu(bed, model)
    return bed.measure(bed.cell(model, name), QUALITY, run), reference


def random_weights(bed: Bed, model: str, run: str = "") -> Measurement:
    """Return the record of a model of random weights in bf16."""
    cell = bed.cell(model, "bf16")
    if model != "llama":
        return bed.once(f"{cell.id} {run}", lambda: bed.measure_with(cell, RANDOM, {"memory": SHORT}))
    return bed.measure(cell, RANDOM, run)


def scores(record: Measurement) -> list[list[float]]:
    """Return the log-likelihoods of all choices, nats."""
    values: list[list[float]] = record.metrics[f"{TASK}/acc"].raw["loglikelihoods"]
    return values


def likelihood(bed: Bed, name: str) -> list[Check]:
    """Log-likelihoods of a pocket model's choices against fp32 on the CPU. bf16 alone moves them by more than the bound
    of 16 bits: then the bound is what it moves them by on the CPU, times a factor."""
    checks, bounds = [], bed.config.bounds
    for model in bed.config.pocket:
        ours, theirs = pocket(bed, model, name)
        what, limit = f"{model}, largest difference of a choice", bounds.of(name).choice
        if name == "bf16":
            by_itself = largest_difference(scores(on_cpu(bed, model, name)), scores(theirs))
            what += f" ({by_itself:.2g} on the CPU)"
            limit = max(limit, bounds.other.rounding * by_itself)
        difference = largest_difference(scores(ours), scores(theirs))
        checks.append(Check(what=what, difference=difference, difference_unit="nats", limit=limit))
    return checks


def quality(bed: Bed, name: str) -> list[Check]:
    """Perplexity of a pocket model against fp32 on the CPU, and KL divergence from it."""
    checks, bounds = [], bed.config.bounds.of(name)
    for model in bed.config.pocket:
        a, b = (record.metrics for record in pocket(bed, model, name))
        ours, theirs = a["perplexity"].value, b["perplexity"].value
        checks.append(
            Check(
                what=f"{model}, perplexity", ours=ours, peer=theirs, difference=abs(ours / theirs - 1),
                difference_unit="relative", limit=bounds.perplexity,
            )
        )  # fmt: skip
        checks.append(
            Check(
                what=f"{model}, mean KL divergence", difference=a["divergence/kl_mean"].value,
                difference_unit="nats", limit=bounds.divergence,
            )
        )  # fmt: skip
    return checks


def decoding(bed: Bed, name: str) -> list[Check]:
    """Decoding token by token against one pass."""
    if not DECODING:
        raise NotTriedError("scipy is not installed")
    records = {model: pocket(bed, model, name)[0] for model in bed.config.pocket}
    if name == "bf16":
        records |= {model: random_weights(bed, model) for model in bed.config.random}
    return [
        Check(
            what=f"{model}, mean KL divergence", difference=record.metrics["decoding/kl_mean"].value,
            difference_unit="nats", limit=bed.config.bounds.of(name).decoding,
        )
        for model, record in records.items()
    ]  # fmt: skip


def scoring(bed: Bed, name: str) -> list[Check]:
    """What the handshake of a cell says: how far the shared way is from the plain one, and which is taken."""
    records = {model: pocket(bed, model, name)[0] for model in bed.config.pocket}
    if name == "bf16":
        records |= {model: random_weights(bed, model) for model in bed.config.random}
    checks = []
    for model, record in records.items():
        shaken = record.metrics[f"{TASK}/acc"].raw["scoring"]
        right = "plain" if model == "hybrid" else "shared"
        checks.append(
            Check(
                what=f"{model}, takes the {shaken['way']} way; {right} is right", difference=shaken["way"] != right,
                difference_unit="", limit=0,
            )
        )  # fmt: skip
        if shaken["difference"] is not None:
            limit = shaken["limit"] if right == "shared" else None
            checks.append(
                Check(
                    what=f"{model}, largest difference of a token", difference=shaken["difference"],
                    difference_unit="nats", limit=limit,
                )
            )  # fmt: skip
    return checks


def determinism(bed: Bed, name: str) -> list[Check]:
    """Two processes of the same cell, to the last digit."""
    model = bed.config.pocket[0]
    pairs = {model: (pocket(bed, model, name)[0], pocket(bed, model, name, "again")[0])}
    if name == "bf16":
        pairs["llama"] = random_weights(bed, "llama"), random_weights(bed, "llama", "again")
    checks = []
    for one, (first, second) in pairs.items():
        checks.append(
            Check(
                what=f"{one}, largest difference of a choice", difference_unit="nats", limit=0,
                difference=largest_difference(scores(first), scores(second)),
            )
        )  # fmt: skip
        for metric in ("perplexity", *(f"{group}/perplexity" for group in DECODING)):
            a, b = first.metrics[metric].value, second.metrics[metric].value
            checks.append(
                Check(
                    what=f"{one}, {metric}", ours=a, peer=b, difference=abs(a / b - 1), difference_unit="relative",
                    limit=0,
                )
            )  # fmt: skip
    return checks
