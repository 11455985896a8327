"""Throughput at batch 1, as llama-bench defines it: nothing but the model's work is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from quantgate.backends.base import HasLoop
from quantgate.machine.environment import machine
from quantgate.measure.groups import Column, Group, rounds
from quantgate.measure.session import Session
from quantgate.measure.watch import watched
from quantgate.processes.turns import Turns
from quantgate.records import Declared, Metric, Record, Scalar


class Options(Record):
    """prompt, decode, first_token: tokens of the prefill, decode and time-to-first-token rounds.
    generate: time the library's own generation loop too, where it has one.
    rounds: how many in each process, and more until they have taken `least` seconds; after `seconds` no further one
    begins.
    processes: how many are timed. They differ by more than the rounds of one, so the judge goes by them.
    in_turns: rounds of two processes may alternate (`quantgate.processes.turns`), for `turns` seconds of each at least.
    A machine's speed changes within tenths of a second, so many short rounds tell two processes apart far better than a
    few long ones of the same time: one decodes `decode_turn` tokens, of `decode`."""

    in_turns: ClassVar[bool] = True
    prompt: int = Field(default=512, ge=1)
    decode: int = Field(default=32, ge=1)
    first_token: int = Field(default=32, ge=1)
    generate: bool = False
    rounds: int = Field(default=3, ge=1)
    least: float = Field(default=0.0, ge=0)
    seconds: float = Field(default=5.0, gt=0)
    processes: int = Field(default=3, ge=1)
    turns: float = Field(default=1.5, ge=0)
    decode_turn: int = Field(default=4, ge=1)


@dataclass(frozen=True)
class Kind:
    """One kind of timing. work: called with the first of the tokens to process and their number: `tokens` in a round,
    `warm_up` before the first. rate: the value is tokens/s, else seconds. whole: rounds that go on where the last one
    ended are prepared anew after so many tokens."""

    work: Callable[[int, int], object]
    tokens: int
    warm_up: int
    rate: bool = True
    prepare: Callable[[], object] = lambda: None
    whole: int = 0


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `prefill` and `decode` (tokens/s), `decode/generate` (tokens/s; the library's own loop: greedy, from one
    token), `time_to_first_token` and `load` (s). Samples are rounds in seconds.

    Decoding starts from one token of context and is given its tokens: as in llama-bench's tg test, nothing is sampled.
    The warm-ups are llama-bench's as well: a whole prompt, one decoded token.
    """
    options = session.options("throughput", Options)
    backend = session.backend
    backend.reserve(max(options.prompt, options.first_token, options.decode + 1), 1)
    ids = session.prompt(max(options.prompt, options.first_token, options.decode))

    def prefill(first: int, count: int) -> None:
        backend.prefill(ids[first : first + count])

    def decode(first: int, count: int) -> None:
        backend.decode(ids[first : first + count])

    turn = min(options.decode, options.decode_turn) if session.turns.shared else options.decode
    kinds = {
        "prefill": Kind(prefill, options.prompt, options.prompt),
        "decode": Kind(decode, turn, 1, prepare=lambda: prefill(0, 1), whole=options.decode),
        "time_to_first_token": Kind(prefill, options.first_token, options.first_token, rate=False),
    }
    if options.generate and isinstance(backend, HasLoop):
        loop = backend.loop
        kinds["decode/generate"] = Kind(lambda _, count: loop(ids[:1], count), options.decode, 1)
    metrics = {}
    for name, progress in session.each(n for n in kinds if n.partition("/")[0] in parts or not parts):
        with watched(lambda: session.turns.aside) as raw:
            seconds = _time(kinds[name], options, session.turns, progress)
        metrics[f"throughput/{name}"] = _metric(session, options, seconds, kinds[name], raw)
    if "load" in parts or not parts:
        metrics["throughput/load"] = _metric(session, options, [session.load_seconds], None, session.load_raw)
    return metrics


def _time(
    kind: Kind, options: Options, turns: Turns, progress: Callable[[float, float], None]
) -> list[float]:
    """Return the seconds of each round, after a warm-up. Two processes in turns end after the same round: the seconds
    that count are the mean of both."""

    def timed(first: int, count: int) -> float:
        if first == 0:
            kind.prepare()
        begin = time.perf_counter()
        kind.work(first, count)
        return time.perf_counter() - begin

    least, most = options.least, options.seconds
    if turns.shared:
        least, most = options.turns, max(options.turns, most)
    turns.take(lambda: timed(0, kind.warm_up))
    seconds: list[float] = []
    first, spent = 0, 0.0
    while (len(seconds) < options.rounds or spent < least) and spent < most:
        mine, theirs = turns.take(partial(timed, first, kind.tokens))
        seconds.append(mine)
        spent += (mine + theirs) / 2
        first = first + kind.tokens if first + 2 * kind.tokens <= kind.whole else 0
        progress(min(1.0, len(seconds) / options.rounds, spent / least if least else 1.0), 1)
    return seconds


def _metric(
    session: Session, options: Options, seconds: list[float], kind: Kind | None, raw: dict[str, Any]
) -> Metric:
    """Return the metric of rounds. kind: None for loading."""
    tokens = kind.tokens if kind and kind.rate else 0
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "threads": session.threads,
        "governor": machine()["governor"],
        "kernels": session.kernels,
        "settings": session.backend.settings,
        "prompt": options.prompt,
        "decode": options.decode,
        "first_token": options.first_token,
        "warm-up tokens": kind.warm_up if kind else 0,
    }
    return rounds(
        seconds,
        conditions,
        work=tokens,
        unit="tokens/s" if tokens else "s",
        in_turns=session.turns.shared and kind is not None,
        raw={"tokens": tokens, **raw} if tokens else raw,
    )


GROUP = Group(
    options=Options,
    metrics={
        "throughput/prefill": Declared("rounds"),
        "throughput/decode": Declared("rounds"),
        "throughput/decode/generate": Declared("rounds"),
        "throughput/time_to_first_token": Declared("rounds"),
        # In three of thirteen cells the ratio of two loads allowed no judgement even within a factor of five.
        "throughput/load": Declared("rounds", ratio=False),
    },
    measure=measure,
    family="throughput",
    order=1,
    relative=True,
    has_parts=True,
    alone=True,
    capabilities=frozenset({"timings"}),
    columns=(
        Column("prefill", "tok/s", 0, 7, 3, ("throughput/prefill",), ("throughput/prefill*",)),
        Column("decode", "tok/s", 1, 8, 5, ("throughput/decode",), ("throughput/decode*",)),
    ),
)
