"""What servers are asked, and in which words: one class for each dialect, in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from quantgate.errors import MeasurementError
from quantgate.machine.environment import Facts
from quantgate.serving.client import Client, Event
from quantgate.serving.replies import Reply


@dataclass(frozen=True)
class Vocabulary:
    """size: ids below it exist. special: ids of tokens that no text has (control tokens, ends). incomplete: ids of
    tokens whose bytes are no whole characters. texts: by id, what a token stands for; empty: unknown."""

    size: int
    special: frozenset[int] = frozenset()
    incomplete: frozenset[int] = frozenset()
    texts: Sequence[str] = field(default=(), compare=False, repr=False)


class Dialect(ABC):
    """Asks one server. All tokens go as ids; nothing is tokenized, sampled or truncated there.

    ready: the path that answers 200 when the server can be asked. tops: how many of the likeliest tokens it names at
    most. writes: whether it says which tokens it has written.
    """

    ready: ClassVar[str] = "/health"
    tops: ClassVar[int] = 20
    writes: ClassVar[bool] = True

    def __init__(self, client: Client, vocabulary: Vocabulary) -> None:
        self.client = client
        self.vocabulary = vocabulary

    @abstractmethod
    def facts(self) -> Facts:
        """Return what the server says of itself that can change a number: `server`, its version."""

    def context(self) -> int | None:
        """Return how many tokens a text and what is written after it may have; None: the server does not say."""
        return None

    def size(self) -> int | None:
        """Return how many tokens the server's model knows; None: the server does not say."""
        return None

    @abstractmethod
    def score(self, ids: Sequence[int], start: int, top: int) -> Reply:
        """Return what the server says of the tokens from `start` on, with `top` of the likeliest at each place."""

    def write(self, ids: Sequence[int], limit: int) -> list[int]:
        """Return the greedy continuation, of 1 to `limit` tokens: a server may stop at an end of its own choice."""
        raise NotImplementedError

    def stream(self, ids: Sequence[int], count: int) -> Iterator[tuple[Event, int]]:
        """Continue by exactly `count` tokens; yield each event with the number of tokens that are new in it."""
        raise NotImplementedError

    def tokenize(self, text: str) -> list[int] | None:
        """Return the ids of a text by the server's tokenizer, without special tokens; None: it does not say."""
        return None


def part(answer: Any, *path: str | int) -> Any:
    """Return a part of a server's answer. Raises MeasurementError that names what is missing."""
    value = answer
    for number, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            name = ".".join(map(str, path[: number + 1]))
            raise MeasurementError(
                f"the server's answer has no {name}: it does not speak this dialect, or is of another version"
            ) from None
    return value
