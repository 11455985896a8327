"""Throughput at batch 1, as llama-bench defines it: nothing but the model's work is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from pydantic import Field

from suite.records import Metric, Record
from suite.run.session import Session


class Options(Record):
    """prompt, decode, first_token: tokens of the prefill, decode and time-to-first-token rounds.
    rounds: how many, of which at least three are made even when `seconds` have passed."""

    prompt: int = Field(default=512, ge=1)
    decode: int = Field(default=32, ge=1)
    first_token: int = Field(default=32, ge=1)
    rounds: int = Field(default=5, ge=3)
    seconds: float = Field(default=10.0, gt=0)


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Rounds in seconds: `prefill` and `decode` (value tokens/s), `time_to_first_token`, `load` (value s).

    Decoding starts from one token of context (llama-bench's tg test). Each kind has one warm-up round.
    """
    options = session.options("throughput", Options)
    backend = session.backend
    backend.reserve(max(options.prompt, options.first_token, options.decode + 1), 1)
    prompt, short = session.prompt(options.prompt), session.prompt(options.first_token)

    works: dict[str, tuple[Callable[[], object], Callable[[], object], int | None]] = {
        "prefill": (lambda: None, lambda: backend.prefill(prompt), options.prompt),
        "decode": (
            lambda: backend.prefill(prompt[:1]),
            lambda: backend.decode(prompt[-1], options.decode),
            options.decode,
        ),
        "time_to_first_token": (lambda: None, lambda: backend.prefill(short), None),
    }
    wanted = [name for name in works if name in parts or not parts]
    metrics = {}
    for number, name in enumerate(wanted):
        prepare, work, tokens = works[name]

        def progress(done: float, number: int = number) -> None:
            session.progress(number + done, len(wanted))

        rounds = _time(prepare, work, options, progress)
        metrics[f"throughput/{name}"] = _metric(session, options, rounds, tokens)
    if "load" in parts or not parts:
        metrics["throughput/load"] = _metric(session, options, [session.load_seconds], None)
    return metrics


def _time(
    prepare: Callable[[], object],
    work: Callable[[], object],
    options: Options,
    progress: Callable[[float], None],
) -> list[float]:
    prepare()
    work()
    rounds: list[float] = []
    while len(rounds) < options.rounds and (len(rounds) < 3 or sum(rounds) < options.seconds):
        prepare()
        begin = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - begin)
        progress(len(rounds) / options.rounds)
    return rounds


def _metric(session: Session, options: Options, rounds: list[float], tokens: int | None) -> Metric:
    median = statistics.median(rounds)
    return Metric(
        kind="rounds",
        value=median if tokens is None else tokens / median,
        unit="s" if tokens is None else "tokens/s",
        better="lower" if tokens is None else "higher",
        samples=rounds,
        conditions={
            "source": session.source_hash,
            "threads": session.threads,
            "kernels": session.kernels,
            "prompt": options.prompt,
            "decode": options.decode,
            "first_token": options.first_token,
        },
        raw={} if tokens is None else {"tokens": tokens},
    )
