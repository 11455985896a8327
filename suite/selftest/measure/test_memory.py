"""Memory: sizes, and the peak of each phase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantgate.measure.metrics import memory

from selftest.measure.fakes import MB, Bigrams, Here, hold_memory

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_memory_has_sizes_exactly_and_the_peak_of_each_phase(here: Here) -> None:
    metrics = here.measure(memory, prompt=32, decode=4)
    exact = {name: m.value for name, m in metrics.items() if m.kind == "exact"}
    assert exact == {"memory/weight_bytes": 1000, "memory/bits_per_weight": 5.0, "memory/file_bytes": 1234}
    levels = {name.partition("/")[2] for name, m in metrics.items() if m.kind == "level"}
    assert levels == {
        f"peak_{p}" for p in ("load_anonymous", "prefill_anonymous", "decode_anonymous", "resident")
    }
    conditions = {"source": "w1", "prompt": 32, "decode": 4, "kernels": "by hand"}
    for metric in metrics.values():
        assert metric.conditions == ({"source": "w1"} if metric.kind == "exact" else conditions)
        assert metric.better == "lower"
        assert metric.value > 0
    calls = [call for call in here.backend.calls if call != "reset"]
    assert calls[:3] == ["weights", ("reserve", 36, 1), ("prefill", 32)]
    assert calls[3] == ("decode", 4)


def test_each_phase_has_its_own_peak(tmp_path: Path) -> None:
    class Hungry(Bigrams):
        def prefill(self, ids: Sequence[int]) -> None:
            hold_memory()
            super().prefill(ids)

    metrics = Here(tmp_path, Hungry()).measure(memory, prompt=32, decode=4)
    prefill, decode = (metrics[f"memory/peak_{phase}_anonymous"] for phase in ("prefill", "decode"))
    assert prefill.value - decode.value > 48 * MB
    assert prefill.raw["anonymous"] == prefill.samples == [prefill.value]
    assert metrics["memory/peak_resident"].samples == max(prefill.raw["resident"], decode.raw["resident"])


def test_the_peaks_of_an_accelerator_are_metrics_where_there_is_one(tmp_path: Path) -> None:
    class Accelerated(Bigrams):
        def device_peak_bytes(self) -> dict[str, int]:
            resets = self.calls.count("reset")
            return {"cuda_allocated": [100, 900, 500][resets], "cuda_reserved": 1000}

    metrics = Here(tmp_path, Accelerated()).measure(memory, prompt=32, decode=4)
    assert metrics["memory/peak_cuda_allocated"].value == 900
    assert metrics["memory/peak_cuda_reserved"].value == 1000
    assert metrics["memory/peak_load_anonymous"].raw["cuda_allocated"] == [100]
