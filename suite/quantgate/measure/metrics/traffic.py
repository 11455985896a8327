"""How a server behaves under traffic: a closed loop of streamed requests, some at once, from a process of its own.

Prompts are of random tokens and all different, so that no cached beginning helps; all have the same length, and so have
all answers. The first requests of each level warm the server up and do not count.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from quantgate.backends.base import Serves
from quantgate.machine.environment import machine
from quantgate.measure.groups import Group, level, rounds
from quantgate.measure.session import Session
from quantgate.measure.watch import watched
from quantgate.records import Declared, Metric, Record, Scalar
from quantgate.serving.level import Level

MOST = 0.5
"""Share of a core from which on the client itself may be what is slow."""
SCALING = "traffic/scaling"


class Options(Record):
    """concurrency: requests at once, ascending. requests: of each level, and at least twice as many as at once. prompt,
    tokens: of a request and of its answer. first_token, per_token: limits in seconds that a good answer keeps.
    processes: how many servers are started. They differ by more than the requests of one (README.md of
    `quantgate.serving`), so more of these would say no more."""

    concurrency: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 2, 4, 8], min_length=1)
    requests: int = Field(default=16, ge=2)
    prompt: int = Field(default=64, ge=1)
    tokens: int = Field(default=32, ge=2)
    first_token: float = Field(default=2.0, gt=0)
    per_token: float = Field(default=0.2, gt=0)
    processes: int = Field(default=3, ge=1)

    @field_validator("concurrency")
    @classmethod
    def _ascending(cls, counts: list[int]) -> list[int]:
        if any(before >= after for before, after in pairwise(counts)):
            raise ValueError("must be in ascending order, each number once")
        return counts


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return times and rates of each number of requests at once, `traffic/<N>/...`, `traffic/scaling`, `traffic/client`
    and `traffic/memory`, as README.md defines them."""
    options = session.options("traffic", Options)
    backend = session.backend
    assert isinstance(backend, Serves)
    prompts = [(many, _prompts(session, options, many)) for many in options.concurrency]
    counted = sum(len(one) - many for many, one in prompts)
    with watched(backend.processor_seconds) as raw:
        levels = backend.traffic(prompts, options.tokens, lambda done: session.progress(done, counted))
    raw["client"] = [max(load.client_share for load in levels)]
    raw["doubts"] = [doubt(levels)]
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "threads": session.threads,
        "governor": machine()["governor"],
        "kernels": session.kernels,
        "prompt": options.prompt,
        "decode": options.tokens,
        "requests": options.requests,
    }
    metrics: dict[str, Metric] = {}
    for load in levels:
        metrics |= _of_level(load, options, conditions, raw)
    rates = [len(load.first) * load.tokens / load.seconds for load in levels]
    if len(levels) > 1:
        of = f"{levels[-1].concurrency} by {levels[0].concurrency}"
        alike = {key: value for key, value in conditions.items() if key not in ("threads", "governor")}
        metrics[SCALING] = Metric(
            kind="ratio",
            value=rates[-1] / rates[0],
            unit="x",
            better="higher",
            samples=[rates[-1] / rates[0]],
            conditions={**alike, "concurrency": of},
            raw=raw,
        )
    most = max(options.concurrency)
    metrics["traffic/client"] = level(
        levels[-1].client_share, {**conditions, "most": most}, unit="fraction", raw=raw
    )
    memory = backend.peak_memory()
    if memory is None:
        session.notes["memory"] = "memory and weights are not measured: the server runs elsewhere"
    else:
        of_server = {key: conditions[key] for key in ("source", "kernels")}
        metrics["traffic/memory"] = level(memory, {**of_server, "most": most}, unit="bytes")
    return metrics


def doubt(levels: Sequence[Level]) -> str:
    """Say why the client itself may have been slow; empty: it was not."""
    busiest = max(levels, key=lambda load: load.client_share)
    if busiest.client_share <= MOST:
        return ""
    share = f"{busiest.client_share * 100:.0f} % of a core"
    return f"the client took {share} at {busiest.concurrency} requests at once: it may be what is slow"


def _prompts(session: Session, options: Options, many: int) -> list[list[int]]:
    """Return different prompts of random tokens: those of the warm-up, and those that count."""
    draw = random.Random(many)  # noqa: S311
    count = many + max(options.requests, 2 * many)
    return [draw.choices(range(session.vocabulary), k=options.prompt) for _ in range(count)]


def _of_level(
    load: Level, options: Options, conditions: dict[str, Scalar], raw: dict[str, Any]
) -> dict[str, Metric]:
    count, good = len(load.first), load.good(options.first_token, options.per_token)
    begin = f"traffic/{load.concurrency}"

    timed = partial(rounds, conditions=conditions, raw=raw)
    limits = {"first_token": options.first_token, "per_token": options.per_token}
    return {
        f"{begin}/first_token": timed(load.first),
        f"{begin}/first_token_95": timed([float(np.quantile(load.first, 0.95))]),
        f"{begin}/per_token": timed(load.per_token),
        f"{begin}/per_token_95": timed([float(np.quantile(load.per_token, 0.95))]),
        f"{begin}/output": timed([load.seconds], work=count * load.tokens, unit="tokens/s"),
        f"{begin}/requests": timed([load.seconds], work=count, unit="requests/s"),
        f"{begin}/goodput": level(
            good / load.seconds, {**conditions, **limits}, unit="requests/s", better="higher", raw=raw
        ),
    }


TIMED = ("first_token", "first_token_95", "per_token", "per_token_95", "output", "requests")

GROUP = Group(
    options=Options,
    metrics={
        **{f"traffic/{{concurrency}}/{name}": Declared("rounds", ratio=False) for name in TIMED},
        "traffic/{concurrency}/goodput": Declared("level"),
        SCALING: Declared("ratio"),
        "traffic/in_process": Declared("ratio"),  # where the tier has throughput
        "traffic/client": Declared("level"),
        "traffic/memory": Declared("level"),
    },
    measure=measure,
    family="throughput",
    order=2,
    alone=True,
    in_process="throughput/decode",
    capabilities=frozenset({"serves"}),
)
