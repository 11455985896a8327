"""Say what differs between two environments. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from quantgate.records import Scalar

INFORMATIVE = {"commit"}
"""Keys of an environment that are recorded and change no number."""


def changed_environment(old: Mapping[str, Scalar], new: Mapping[str, Scalar]) -> list[str]:
    """List the differences, sorted, a line each: `torch 2.12.0 -> 2.13.0`; a key that one side lacks reads `none`."""
    return [
        f"{key} {'none' if was is None else was} -> {'none' if now is None else now}"
        for key in sorted((old.keys() | new.keys()) - INFORMATIVE)
        if (was := old.get(key)) != (now := new.get(key)) and not (key == "memory_gb" and _close(was, now))
    ]


def _close(was: Scalar, now: Scalar) -> bool:
    """Return whether two memory sizes can belong to one machine: the kernel reserves a varying part of it."""
    return (
        isinstance(was, int | float)
        and isinstance(now, int | float)
        and abs(was - now) <= 0.05 * max(was, now)
    )
