"""What a server does that no model in process can: answer several requests at once, and refuse some for a while.

The same texts are continued greedily one after the other, and then several at once. A server that mixes up what belongs
to different requests, or reuses what it should not, writes other texts; one that computes batches of another shape does
so at near ties alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from quantgate.backends.base import NamesLikeliest, Serves
from quantgate.backends.tree import TokenSequence
from quantgate.files import hash_of
from quantgate.items import common_length
from quantgate.jobs import Needs
from quantgate.measure.groups import Group, exact
from quantgate.measure.session import Session
from quantgate.records import Declared, Metric, Record, Scalar


class Options(Record):
    """text: name in tasks.toml; its first tokens make `prompts` prompts of `context` tokens each. tokens: how many are
    written after each. concurrency: requests at once."""

    text: str
    prompts: int = Field(default=16, ge=2)
    context: int = Field(default=32, ge=1)
    tokens: int = Field(default=32, ge=1)
    concurrency: int = Field(default=8, ge=2)


def measure(session: Session, parts: Sequence[str]) -> dict[str, Metric]:
    """Return `serving/gap`: where a text written beside others is not the one written alone, by how many nats its first
    other token is less likely than the likeliest, of all texts the most; 0: all texts are equal. `serving/apart`: how
    many are not. `serving/retries`: how many requests of this process had to be sent again."""
    options = session.options("serving", Options)
    backend = session.backend
    assert isinstance(backend, Serves)
    assert isinstance(backend, NamesLikeliest)
    ids = session.text(options.text).ids
    prompts = [ids[n * options.context : (n + 1) * options.context] for n in range(options.prompts)]

    def write(concurrency: int, before: int) -> list[list[int]]:
        def progress(done: int) -> None:
            session.progress(before + done, 2 * len(prompts))

        return backend.generate_at_once(prompts, options.tokens, concurrency, progress)

    alone, together = write(1, 0), write(options.concurrency, len(prompts))
    gaps = [
        _gap(backend, prompt, one, other)
        for prompt, one, other in zip(prompts, alone, together, strict=True)
        if one != other
    ]
    conditions: dict[str, Scalar] = {
        "source": session.source_hash,
        "tokens": hash_of(prompts),
        "written": options.tokens,
        "concurrency": options.concurrency,
    }
    says = f"{len(gaps)} of {len(prompts)} texts differ from those that were written alone"
    return {
        "serving/gap": exact(max(gaps, default=0.0), conditions, unit="nats", raw={"says": says}),
        "serving/apart": exact(float(len(gaps)), conditions, unit="texts"),
        "serving/retries": exact(float(backend.retries), {"source": session.source_hash}, unit="requests"),
    }


def _gap(
    backend: NamesLikeliest, prompt: Sequence[int], alone: Sequence[int], together: Sequence[int]
) -> float:
    """Return by how many nats the first token in which two texts differ is less likely than the likeliest: the larger
    value of the two, each asked for alone."""
    before = (*prompt, *alone[: common_length(alone, together)])
    place = len(before) - len(prompt)
    answers = [
        backend.answer(TokenSequence((*before, text[place]), len(before))) for text in (alone, together)
    ]
    return max(float(max(one.likely[0, 0], one.logprobs[0]) - one.logprobs[0]) for one in answers)


GROUP = Group(
    options=Options,
    metrics={
        "serving/gap": Declared("exact"),
        "serving/apart": Declared("exact"),
        "serving/retries": Declared("exact"),
    },
    measure=measure,
    family="serving",
    order=90,  # last, so that all requests count
    capabilities=frozenset({"serves", "tops"}),
    needs=lambda options: Needs(texts={options.text: options.prompts * options.context}),
)
