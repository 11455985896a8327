"""`-k REGEX` of the commands that work through a catalogue of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from quantgate.errors import InputError

T = TypeVar("T")


def choose(entries: Iterable[T], pattern: str, noun: str, words: Callable[[T], str]) -> list[T]:
    """The entries in whose `words` the pattern is found. noun: what one is called. Raises InputError where there is
    none, or for what is no regular expression."""
    try:
        found = [entry for entry in entries if re.search(pattern, words(entry))]
    except re.error as error:
        raise InputError(f"-k {pattern}: is not a regular expression: {error}") from None
    if not found:
        raise InputError(f"-k {pattern}: no {noun} matches; --list shows them all")
    return found
