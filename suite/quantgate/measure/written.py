"""What a reference wrote, left for the cells that are compared with it; and what can be said of a written text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from quantgate.backends.base import Generates, Stops
from quantgate.cache.kept import keep
from quantgate.errors import MeasurementError, UnmeasurableError
from quantgate.files import write_atomic
from quantgate.measure.groups import paired
from quantgate.measure.session import Session
from quantgate.records import Metric, Record, Scalar

LONGEST, REPEATS, LEAST = 16, 3, 12
"""Of a loop: tokens of the n-gram at most, how often it stands at the least, tokens that it takes up at the least."""


class Written(Record):
    """What a reference wrote. prompts: hash of the prompts' tokens. texts: token ids after each prompt. logprobs: of
    each token, in nats, by one pass over prompt and text. gaps: of each token, by how many nats it led the second
    likeliest; None: the library does not say."""

    prompts: str
    texts: list[list[int]]
    logprobs: list[list[float]]
    gaps: list[list[float]] | None


def leave(path: Path, written: Written) -> None:
    """Write the file. Raises MeasurementError where it does not fit."""
    try:
        write_atomic(path, written.model_dump_json().encode())
        keep(path)
    except OSError as error:
        raise MeasurementError(
            f"{path}: what the reference wrote cannot be kept ({error.strerror})"
        ) from error


def read_left(path: Path, prompts: str) -> Written:
    """Read what a reference wrote after these prompts. Raises MeasurementError."""
    try:
        written = Written.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise MeasurementError(f"{path}: what the reference wrote cannot be read: delete it") from error
    if written.prompts != prompts:
        raise MeasurementError(f"{path}: the reference was asked other prompts: delete it")
    return written


def ends_in_loop(ids: Sequence[int]) -> bool:
    """Return whether a text ends in a degenerate loop: an n-gram of up to `LONGEST` tokens, `REPEATS` times or more,
    one after the other, `LEAST` tokens or more in all."""
    for size in range(1, LONGEST + 1):
        span = max(REPEATS * size, LEAST)
        tail = ids[-span:]
        if len(tail) == span and all(a == b for a, b in zip(tail, tail[size:], strict=False)):
            return True
    return False


def check_room(
    session: Session, group: str, prompts: Sequence[list[int]], limit: int, what: str, otherwise: str
) -> None:
    """Raise UnmeasurableError where `limit` tokens after the longest of the prompts would not fit into the model's
    positions. what: the prompts, in words. otherwise: what else helps than fewer tokens."""
    positions, longest = session.backend.sizes().positions, max(map(len, prompts))
    if positions is not None and longest + limit > positions:
        room = positions - longest
        fewer = f"set tokens of the tier's {group} to {room:,} at the most, or " if room > 1 else ""
        raise UnmeasurableError(
            f"{what}: the model has {positions:,} positions, the longest prompt has {longest:,} tokens and a text up "
            f"to {limit:,}: {fewer}{otherwise}"
        )


def write(
    session: Session,
    prompts: Sequence[list[int]],
    limit: int,
    stops: Stops,
    what: str,
    progress: Callable[[int, int], None],
) -> list[list[int]]:
    """Return what the cell writes after each prompt: at most `limit` tokens, the one that ended it included. what: the
    prompts, in words. Raises MeasurementError where that is nothing."""
    backend = session.backend
    assert isinstance(backend, Generates)
    if not stops.ids:
        session.notes["ends"] = (
            "the checkpoint names no end-of-sequence token (eos_token_id): nothing that it writes ends by itself"
        )
    texts = []
    for number, prompt in enumerate(prompts, 1):
        texts.append(backend.generate(prompt, limit, stops))
        if not texts[-1]:
            raise MeasurementError(f"nothing was written after prompt {number} of {what}")
        progress(number, len(prompts))
    return texts


def of_texts(
    name: str, texts: list[list[int]], stops: Stops, limit: int, conditions: dict[str, Scalar]
) -> dict[str, Metric]:
    """Return what can be said of written texts by themselves: `<name>/length` (tokens, geometric mean), `limit`, the
    share that had no end at `limit` tokens, and `loops`, the share that ends in a loop (`ends_in_loop`). The ids are in
    `raw` of the first. stops: what ends a text, also with its last token."""
    inside = [text[:-1] if text[-1] in stops.ids else text for text in texts]
    unended = [float(len(text) >= limit and not stops.reached(text)) for text in texts]
    loops = [float(ends_in_loop(text)) for text in inside]
    lengths = np.log([len(text) for text in texts])
    return {
        f"{name}/length": paired(
            lengths, conditions, unit="tokens", better="lower", link="exp", raw={"ids": texts}
        ),
        f"{name}/limit": paired(unended, conditions, unit="fraction", better="lower", answers=True),
        f"{name}/loops": paired(loops, conditions, unit="fraction", better="lower", answers=True),
    }
