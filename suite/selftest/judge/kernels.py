"""Ratios and peaks on several kinds of kernels, made up."""

from __future__ import annotations

from quantgate.records import Metric

CELL, TIER = "m/bitsandbytes/nf4", "smoke"
WIDE, MIDDLE, NARROW = "AVX512 avx2 avx512f", "AVX2 avx2 avx512f", "DEFAULT"
RATIO, PEAK = "throughput/decode_ratio", "memory/peak_resident"


def ratio(value: float, kernels: str = WIDE, prompt: int = 256) -> Metric:
    return Metric(
        kind="ratio",
        value=value,
        unit="x",
        better="higher",
        samples=[value * 0.99, value, value * 1.01],
        conditions={"kernels": kernels, "prompt": prompt},
    )


def peak(value: float, kernels: str = WIDE) -> Metric:
    samples = [value * 0.999, value, value * 1.001]
    conditions = {"kernels": kernels}
    return Metric(
        kind="level", value=value, unit="bytes", better="lower", samples=samples, conditions=conditions
    )
