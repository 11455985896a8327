"""Which cells a starter tier has: those that this machine can run, and the references that they are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quantgate.backends.methods import METHODS
from quantgate.backends.spec import backends
from quantgate.checkpoint.checks import describe, is_same_bitsandbytes
from quantgate.config.matrix import BackendEntry, Scheme
from quantgate.config.sentences import allowed
from quantgate.errors import AssetError
from quantgate.init.facts import Facts
from quantgate.machine.environment import cuda_devices
from quantgate.machine.quota import memory_bytes

FOLDER = ("transformers/fp32", "bitsandbytes/int8", "bitsandbytes/nf4")
GGUF = ("llamacpp/F16", "llamacpp/Q8_0", "llamacpp/Q4_K_M")
CUDA = ("transformers/cuda-bf16", "bitsandbytes/cuda-int8", "bitsandbytes/cuda-nf4")
CUDA_GGUF = ("llamacpp/cuda-F16", "llamacpp/cuda-Q8_0", "llamacpp/cuda-Q4_K_M")
BLOCK = 64
"""Weights of a row that bitsandbytes quantizes together; its kernels for CPUs split no row elsewhere."""
SHIPPED = "shipped"
"""Name of a scheme for a checkpoint that no scheme of matrix.toml is for."""


@dataclass
class Chosen:
    """cells: `backend/scheme`, references first. as_is: the cell of the checkpoint as it is; empty: there is none.
    scheme: what has to be defined for it, as TOML. skipped: why this machine leaves schemes out, by `backend/scheme`.
    """

    cells: list[str] = field(default_factory=list)
    as_is: str = ""
    scheme: str = ""
    skipped: dict[str, str] = field(default_factory=dict)


def choose(facts: Facts, reference: Facts | None, schemes: dict[str, BackendEntry]) -> Chosen:
    """Choose cells for a checkpoint. reference: the full-precision checkpoint that a quantized one is compared with.
    Raises AssetError for a quantization that no backend loads."""
    chosen = Chosen()
    if not facts.quantized:
        names = GGUF if facts.gguf else FOLDER + GGUF
        if cuda_devices():
            names = CUDA_GGUF if facts.gguf else CUDA + CUDA_GGUF
        _add(chosen, names, schemes, facts)
        return chosen
    if facts.gguf:
        chosen.as_is, chosen.scheme = _gguf_scheme(facts, schemes["llamacpp"])
    else:
        chosen.as_is, chosen.scheme = _folder_scheme(facts, schemes)
    if reference is not None or facts.gguf:
        backend, _, name = chosen.as_is.partition("/")
        made = schemes[backend].schemes.get(name)
        _add(
            chosen,
            [made.reference if made and made.reference else schemes[backend].reference],
            schemes,
            reference or facts,
        )
    chosen.cells.append(chosen.as_is)
    return chosen


def _add(chosen: Chosen, names: Iterable[str], schemes: dict[str, BackendEntry], facts: Facts) -> None:
    """Add what this machine can run, and of that what has its reference. facts: of the full-precision checkpoint."""
    for name in names:
        backend, _, scheme = name.partition("/")
        entry = schemes[backend].schemes[scheme]
        if reason := _missing(backend, entry) or _unfit(entry, facts):
            chosen.skipped[name] = reason
            continue
        reference = entry.reference or schemes[backend].reference
        if reference in (name, *chosen.cells):
            chosen.cells.append(name)
        else:
            chosen.skipped[name] = f"is compared with {reference}, which is not here"


def _missing(backend: str, scheme: Scheme) -> str:
    if scheme.device == "cuda" and not cuda_devices():
        return "needs a CUDA device"
    return backends()[backend].missing(scheme.scheme_options)


def _unfit(scheme: Scheme, facts: Facts) -> str:
    """Say why a scheme does not go with the model's size and this machine's memory; empty: it does."""
    if scheme.device == "cuda":
        return ""
    if scheme.scheme_options.get("load_in_4bit") and facts.width % BLOCK:
        return f"needs rows of a multiple of {BLOCK} weights on a CPU, the model's are multiples of {facts.width}"
    size, memory = facts.parameters * (scheme.bits or 0) / 8, memory_bytes()
    if size <= memory:
        return ""
    return f"needs {size / 1e9:,.0f} GB for its weights, this machine has {memory / 1e9:,.0f}"


def _gguf_scheme(facts: Facts, entry: BackendEntry) -> tuple[str, str]:
    plain = {"bits", "ftype", "device"}
    for name, scheme in entry.schemes.items():
        options = scheme.scheme_options
        if options.get("ftype") == facts.ftype and scheme.device == "cpu" and set(options) <= plain:
            return f"llamacpp/{name}", ""
    return f"llamacpp/{SHIPPED}", "{ as_is = true }"


def _folder_scheme(facts: Facts, schemes: dict[str, BackendEntry]) -> tuple[str, str]:
    stored = facts.quantization
    method = str(stored.get("quant_method", ""))
    for name, scheme in schemes["bitsandbytes"].schemes.items():
        if scheme.device == "cpu" and is_same_bitsandbytes(stored, scheme.scheme_options):
            return f"bitsandbytes/{name}", ""
    if method not in METHODS:
        raise AssetError(
            f"{facts.name}: its weights are quantized ({describe(stored)}), by a method that no backend loads. "
            f"{allowed(method, METHODS)}"
        )
    cuda = METHODS[method].cuda
    for name, scheme in schemes["transformers"].schemes.items():
        quantization = scheme.scheme_options.get("quantization") or {}
        if scheme.as_is and quantization == {"method": method} and (scheme.device == "cuda") == cuda:
            return f"transformers/{name}", ""
    device = ', device = "cuda", reference = "transformers/cuda-bf16"' if cuda else ""
    dtype = "bfloat16" if cuda else "float32"
    scheme_text = f'{{ as_is = true, dtype = "{dtype}"{device}, quantization = {{ method = "{method}" }} }}'
    return f"transformers/{SHIPPED}", scheme_text
