"""A pytest plugin for the runs that the tests start: notes what a run does, from outside of its code.

In the folder that QUANTGATE_SPY names: `started`, the job file of each process that was asked for, for a cell or
a preparation; `parent.json`, modules and peak memory of the pytest process, its CPU time since the start.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ["QUANTGATE_SPY"])


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "os.rename" and str(arguments[1]).endswith("~job.json"):
        with (FOLDER / "started").open("a") as file:
            file.write(f"{arguments[1]}\n")


sys.addaudithook(_note)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    facts = {
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "peak_mb": peak / 1000,
        "cpu_seconds": time.process_time(),
    }
    (FOLDER / "parent.json").write_text(json.dumps(facts))
