"""What the end-to-end tests of the gate share: names of cells and cases, a broken quantizer, a run's processes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from quantgate.cache.kept import keep
from quantgate.machine.environment import MEASURING, code_hash
from quantgate.records import Measurement, Metric, Status
from quantgate.report import RunInfo

from selftest.forked import Forked
from selftest.plugin.foreign import PLAIN
from selftest.project import REPO, Project, Result

F16, Q4 = "tiny/llamacpp/F16", "tiny/llamacpp/Q4_K_M"
CASES = [f"{case}[{cell}]" for cell in (F16, Q4) for case in ("memory", "perplexity", "tokenizer")]


def break_quantizer(project: Project, ftype: str = "Q2_K") -> None:
    """Q4_K_M silently makes something else."""
    project.matrix["backends"] = {"llamacpp": {"schemes": {"Q4_K_M": {"bits": 4, "ftype": ftype}}}}


def change_weights(cache: Path, scheme: str, tensor: str, change: Callable[[Any], object]) -> None:
    """Change a tensor of the tiny model in a scheme, in a cache of the test's own."""
    import gguf

    for checkpoint in (cache / "checkpoints").glob(f"tiny-{scheme}-*.gguf"):  # other tests leave some, too
        weights = {one.name: one.data for one in gguf.GGUFReader(checkpoint, "r+").tensors}
        if tensor in weights:
            change(weights[tensor])
        del weights  # writes the mapped file
        keep(checkpoint)


def exact(measurement: Measurement) -> dict[str, Metric]:
    """The metrics that two runs must agree on to the last digit."""
    return {n: m for n, m in measurement.metrics.items() if m.kind in ("paired", "exact")}


def check_environment(project: Project) -> None:
    """The report of the latest run has the environment of every cell."""
    report = json.loads((project.folder / "report/report.json").read_text())
    info = RunInfo.model_validate(report["info"])
    assert info.environment["quantgate code"] == code_hash(*MEASURING)
    assert info.environment["llama.cpp"]
    assert "quantgate code" in (project.folder / "report/report.md").read_text()


def statuses(result: Result, *cells: str) -> set[Status]:
    return {v.status for v in result.verdicts if v.cell in cells}


def shell(project: Project, command: str) -> subprocess.CompletedProcess[str]:
    """Run the command that a message names."""
    return subprocess.run(
        f"{command} {shlex.join(PLAIN)}",
        shell=True,
        cwd=REPO,
        env=project.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def children(pid: int) -> list[int]:
    """Processes that a process has started; psutil looks at every process of the machine to tell, again and again."""
    with suppress(OSError):  # they come and go
        files = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(number) for file in files for number in file.read_text().split()]
    return []


def worker(run: Forked, cell: str) -> psutil.Process:
    """The process that measures `cell`, as soon as there is one: forked by a server, under a warden of pytest's. It is
    stopped, so that it does not end before it is dealt with: `resume()`."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for server in (server for warden in children(run.pid) for server in children(warden)):
            for pid in children(server):
                with suppress(psutil.Error, OSError):
                    # Only it leads a session: not what the server starts to describe its environment.
                    log = str(Path(f"/proc/{pid}/fd/1").readlink())
                    if os.getsid(pid) == pid and log.endswith(f"/{cell}.log"):
                        child = psutil.Process(pid)
                        child.suspend()
                        while (status := child.status()) not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                            time.sleep(0.001)
                        if status == psutil.STATUS_STOPPED:
                            return child
        time.sleep(0.005)
    raise AssertionError(f"no process for {cell}")


def worker_left(project: Project) -> list[psutil.Process]:
    """Measuring processes of this project that are still there."""
    spy = str(project.folder / "spy")
    processes = psutil.process_iter(["environ"])
    return [p for p in processes if (p.info["environ"] or {}).get("QUANTGATE_SPY") == spy]
