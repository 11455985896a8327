"""Machines that a user named (`--machine`), whose absolute timings are kept.

<root>/machines/<machine>.toml    what distinguishes that machine from others
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantgate.baselines.toml_file import locked, parse_toml, write_toml
from quantgate.errors import InputError
from quantgate.files import checked_name
from quantgate.judge.environment import changed_environment
from quantgate.records import FORMAT, Record, Scalar, Scalars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class _Machine(Record):
    """The machine file, key by key."""

    format: int
    name: str
    fingerprint: Scalars


def check_machine(root: Path, name: str, fingerprint: Mapping[str, Scalar], *, create: bool = False) -> None:
    """Check that this is the machine that `name` stands for. create: record a new name as this machine.

    Raises InputError naming the keys that differ, or where the machine is not recorded.
    """
    path = _machine_path(root, name)
    if create:
        with locked(root):
            if not path.exists():
                machine = _Machine(format=FORMAT, name=name, fingerprint=dict(sorted(fingerprint.items())))
                comment = f"Where the timings in *@{name}.toml were measured (--machine {name})"
                write_toml(path, comment, machine.model_dump())
    if changed := changed_environment(read_machine(root, name).fingerprint, fingerprint):
        raise InputError(
            f"{path}: this is not the machine recorded as {name!r}: {', '.join(changed)}; give it another name"
            f" (--machine), or delete that file and the *@{name}.toml baselines and update again"
        )


def _machine_path(root: Path, name: str) -> Path:
    return root / "machines" / f"{checked_name('machine', name)}.toml"


def read_machine(root: Path, name: str) -> _Machine:
    """Read the file of a machine. Raises InputError where the machine is not recorded, or the file is damaged."""
    path = _machine_path(root, name)
    if (parsed := parse_toml(path, _Machine)) is None:
        raise InputError(
            f"{path}: no machine {name!r} is recorded; --update-baselines --machine {name} records this one"
        )
    return parsed[0]
