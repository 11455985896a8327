"""Two rules that other projects gate with, applied to the same replays."""

from __future__ import annotations

from quantgate.records import Metric

RELATIVE = 0.08
LIMIT = 20.0


def beyond_share(measured: Metric, baseline: Metric) -> bool:
    """Red where the value is worse than the stored one by more than a fixed share of it, 0.08: how vLLM's
    lm-eval-harness job compares a score, here in the direction of a loss only."""
    sign = 1 if measured.better == "lower" else -1
    return sign * (measured.value - baseline.value) > RELATIVE * abs(baseline.value)


def beyond_limit(measured: Metric) -> bool:
    """Red where the value is above a constant, 20: how llama.cpp's ci/run.sh gates perplexity, whatever the
    model, the text and the format."""
    return measured.value > LIMIT
