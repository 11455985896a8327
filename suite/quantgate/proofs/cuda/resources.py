"""The rows on memory and processes: peaks against a count by hand, a cell after a cell, memory that runs out."""

from __future__ import annotations

import json
from pathlib import Path

from quantgate.checkpoint.contents import weight_files
from quantgate.errors import MeasurementError
from quantgate.measure.metrics import memory
from quantgate.proofs.checks import Check
from quantgate.proofs.cuda.bed import Bed, NotTriedError
from quantgate.proofs.cuda.counts import Llama
from quantgate.proofs.cuda.rows import random_weights


def weights(bed: Bed) -> list[Check]:
    """Bytes of the weights: of the Llama by its configuration, of the hybrid by the tensors of its file."""
    by_hand = {
        "llama": Llama.of(bed.setting.models["llama"], 2).weights,
        "hybrid": _tensors(bed.prepared / "models" / "hybrid"),
    }
    checks = []
    for model, expected in by_hand.items():
        ours = random_weights(bed, model).metrics["memory/weight_bytes"].value
        checks.append(
            Check(
                what=f"{model}, bf16", ours=ours, peer=expected, unit="bytes", difference=abs(ours - expected),
                difference_unit="bytes", limit=0,
            )
        )  # fmt: skip
    return checks


def _tensors(checkpoint: Path) -> int:
    """Return the bytes of the tensors of safetensors: the header has eight bytes for its length."""
    total = 0
    for file in weight_files(checkpoint):
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        total += max(one["data_offsets"][1] for name, one in header.items() if name != "__metadata__")
    return total


def _peaks(bed: Bed, kind: str) -> dict[str, int]:
    """Return the peak of each phase of the Llama, by kind of memory of the device."""
    if bed.device != "cuda":
        raise NotTriedError("the CPU has no allocator that counts its peak")
    metrics = random_weights(bed, "llama").metrics
    return {
        phase: metrics[f"memory/peak_{phase}_anonymous"].raw[kind][0]
        for phase in ("load", "prefill", "decode")
    }


def _by_hand(bed: Bed) -> dict[str, int]:
    options = bed.setting.tier["memory"]
    return Llama.of(bed.setting.models["llama"], 2).peaks(options["prompt"], options["decode"])


def peaks(bed: Bed) -> list[Check]:
    """Peak memory of the Llama by phase against a count by hand."""
    checks = []
    expected, reserved = _by_hand(bed), _peaks(bed, "cuda_reserved")
    for phase, ours in _peaks(bed, "cuda_allocated").items():
        checks.append(
            Check(
                what=f"{phase}, allocated", ours=ours, peer=expected[phase], unit="bytes",
                difference=abs(ours / expected[phase] - 1), difference_unit="relative",
                limit=bed.config.bounds.other.peak,
            )
        )  # fmt: skip
        checks.append(
            Check(
                what=f"{phase}, reserved over allocated", ours=reserved[phase], peer=ours, unit="bytes",
                difference=reserved[phase] / ours, difference_unit="x",
            )
        )  # fmt: skip
    return checks


def reset(bed: Bed) -> list[Check]:
    """The peak of decoding is without the activations of the prefill before it."""
    measured, expected = _peaks(bed, "cuda_allocated"), _by_hand(bed)
    fell = measured["prefill"] - measured["decode"]
    by_hand = expected["prefill"] - expected["decode"]
    return [
        Check(
            what="fall of the peak from prefill to decode", ours=fell, peer=by_hand, unit="bytes",
            difference=fell / by_hand, difference_unit="x", limit=0.5, kind="at least",
        )
    ]  # fmt: skip


def second_cell(bed: Bed) -> list[Check]:
    """A server that has not looked for a device forks a cell after a cell."""
    model = bed.config.pocket[0]
    cells = [bed.cell(model, name) for name in ("fp32", "bf16")]
    processes = set()
    for cell in cells:
        bed.measure(cell, ("perplexity",), "second cell")
        processes.add(bed.server_process)
    imported = bed.bench.modules(cells[0])
    return [
        Check(what="servers of two cells, one after the other", difference=len(processes), difference_unit="", limit=1),
        Check(
            what="modules imported before the fork", difference=len(imported), difference_unit="",
            limit=0 if bed.device == "cuda" else None,
        ),
    ]  # fmt: skip


def out_of_memory(bed: Bed) -> list[Check]:
    """A cell that asks for a cache larger than any memory is an error that says so; the next cell is measured."""
    cell = bed.cell("llama", "bf16")
    text = ""
    try:
        bed.measure_with(cell, ("memory",), {"memory": memory.Options(prompt=2, decode=10**12)})
    except MeasurementError as error:
        text = str(error)
    after = bed.measure(cell, ("perplexity",), "after one out of memory")
    first = text.partition("\n")[0]
    return [
        Check(
            what=f"error: {first[:160] or 'none'}", difference=float("memory" in first), difference_unit="", limit=1,
            kind="at least",
        ),
        Check(
            what="cells measured after it", difference=float(after.complete), difference_unit="items", limit=1,
            kind="at least",
        ),
    ]  # fmt: skip
