"""Run llama.cpp's tools, and write their command lines."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.errors import MeasurementError
from quantgate.proofs.peers.parse import last_lines
from quantgate.supply.checkpoints import Report
from quantgate.supply.encoder import read_text

TIME_LIMIT = 3600.0
"""Seconds that one run of a tool may take."""


@dataclass(frozen=True)
class ToolRun:
    """Output of a finished tool; seconds: wall time of the process."""

    output: str
    log: str
    seconds: float


@dataclass(frozen=True)
class Tools:
    """The programs in `folder`."""

    folder: Path
    threads: int
    logs: Path

    def run(self, tool: str, arguments: Sequence[str], name: str) -> ToolRun:
        """Run a tool, keeping its output and log in files called `name`. Raises MeasurementError where it fails."""
        self.logs.mkdir(parents=True, exist_ok=True)
        output, log = self.logs / f"{name}.out", self.logs / f"{name}.log"
        # The suite's processes set it, too.
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        with output.open("wb") as out, log.open("wb") as err:
            begin = time.perf_counter()
            try:
                status = subprocess.run(
                    [str(self.folder / tool), *arguments, "--threads", str(self.threads)],
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, timeout=TIME_LIMIT,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                raise MeasurementError(f"{tool} took longer than {TIME_LIMIT:g} s; its log: {log}") from None
            seconds = time.perf_counter() - begin
        ran = ToolRun(output.read_text(errors="replace"), log.read_text(errors="replace"), seconds)
        if status != 0:
            raise MeasurementError(
                f"{tool} ended with exit status {status}{last_lines(ran.log)}\n    full log: {log}"
            )
        return ran


def perplexity(model: Path, text: Path, n_ctx: int, windows: int) -> list[str]:
    """Return arguments of llama-perplexity for the first windows, by its default protocol."""
    return ["--model", str(model), "--file", str(text), "--ctx-size", str(n_ctx), "--chunks", str(windows)]


def save_logits(model: Path, text: Path, n_ctx: int, windows: int, logits: Path) -> list[str]:
    """Return arguments of llama-perplexity that write the reference's log-probabilities to a file."""
    return [*perplexity(model, text, n_ctx, windows), "--save-all-logits", str(logits)]


def divergence(model: Path, n_ctx: int, logits: Path) -> list[str]:
    """Return arguments of llama-perplexity for the divergence from a file of log-probabilities and tokens."""
    return [
        "--model", str(model), "--ctx-size", str(n_ctx),
        "--kl-divergence", "--kl-divergence-base", str(logits),
    ]  # fmt: skip


def bench(model: Path, prompt: int, decode: int, rounds: int) -> list[str]:
    """Return arguments of llama-bench for one test of prefill and one of decoding."""
    return [
        "--model", str(model), "--n-prompt", str(prompt), "--n-gen", str(decode),
        "--repetitions", str(rounds), "--output", "json",
    ]  # fmt: skip


def plain_text(output: Path, *, report: Report, spec: dict[str, object], tokens: int) -> None:
    """Write the text that a tool reads: only as much as `tokens` tokens can take, because the tool tokenizes all of it,
    and that time counts."""
    report("write text", 0, 1)
    output.write_bytes(
        read_text(spec)[: 16 * tokens].encode()
    )  # as much as `quantgate.supply.workload` looks at
