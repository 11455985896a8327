"""Say what differs between two environments, and what of it can change a number. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from quantgate.machine.builds import BUILD
from quantgate.records import Scalar

CHECKPOINT_NAME = "name of the checkpoint"
"""Key of the name of a checkpoint that is under test."""
INFORMATIVE = {"commit", CHECKPOINT_NAME}
"""Keys of an environment that are recorded and change no number."""
SUITE = "quantgate"
"""Prefix of the lines about the suite's own code."""
CHECKPOINT = "checkpoint"
"""Key of the hash of a checkpoint that is loaded as it is."""
MADE_FROM = "made from"
"""Key of the hash of a quantized checkpoint, itself under test, that the cell's weights are made from."""


def changed_environment(old: Mapping[str, Scalar], new: Mapping[str, Scalar]) -> list[str]:
    """List the differences, sorted, a line each: `torch 2.12.0 -> 2.13.0`; a key that one side lacks reads `none`; a
    checkpoint is named. A build that the old side does not name was not recorded then, and is no difference."""
    named = f" ({new[CHECKPOINT_NAME]})" if CHECKPOINT_NAME in new else ""
    return [
        f"{key} {'none' if was is None else was} -> {'none' if now is None else now}"
        f"{named if key in (CHECKPOINT, MADE_FROM) else ''}"
        for key in sorted((old.keys() | new.keys()) - INFORMATIVE)
        if (key in old or not key.startswith(BUILD))
        and (was := old.get(key)) != (now := new.get(key))
        and not (key == "memory_gb" and _close(was, now))
    ]


def _close(was: Scalar, now: Scalar) -> bool:
    """Return whether two memory sizes can belong to one machine: the kernel reserves a varying part of it."""
    if not isinstance(was, int | float) or not isinstance(now, int | float):
        return False
    return abs(was - now) <= 0.05 * max(was, now)


def relevant(changes: Sequence[str], unused: Collection[str]) -> list[str]:
    """Return the changes of an environment that can change a number of a cell, so that tolerances widen.

    Left out are distributions that the cell's backend does not compute with (`unused`), and the suite's own code: if
    that changes a number, a person has to look at it and accept it.
    """
    return [
        line
        for line in changes
        if not line.startswith(SUITE) and line.removeprefix(BUILD).split(" ")[0] not in unused
    ]


def of_weights(change: str) -> bool:
    """Return whether a change is that another checkpoint is under test: its quality is judged, and its numbers
    differ."""
    return change.startswith((f"{CHECKPOINT} ", f"{MADE_FROM} "))
