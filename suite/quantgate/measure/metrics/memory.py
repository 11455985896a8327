"""Memory: weights as loaded, and the process's peak resident memory by phase."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from quantgate.backends.base import HasCache, Weights
from quantgate.errors import UnmeasurableError
from quantgate.measure.groups import Column, Group, exact, level
from quantgate.measure.session import Session
from quantgate.measure.watch import watched
from quantgate.records import QUANTIZED_SHARE, Declared, Metric, Record, Scalar


class Options(Record):
    """prompt, decode: tokens of the prefill and decode phases whose peaks are taken.
    processes: in how many the peaks are taken.
    cache: whether to measure the bytes of the cache; those of a scheme that states its types are measured anyway."""

    prompt: int = Field(default=512, ge=1)
    decode: int = Field(default=8, ge=1)
    processes: int = Field(default=3, ge=1)
    cache: bool = False


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return sizes of weights, file and cache, and the peaks of load, prefill and decode, as README.md defines them.

    Of a simulated scheme: what its weights would take, and neither a file nor peaks. A phase's file-backed share is in
    `raw`: memory-mapped weights count there, and are the kernel's to drop.
    """
    options = session.options("memory", Options)
    backend = session.backend
    weights = backend.weights()  # before the first forward pass: kernels may repack what was loaded
    source: dict[str, Scalar] = {"source": session.source_hash}
    if weights.says:
        session.notes["weights"] = weights.says
    if weights.simulated:
        return _sizes(weights, {**source, "simulated": True})
    backend.reserve(options.prompt + options.decode, 1)
    prompt = session.prompt(options.prompt)
    peaks = {"load": session.load_peak}
    with watched() as raw:
        with session.memory_phase() as peaks["prefill"]:
            backend.prefill(prompt)
        with session.memory_phase() as peaks["decode"]:
            backend.decode(session.prompt(options.decode))

    lengths: dict[str, Scalar] = {**source, "prompt": options.prompt, "decode": options.decode}
    phase_conditions = {**lengths, "kernels": session.kernels}
    if session.no_peaks:
        raise UnmeasurableError(
            f"peaks of memory cannot be measured here ({session.no_peaks}): mount /proc so that processes can write "
            "there, or leave these cases out (-m 'not memory')"
        )
    metrics = _sizes(weights, source)
    metrics["memory/file_bytes"] = exact(weights.file_bytes, source, unit="bytes")
    if isinstance(backend, HasCache) and (options.cache or backend.states_cache):
        if (size := backend.cache_bytes()) is None:
            why = "not measured, the library does not say exactly what its cache takes"
            session.notes["cache"] = f"memory/cache_bytes: {why}"
        else:
            metrics["memory/cache_bytes"] = exact(size, lengths, unit="bytes")
    for phase, peak in peaks.items():
        by_kind = {kind: [value] for kind, value in peak.as_dict().items()}
        metrics[f"memory/peak_{phase}_anonymous"] = level(
            peak.anonymous, phase_conditions, unit="bytes", raw=by_kind | raw
        )
    highest = {"resident": max(p.resident for p in peaks.values())}
    for kind in peaks["prefill"].device:
        highest[kind] = max(p.device.get(kind, 0) for p in peaks.values())
    for kind, value in highest.items():
        metrics[f"memory/peak_{kind}"] = level(value, phase_conditions, unit="bytes", raw=raw)
    return metrics


def _sizes(weights: Weights, conditions: dict[str, Scalar]) -> dict[str, Metric]:
    sizes = {
        "memory/weight_bytes": exact(weights.bytes, conditions, unit="bytes"),
        "memory/bits_per_weight": exact(weights.bits_per_weight, conditions, unit="bits"),
    }
    if (share := weights.quantized_share) is not None:
        sizes[QUANTIZED_SHARE] = exact(share, conditions, unit="fraction", better="higher")
    return sizes


GROUP = Group(
    options=Options,
    metrics={
        "memory/weight_bytes": Declared("exact"),
        "memory/bits_per_weight": Declared("exact"),
        QUANTIZED_SHARE: Declared("exact"),
        "memory/file_bytes": Declared("exact"),
        "memory/cache_bytes": Declared("exact"),
        "memory/peak_load_anonymous": Declared("level"),
        "memory/peak_prefill_anonymous": Declared("level"),
        "memory/peak_decode_anonymous": Declared("level"),
        "memory/peak_resident": Declared("level"),
        "memory/peak_cuda_allocated": Declared("level"),
        "memory/peak_cuda_reserved": Declared("level"),
    },
    measure=measure,
    family="memory",
    order=0,
    capabilities=frozenset({"weights"}),
    columns=(
        Column("bpw", "", 2, 1, 4, ("memory/bits_per_weight",)),
        Column("weights", "MB", 1, 5, 2, ("memory/weight_bytes",), ("memory/file_bytes",)),
        Column("peak", "MB", 0, 6, 1, ("memory/peak_resident",), ("memory/peak_*",)),
    ),
)
