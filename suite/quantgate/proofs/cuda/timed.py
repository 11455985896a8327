"""The rows that are measured in a process of their own: clocks, bandwidth, leaks, what a compiled step would gain."""

from __future__ import annotations

import statistics
from typing import Any

from quantgate.errors import MeasurementError
from quantgate.proofs.checks import Check
from quantgate.proofs.cuda.bed import Bed, NotTriedError

INSIDE = "quantgate.proofs.cuda.inside"
"""It imports torch, which this process does not."""
STEPS = 64
"""Of a text whose decoding steps are timed."""


def _clocks(bed: Bed) -> Any:
    job = bed.job(bed.cell("llama", "bf16"), ["throughput"])
    return bed.values("clocks", f"{INSIDE}:clocks", job=job, device=bed.device)


def events(bed: Bed) -> list[Check]:
    """Seconds of prefill and decode as the suite times them, against CUDA events around the same calls."""
    values, checks = _clocks(bed), []
    for name in ("prefill", "decode"):
        ours, theirs = values[name]["suite"], values[name]["events"]
        checks.append(
            Check(
                what=f"llama, {name} of {values[name]['tokens']} tokens", ours=statistics.median(ours),
                peer=statistics.median(theirs), unit="s", ours_all=ours, peer_all=theirs, difference_unit="relative",
                difference=max(abs(a / b - 1) for a, b in zip(ours, theirs, strict=True)),
                limit=bed.config.bounds.other.events if bed.device == "cuda" else None,
            )
        )  # fmt: skip
    return checks


def bandwidth(bed: Bed) -> list[Check]:
    """A decoding step reads every weight once: the share of its time that a copy of so many bytes would take."""
    values = _clocks(bed)
    decode = values["decode"]
    step = statistics.median(decode["suite"]) / decode["tokens"]
    least = values["weights"] / values["bandwidth"]
    return [
        Check(
            what=f"llama, step (other: weights at {values['bandwidth'] / 1e9:,.0f} GB/s of a copy)", ours=step,
            peer=least, unit="s", difference=least / step, difference_unit="fraction",
        )
    ]  # fmt: skip


def faster(bed: Bed, name: str) -> list[Check]:
    """A decoding step as it is against one that is recorded or compiled: what a scheme option would gain."""
    job = bed.job(bed.cell("llama", "bf16"), ["throughput"])
    try:
        values = bed.values(name, f"{INSIDE}:{name}", job=job, device=bed.device, steps=STEPS)
    except MeasurementError as error:  # no part of the gate yet: a compiler may be missing
        raise NotTriedError(f"fails here: {error}") from error
    gain, worth = values["plain"] / values["other"], bed.config.bounds.other.gain
    verdict = f"worth an option from {worth:g} x on" if bed.device == "cuda" else "says nothing on a CPU"
    return [
        Check(
            what=f"llama, step as it is (other: {name}); {verdict}", ours=values["plain"], peer=values["other"],
            unit="s", difference=gain, difference_unit="x",
        ),
        Check(what="predicts the same tokens", difference=float(values["same"]), difference_unit=""),
    ]  # fmt: skip


def leak(bed: Bed, model: str) -> list[Check]:
    """Bytes by which memory grows over rounds of prefill and decode."""
    job = bed.job(bed.cell(model, "bf16"), ["throughput"])
    rounds = bed.setting.rounds
    values = bed.values(f"leak-{model}", f"{INSIDE}:leak", job=job, device=bed.device, rounds=rounds)
    bounds = bed.config.bounds.other
    return [
        Check(
            what=f"{model}, memory {'of the process' if key == 'process' else key} after {rounds} rounds",
            difference=grown, difference_unit="bytes", limit=bounds.process if key == "process" else bounds.leak,
        )
        for key, grown in values.items()
    ]  # fmt: skip
