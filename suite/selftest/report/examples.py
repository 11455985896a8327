"""What the tests of the reports share: verdicts of a run with one of each status, and its summary as text."""

from __future__ import annotations

import io
import re
from typing import Any

from quantgate.records import Status, Verdict
from quantgate.report import RunInfo
from quantgate.report.terminal import render_summary
from rich.console import Console

INFO = RunInfo(
    tier="smoke",
    seconds=580,
    machine="2 x Some CPU",
    environment={"torch": "2.13.0"},
    exit_status="1 (regression)",
    skipped=[("m/cuda/fp16", "needs CUDA")],
    commit="1a2b3c4",
)
CHANGED = ["llama_cpp_python 0.3.36 -> 0.3.37", "torch 2.12.0 -> 2.13.0"]
TAIL = [*(f"line {n}" for n in range(30)), "\x1b[31mlast\x1b[0m [bold]x[/bold]"]
LOG = "ended with signal 11" + "".join(f"\n    | {line}" for line in TAIL)


def verdict(cell: str, metric: str, status: Status = Status.PASS, **values: Any) -> Verdict:
    if "measured" in values and status == Status.PASS:
        values = {"baseline": values["measured"], "change": 0.0, "tolerance": 0.005} | values
    group = metric.partition("/")[0]
    command = f"pytest --tier smoke 'suite/test_{group}.py::test_{group}[{cell}]'"
    return Verdict(**{"cell": cell, "metric": metric, "status": status, "reproduce": command} | values)


def cell(name: str, perplexity: float) -> list[Verdict]:
    """A cell in which everything passes."""
    recorded: dict[str, Any] = {"baseline": None, "change": None, "tolerance": None}
    return [
        verdict(name, "perplexity", measured=perplexity),
        verdict(name, "perplexity/bits_per_byte", measured=perplexity / 28, unit="bits/byte"),
        verdict(name, "accuracy/arc/acc", measured=0.30, unit="fraction"),
        verdict(name, "accuracy/arc/acc_norm", measured=0.40, unit="fraction"),
        verdict(name, "accuracy/lambada/acc", measured=0.45, unit="fraction"),
        verdict(name, "memory/bits_per_weight", measured=6.21, unit="bits"),
        verdict(name, "memory/weight_bytes", measured=105_512_345, unit="bytes"),
        verdict(name, "memory/peak_resident", measured=290e6, unit="bytes"),
        verdict(name, "memory/peak_decode_anonymous", measured=200e6, unit="bytes"),
        verdict(name, "throughput/prefill", measured=232.4, unit="tokens/s", **recorded),
        verdict(name, "throughput/prefill_ratio", measured=1.1, unit="x"),
        verdict(name, "throughput/decode", measured=99.44, unit="tokens/s", **recorded),
        verdict(name, "divergence/kl_mean", measured=0.0123, unit="nats"),
    ]


def changed(verdicts: list[Verdict], metric: str, status: Status, **values: Any) -> list[Verdict]:
    return [
        v.model_copy(update={"status": status, **values}) if re.fullmatch(metric, v.metric) else v
        for v in verdicts
    ]


def example() -> list[Verdict]:
    """A run with one of each."""
    worse = {"change_low": 0.0891, "change_high": 0.0965, "environment": CHANGED, "text": "all 16 windows"}
    values = {"baseline": 24.81, "measured": 27.112, "change": 0.0928, **worse}
    regression = changed(
        cell("smollm2-135m/llamacpp/Q4_K_M", 24.81), "perplexity", Status.REGRESSION, **values
    )
    regression = changed(
        regression,
        "throughput/prefill_ratio",
        Status.REGRESSION,
        measured=0.31,
        change=-0.71,
        text="slower",
        confirmed="measured again: 0.32",
    )
    error = {"measured": None, "change": None, "text": LOG}
    better = {"baseline": 29.594, "measured": 28.1, "change": -0.0505}
    return [
        *cell("smollm2-135m/transformers/fp32", 23.762),
        *regression,
        *changed(cell("smollm2-135m/bitsandbytes/nf4-dq", 32.0), ".*", Status.ERROR, **error),
        *changed(cell("smollm2-135m/llamacpp/Q4_0", 28.1), "perplexity", Status.IMPROVEMENT, **better),
        *changed(cell("gemma/llamacpp/Q2_K", 31.0), "perplexity|memory.*", Status.NO_BASELINE, baseline=None),
        *changed(
            cell("gemma/llamacpp/F16", 21.0),
            "throughput/prefill",
            Status.NOT_COMPARABLE,
            text="machine a, not b",
        ),
        *changed(
            cell("gemma/llamacpp/Q8_0", 21.1),
            "throughput/decode",
            Status.INCONCLUSIVE,
            change=-0.2,
            text="too noisy",
        ),
    ]


def rendered(verdicts: list[Verdict], width: int = 140, info: RunInfo = INFO, **options: Any) -> str:
    file = io.StringIO()
    render_summary(verdicts, info, Console(file=file, width=width, **options))
    return file.getvalue()


def line_with(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if word in line)


def widest(text: str) -> int:
    """Length of the longest line that is no command: those are left to the terminal."""
    return max(len(line) for line in text.splitlines() if not line.startswith("    pytest "))


def slowed(by: float = -0.12) -> list[Verdict]:
    """Thirty cells on a machine that has become slow; one crashed."""
    slow = {
        "baseline": 100.0,
        "measured": 100.0 * (1 + by),
        "change": by,
        "tolerance": 0.1,
        "text": "worse by more than the tolerance (p = 1e-9)",
        "environment": ["governor performance -> powersave"],
    }
    cells = [f"m/{backend}/Q{n}_0" for backend in ("b", "c") for n in range(15)]
    slower = [verdict(name, "throughput/decode", Status.REGRESSION, **slow) for name in cells]
    return [*slower, *(v for name in cells for v in cell(name, 20.0) if v.metric == "perplexity")]
