"""What is measured in one process that holds a loaded model: time by two clocks, bandwidth, leaks, compiled steps."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from quantgate.backends.spec import backends
from quantgate.jobs import Job
from quantgate.measure.groups import group_of
from quantgate.measure.session import Session
from quantgate.measure.watch import held_memory

Report = Callable[[str, float, float], None]

COPIED = {"cuda": 2**31, "cpu": 2**26}
"""Bytes of the tensor whose copies give the bandwidth."""
COPIES = 10
WARM_UP = 10
"""Rounds in which libraries make the buffers that they keep."""
PROMPT, STEPS = 16, 4
"""Tokens of a round in the search for leaks."""


def loaded(job: dict[str, Any], report: Report) -> Session:
    """Load the model of a job as its measuring process does."""
    session = Session(Job.model_validate(job), report)
    session.load(backends()[job["backend"]].load)
    return session


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class Events:
    """Seconds of the calls of a method, by CUDA events around them; on the CPU by a second clock."""

    def __init__(self, model: Any, name: str, device: str) -> None:
        self.seconds: list[float] = []
        method = getattr(model, name)

        def timed(ids: Sequence[int]) -> None:
            if device != "cuda":
                begin = time.monotonic_ns()
                method(ids)
                self.seconds.append((time.monotonic_ns() - begin) / 1e9)
                return
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            method(ids)
            last.record()
            last.synchronize()
            self.seconds.append(first.elapsed_time(last) / 1e3)

        setattr(model, name, timed)


def clocks(output: Path, *, report: Report, job: dict[str, Any], device: str) -> None:
    """Write the seconds of the rounds of prefill and decode as the suite and as CUDA events time them, bytes of the
    weights, and the bandwidth of the device, bytes/s."""
    session = loaded(job, report)
    weights = session.backend.weights().bytes
    prefill, decode = (Events(session.backend, name, device) for name in ("prefill", "decode"))
    throughput = group_of("throughput")
    measured = {}
    for name, events in (("prefill", prefill), ("decode", decode)):
        events.seconds.clear()
        metric = throughput.measure(session, [name])[f"throughput/{name}"]
        # The first call is the warm-up.
        measured[name] = {
            "suite": metric.samples,
            "events": events.seconds[1:],
            "tokens": metric.raw["tokens"],
        }
    values = {"weights": weights, "bandwidth": bandwidth(device), **measured}
    output.write_text(json.dumps(values))


def bandwidth(device: str) -> float:
    """Return the bytes that a copy on the device reads and writes in a second, of the fastest copy."""
    source = torch.ones(COPIED[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(COPIES):
        _wait(device)
        begin = time.perf_counter()
        target.copy_(source)
        _wait(device)
        seconds.append(time.perf_counter() - begin)
    return float(2 * source.nbytes / min(seconds))


def leak(output: Path, *, report: Report, job: dict[str, Any], device: str, rounds: int) -> None:
    """Write by how many bytes the memory of the device and of the process grows over rounds of prefill and decode."""
    session = loaded(job, report)
    backend = session.backend
    backend.reserve(PROMPT + STEPS, 1)
    readings: list[dict[str, int]] = []
    with held_memory() as held:
        for number in range(1, WARM_UP + rounds + 1):
            backend.prefill(session.prompt(PROMPT))
            backend.decode(session.prompt(STEPS))
            if number in (WARM_UP, WARM_UP + rounds):
                readings.append({"process": held(), **_on_device(device)})
    before, after = readings
    output.write_text(json.dumps({key: after[key] - before[key] for key in before}))


def _on_device(device: str) -> dict[str, int]:
    if device != "cuda":
        return {}
    return {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}


def graph(output: Path, *, report: Report, job: dict[str, Any], device: str, steps: int) -> None:
    """Write the seconds of a decoding step as it is, and replayed as a CUDA graph, and whether both predict the same.
    On the CPU there is nothing to replay: the step is called instead."""
    step = Step(loaded(job, report), steps)
    values = {"plain": step.seconds(step.plain)}
    expected = step.predicted(step.plain)
    replay = _recorded(step) if device == "cuda" else step.call
    output.write_text(
        json.dumps({**values, "other": step.seconds(replay), "same": step.predicted(replay) == expected})
    )


def compiled(output: Path, *, report: Report, job: dict[str, Any], device: str, steps: int) -> None:
    """Write the seconds of a decoding step as it is, and compiled by torch.compile, and whether both predict the same.
    On the CPU the graph is traced and not compiled, which would take a minute."""
    step = Step(loaded(job, report), steps)
    values = {"plain": step.seconds(step.plain)}
    expected = step.predicted(step.plain)
    options: dict[str, Any] = {"mode": "reduce-overhead"} if device == "cuda" else {"backend": "aot_eager"}
    step.forward = torch.compile(step.forward, **options)
    values["other"] = step.seconds(step.call)
    output.write_text(json.dumps({**values, "same": step.predicted(step.call) == expected}))


class Step:
    """One decoding step of a loaded model with a static cache: as the suite takes it (`plain`), and as a call of the
    model that reads and writes the same places each time (`call`), which can be recorded or compiled."""

    def __init__(self, session: Session, steps: int) -> None:
        self._backend = cast(Any, session.backend)
        self._ids = session.prompt(1 + steps)
        self._device: torch.device = self._backend._devices.first
        self.forward: Callable[..., Any] = self._backend._model.forward
        self._backend.reserve(2 + steps, 1)
        self._token = torch.zeros(1, 1, dtype=torch.long, device=self._device)
        self._place = torch.zeros(1, 1, dtype=torch.long, device=self._device)
        self.logits = torch.zeros(())

    def plain(self, token: int, place: int) -> None:
        self._backend.decode([token])
        self.logits = self._backend._logits

    def call(self, token: int, place: int) -> None:
        self._token.fill_(token)
        self._place.fill_(place)
        self.run()
        _wait(self._device.type)

    def run(self) -> None:
        """Call the model on what is in the places."""
        output = self.forward(
            input_ids=self._token,
            position_ids=self._place,
            past_key_values=self._backend._state["past_key_values"],
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = output.logits[0, -1]

    def begin(self) -> None:
        """Start a text of one token, in the cache that all texts use."""
        self._backend.prefill(self._ids[:1])

    def seconds(self, one: Callable[[int, int], None]) -> float:
        """Return the median seconds of a step, after a text to warm up."""
        taken: list[float] = []
        for _ in range(2):
            self.begin()
            taken.clear()
            for place, token in enumerate(self._ids[1:], 1):
                begin = time.perf_counter()
                one(token, place)
                taken.append(time.perf_counter() - begin)
        return statistics.median(taken)

    def predicted(self, one: Callable[[int, int], None]) -> list[int]:
        """Return the likeliest token after each step of a text."""
        self.begin()
        tokens = []
        for place, token in enumerate(self._ids[1:], 1):
            one(token, place)
            tokens.append(int(self.logits.argmax()))
        return tokens


def _recorded(step: Step) -> Callable[[int, int], None]:
    """Record a step as a CUDA graph; returns a function that replays it."""
    step.begin()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as torch's documentation has it: the first calls allocate
        for _ in range(3):
            step.run()
    torch.cuda.current_stream().wait_stream(aside)
    recorded = torch.cuda.CUDAGraph()
    step.begin()
    with torch.cuda.graph(recorded):
        step.run()
    logits = step.logits

    def replay(token: int, place: int) -> None:
        step._token.fill_(token)
        step._place.fill_(place)
        recorded.replay()
        torch.cuda.synchronize()
        step.logits = logits

    return replay
