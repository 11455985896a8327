"""Faults of speed: the results are right, but come later. Compared with clean processes on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from quantgate.proofs.faults.registry import fault, loading, wrap

CELL = "llamacpp/Q4_K_M"
TIMED: dict[str, Any] = {"groups": ("throughput",), "beside_clean": True}


@fault("2 ms sleep per decoded token", CELL, "throughput/decode", **TIMED)
def sleep_per_token() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "decode")
    def decode(original: Any, backend: Any, ids: Any) -> None:
        for token in ids:
            time.sleep(0.002)
            original(backend, [token])


@fault("half the threads", CELL, "throughput/prefill", **TIMED)
def half_the_threads() -> None:
    loading(lambda path, options, threads: (path, options, max(1, threads // 2)))


@fault("prefill computed twice", CELL, "throughput/prefill", "throughput/time_to_first_token", **TIMED)
def prefill_twice() -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    @wrap(LlamaCpp, "prefill")
    def prefill(original: Any, backend: Any, ids: Any) -> None:
        original(backend, ids)
        original(backend, ids)


@fault("weights not repacked for this processor's kernels", "llamacpp/Q4_0", "throughput/prefill", **TIMED)
def kernels_without_repacking() -> None:
    import llama_cpp

    @wrap(llama_cpp, "llama_model_default_params")
    def defaults(original: Any) -> Any:
        parameters = original()
        parameters.use_extra_bufts = False
        return parameters


@fault("a slow load (one second more)", CELL, "throughput/load", **TIMED)
def slow_load() -> None:
    def wait(path: Path, options: dict[str, Any], threads: int) -> tuple[Path, dict[str, Any], int]:
        time.sleep(1)
        return path, options, threads

    loading(wait)
