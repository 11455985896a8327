"""The rows on schemes that libraries may lack: quantized ones, and layers of llama.cpp on the device."""

from __future__ import annotations

from quantgate.proofs.checks import Check
from quantgate.proofs.cuda.bed import GGUF, Bed
from quantgate.proofs.cuda.rows import pocket
from quantgate.records import QUANTIZED_SHARE


def quantized(bed: Bed, backend: str, name: str) -> list[Check]:
    """A quantized scheme on the device: KL from fp32 on the CPU as large as the same scheme's on the CPU and that of
    bf16, in which the device computes, together; and what of the weights is quantized."""
    model, requests = bed.config.pocket[0], ("divergence", "memory", "perplexity")
    cell = bed.cell(model, name, backend)
    bed.check(cell)
    floats = pocket(bed, model, "bf16")[0]
    ours = bed.measure(cell, requests).metrics
    theirs = bed.measure(bed.cell_of_cpu(model, f"{backend}/{name}"), requests).metrics
    kl = "divergence/kl_mean"
    expected = theirs[kl].value + floats.metrics[kl].value
    return [
        Check(
            what=f"{model}, mean KL divergence", ours=ours[kl].value, peer=expected, unit="nats",
            difference=ours[kl].value / expected, difference_unit="x", limit=bed.config.bounds.quantized[name],
        ),
        Check(
            what=f"{model}, quantized share", difference=ours[QUANTIZED_SHARE].value, difference_unit="fraction",
            limit=cell.minimum_share, kind="at least",
        ),
        Check(
            what=f"{model}, perplexity", ours=ours["perplexity"].value, peer=theirs["perplexity"].value,
            difference=abs(ours["perplexity"].value / theirs["perplexity"].value - 1), difference_unit="relative",
        ),
    ]  # fmt: skip


def offload(bed: Bed) -> list[Check]:
    """llama.cpp with its layers on the device: perplexity of a GGUF against the CPU."""
    ours = bed.measure(bed.cell(GGUF, "Q4_K_M", "llamacpp"), ("perplexity",)).metrics["perplexity"].value
    cell = bed.cell_of_cpu(GGUF, "llamacpp/Q4_K_M")
    theirs = bed.measure(cell, ("perplexity",)).metrics["perplexity"].value
    return [
        Check(
            what=f"{GGUF} Q4_K_M, perplexity", ours=ours, peer=theirs, difference=abs(ours / theirs - 1),
            difference_unit="relative", limit=bed.config.bounds.bf16.perplexity,
        )
    ]  # fmt: skip
