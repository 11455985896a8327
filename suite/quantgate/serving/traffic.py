"""Traffic for a server: a closed loop of streamed requests, some at once, timed by a process that does nothing else.

`python -m quantgate.serving.traffic` reads a `Job` from its input and writes lines of JSON: how many requests are
answered, and what each `Level` was. Its last line is `{"error": ...}` where a request failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from quantgate.errors import MeasurementError, QuantgateError
from quantgate.paths import import_root
from quantgate.processes.warden import end_with_parent
from quantgate.records import Record
from quantgate.serving.client import Client
from quantgate.serving.dialect import Dialect, Vocabulary
from quantgate.serving.dialects import DIALECTS
from quantgate.serving.level import Level


class Job(Record):
    """url, dialect, model, key_variable, timeout: as the scheme has them. levels: by number of requests at once, the
    prompts. tokens: written after each. Before each level, `concurrency` requests that do not count warm it up; they
    are its first prompts."""

    url: str
    dialect: str
    model: str = ""
    key_variable: str = ""
    timeout: float = 120.0
    levels: list[tuple[int, list[list[int]]]]
    tokens: int


@dataclass(frozen=True)
class Timed:
    """One answered request. end: by `time.perf_counter`."""

    first: float
    whole: float
    end: float


def run_traffic(job: Job, progress: Callable[[int], None]) -> list[Level]:
    """Have a process of its own send the traffic; return what each level was. progress: called with the number of
    requests that are answered. Raises MeasurementError."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(import_root())},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    levels: list[Level] = []
    try:
        process.stdin.write(job.model_dump_json())
        process.stdin.close()
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if "error" in message:
                raise MeasurementError(message["error"])
            if "level" in message:
                levels.append(Level.model_validate(message["level"]))
            else:
                progress(message["answered"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if len(levels) != len(job.levels):
        raise MeasurementError("the client of the traffic has ended before all requests were answered")
    return levels


def send(job: Job) -> Iterator[Level | int]:
    """Send the traffic; yield the number of answered requests from time to time, and each level when it is done."""
    client = Client(job.url, key=os.environ.get(job.key_variable, ""), timeout=job.timeout, model=job.model)
    dialect = DIALECTS[job.dialect](client, Vocabulary(0))
    answered = 0
    for concurrency, prompts in job.levels:
        with ThreadPoolExecutor(concurrency) as pool:
            warm, counted = prompts[:concurrency], prompts[concurrency:]
            list(pool.map(lambda prompt: timed(dialect, prompt, job.tokens), warm))
            cpu, begin = time.process_time(), time.perf_counter()
            done: list[Timed] = []
            for one in pool.map(lambda prompt: timed(dialect, prompt, job.tokens), counted):
                done.append(one)
                answered += 1
                yield answered
        yield Level(
            concurrency=concurrency,
            tokens=job.tokens,
            seconds=max(one.end for one in done) - begin,
            cpu=time.process_time() - cpu,
            first=[one.first for one in done],
            whole=[one.whole for one in done],
        )


def timed(dialect: Dialect, prompt: Sequence[int], tokens: int) -> Timed:
    """Stream one answer. Raises MeasurementError where it has another number of tokens."""
    first = whole = 0.0
    count = 0
    for event, new in dialect.stream(prompt, tokens):
        if new and not count:
            first = event.seconds
        if new:
            whole = event.seconds
        count += new
    if count != tokens:
        raise MeasurementError(
            f"{tokens} tokens were to be written, and the server streamed {count}: it ends at a token of its own "
            "choice, or does not say how many tokens an event has"
        )
    return Timed(first, whole, time.perf_counter())


def main() -> int:
    """Send the traffic that the input describes."""
    end_with_parent()
    try:
        for done in send(Job.model_validate_json(sys.stdin.read())):
            message = {"level": done.model_dump()} if isinstance(done, Level) else {"answered": done}
            print(json.dumps(message), flush=True)
    except QuantgateError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
