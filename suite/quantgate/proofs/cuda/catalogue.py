"""What is checked, in the order in which time is given: what nothing else can show comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from quantgate.proofs.checks import Check, layout
from quantgate.proofs.cuda import resources, rows, schemes, timed
from quantgate.proofs.cuda.bed import Bed
from quantgate.proofs.cuda.config import FORMATS

LAYOUT = layout("check", "device", "other")


@dataclass(frozen=True)
class Entry:
    """One row. compare: raises NotTriedError, or the error of what it runs."""

    name: str
    text: str
    compare: Callable[[Bed], list[Check]]


def catalogue() -> list[Entry]:
    """Return every row."""
    per_format: dict[str, tuple[str, Callable[..., list[Check]]]] = {
        "likelihood": ("choices against fp32 on the CPU", rows.likelihood),
        "scoring": ("shared against plain scoring, the handshake's bound", rows.scoring),
        "quality": ("perplexity and divergence against fp32 on the CPU", rows.quality),
        "decoding": ("token by token against one pass", rows.decoding),
        "determinism": ("two processes of a cell", rows.determinism),
    }
    entries = [
        Entry("prepare", "models of random weights, texts and tasks", rows.prepared),
        Entry("reference", "what is held against: pocket models on the CPU", rows.references),
    ]
    for kind, (text, compare) in per_format.items():
        entries += [
            Entry(f"{kind}/{name}", f"{text}, {name}", partial(compare, name=name)) for name in FORMATS
        ]
    return [
        *entries,
        Entry("memory/weights", "bytes of the weights against a count", resources.weights),
        Entry("memory/peaks", "peaks of load, prefill and decode against a count by hand", resources.peaks),
        Entry("memory/reset", "the peak of a phase is not that of the one before", resources.reset),
        Entry("process/second-cell", "one server forks a cell after a cell", resources.second_cell),
        Entry("process/out-of-memory", "an error of its cell; the run goes on", resources.out_of_memory),
        Entry("time/events", "the suite's clock against CUDA events", timed.events),
        Entry("time/bandwidth", "a decoding step as a share of the memory's limit", timed.bandwidth),
        Entry("leak/llama", "prefill and decode, again and again", partial(timed.leak, model="llama")),
        Entry("leak/hybrid", "prefill and decode, again and again", partial(timed.leak, model="hybrid")),
        *(
            Entry(
                f"{backend}/{name}", "KL and share of a quantized scheme",
                partial(schemes.quantized, backend=backend.replace("torchao", "transformers"), name=scheme),
            )
            for backend, name, scheme in (
                ("bitsandbytes", "int8", "int8"), ("bitsandbytes", "nf4", "nf4"),
                ("torchao", "int8", "torchao-int8"), ("torchao", "fp8", "torchao-fp8"),
            )
        ),
        Entry("llamacpp/offload", "layers of llama.cpp on the device", schemes.offload),
        Entry(
            "time/graph", "a decoding step recorded as a CUDA graph",
            partial(timed.faster, name="graph"),
        ),
        Entry(
            "time/compiled", "a decoding step compiled by torch",
            partial(timed.faster, name="compiled"),
        ),
    ]  # fmt: skip
