"""Faults of memory: the results are right, but take more memory. Compared with clean processes on this machine."""

from __future__ import annotations

from typing import Any

from quantgate.proofs.faults.registry import fault, loaded, wrap

CELL = "llamacpp/Q4_K_M"
SIZED: dict[str, Any] = {"groups": ("memory",), "beside_clean": True}

_kept: list[Any] = []


def filled(megabytes: float) -> Any:
    """An array whose pages are in memory."""
    import numpy as np

    return np.ones(int(megabytes * 2**20), np.uint8)


@fault("memory leaked per call: 8 MB at each decoded token", CELL, "memory/peak_decode_anonymous", **SIZED)
def leak_per_call() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        for token in ids:
            _kept.append(filled(8))
            original(backend, [token])


@fault("1 MB leaked in 100 decoded tokens", CELL, "decoding/growth", groups=("decoding",))
def slow_leak() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        for token in ids:
            _kept.append(filled(0.01))
            original(backend, [token])


@fault("the same leak in transformers", "transformers/fp32", "decoding/growth", groups=("decoding",))
def slow_leak_in_transformers() -> None:
    from quantgate.backends.runtime.transformers import Transformers

    @wrap(Transformers, "_step")
    def step(original: Any, backend: Any, ids: Any) -> None:
        _kept.append(filled(0.01))
        original(backend, ids)


@fault("a 64 MB buffer kept", CELL, "memory/peak_prefill_anonymous", "memory/peak_resident", **SIZED)
def buffer_kept() -> None:
    loaded(lambda backend: _kept.append(filled(64)))


@fault("memory-mapping turned off", "llamacpp/Q8_0", "memory/peak_load_anonymous", **SIZED)
def no_memory_mapping() -> None:
    import llama_cpp

    @wrap(llama_cpp, "llama_model_default_params")
    def defaults(original: Any) -> Any:
        parameters = original()
        parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        return parameters


@fault("a cache for 8,192 tokens where 264 are needed", CELL, "memory/peak_prefill_anonymous", **SIZED)
def oversized_cache() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "reserve")
    def reserve(original: Any, backend: Any, tokens: int, sequences: int) -> None:
        original(backend, max(tokens, 8192), sequences)


@fault("logits kept of the whole prompt", "transformers/fp32", "memory/peak_prefill_anonymous", **SIZED)
def logits_of_whole_prompt() -> None:
    from quantgate.backends.runtime.transformers import Transformers

    @wrap(Transformers, "_step")
    def step(original: Any, backend: Any, ids: Any) -> None:
        model = backend._model
        backend._model = lambda **arguments: model(**{**arguments, "logits_to_keep": 0})
        try:
            original(backend, ids)
        finally:
            backend._model = model
