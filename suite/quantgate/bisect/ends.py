"""The two ends: what their files pin, what is installed here, and the order in which packages are tried."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from quantgate.bisect.search import Change, Pins
from quantgate.errors import InputError
from quantgate.files import read_plain_text
from quantgate.supply.environments import NOT_NEEDED

REMEDY = "write NAME==VERSION, as `pip freeze` does"


def read_pins(path: Path) -> dict[str, str]:
    """Return the requirements of a file by package: of constraints, or what `pip freeze` prints. Editable packages are
    left out: they are as they are here. Raises InputError naming the file and the line."""
    pins: dict[str, str] = {}
    lines = read_plain_text(path).replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines, 1):
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        text = re.split(r"\s--(?:hash|config-settings|global-option)\b", text)[0].strip()
        if not text or text.startswith(("-e ", "--editable")):
            continue
        if text.startswith("-"):
            raise InputError(f"{path}, line {number}: {text.split()[0]} is an option of pip: {REMEDY}")
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path}, line {number}: {text!r} is not a requirement ({reason}): {REMEDY}"
            ) from None
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        name = canonicalize_name(requirement.name)
        if name in NOT_NEEDED:
            continue
        pin = exact(requirement)
        if pin is None:
            raise InputError(f"{path}, line {number}: {text!r} names no single version: {REMEDY}")
        if pins.setdefault(name, pin) != pin:
            raise InputError(f"{path}, line {number}: {name} is pinned twice, as {pins[name]} and {pin}")
    return pins


def exact(requirement: Requirement) -> str | None:
    """Return a requirement as a pin, without markers and extras: `torch==2.13.0`; None: it allows several versions."""
    if requirement.url:
        return f"{requirement.name} @ {requirement.url}"
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator not in ("==", "===") or "*" in specifiers[0].version:
        return None
    return f"{requirement.name}{requirement.specifier}"


def version_of(pin: str) -> str:
    """Return what a pin says of its package: the version, or where it comes from."""
    requirement = Requirement(pin)
    return requirement.url or next(iter(requirement.specifier)).version


def is_here(pin: str, here: Mapping[str, str]) -> bool:
    """Return whether a pin is met by what is installed here. here: requirements by package."""
    requirement = Requirement(pin)
    installed = here.get(canonicalize_name(requirement.name))
    if installed is None:
        return False
    there = Requirement(installed)
    if requirement.url or there.url:
        return requirement.url == there.url
    return requirement.specifier.contains(version_of(installed), prereleases=True)


def with_here(good: Pins, bad: Pins, here: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pins of both ends with one spelling where both mean what is here. What one of them does not pin is as
    it is here, and where it is not installed here as the other end pins it: a file of constraints names packages that
    nobody installs, and what is installed here cannot be taken away."""

    def whole(pins: Pins, other: Pins) -> dict[str, str]:
        complete = {}
        for name in sorted({*good, *bad}):
            pin = pins.get(name) or here.get(name) or other[name]
            complete[name] = here[name] if is_here(pin, here) else pin
        return complete

    return whole(good, bad), whole(bad, good)


def split(pins: Pins, changes: Iterable[Change], here: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return what pip has to install for an environment on top of what is here, and the versions that it has to keep to
    besides: those of packages that differ between the ends or are installed here, and all others."""
    changing = {change.package for change in changes}
    needed = [
        pin for name, pin in pins.items() if (name in changing or name in here) and not is_here(pin, here)
    ]
    return sorted(needed), sorted(pin for pin in pins.values() if pin not in needed and "@" not in pin)


def in_order(names: Sequence[str], needs: Callable[[str], Iterable[str]]) -> list[str]:
    """Return packages so that each comes right after those of them that it needs: then an environment with the first
    few of them can mostly be installed. needs: gives the packages that one requires."""
    placed: dict[str, None] = {}
    begun: set[str] = set()

    def place(name: str) -> None:
        if name in begun or name not in names:
            return
        begun.add(name)
        for other in sorted(needs(name)):
            place(other)
        placed[name] = None

    for name in sorted(names):
        place(name)
    return list(placed)


def needs_here(name: str) -> list[str]:
    """Return the packages that an installed one requires; none where it is not installed."""
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []
    return [str(canonicalize_name(Requirement(line).name)) for line in lines]
