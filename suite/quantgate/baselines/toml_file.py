"""Records kept in git as TOML: read with a remedy in each error, written whole, by one run at a time."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from quantgate.config.toml_input import validate
from quantgate.errors import InputError, QuantgateError
from quantgate.files import hash_of, lfs_problem, write_atomic
from quantgate.locks import BusyError
from quantgate.locks import locked as lock
from quantgate.records import FORMAT, Record

LOCK_SECONDS = 10.0
"""How long a writer waits for another one, which holds the lock for milliseconds."""

R = TypeVar("R", bound=Record)


def one_line(text: str) -> str:
    """Return the text on one line without unprintable characters, so that it can stand in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def damaged(path: Path, problem: str) -> InputError:
    """Return the error for a file in git that is not what was written."""
    take = f"restore it with `git checkout -- {path}`"
    with suppress(OSError):
        if pointer := lfs_problem(path):
            return InputError(pointer)
        if re.search(rb"^<{7} ", path.read_bytes(), re.MULTILINE):
            # With the files that a side has of the cell: each names another raw file.
            side = f"take one with `git checkout HEAD -- {path.parent}`, or MERGE_HEAD"
            take = f"a merge left both sides in it: {side}"
    remedy = f"{take}, or delete it and update again"
    return InputError(f"{path}: {problem}; {remedy}")


def parse_toml(path: Path, model: type[R], oldest: int = 1) -> tuple[R, bytes] | None:
    """Return a file as a record, and its bytes; None: no such file. oldest: the first format with this layout.

    An empty list reads as None: older files have one where the key is absent now.
    Raises InputError for a file that is unreadable, corrupted, has a wrong key, or is of a newer or older format.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        data = _none_for_empty(tomllib.loads(content.decode()))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, nested a thousand times
        raise damaged(path, f"corrupted: {error}") from error
    version = data.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise InputError(
            f"{path}: format = {version} was written by a newer quantgate (this one reads up to {FORMAT});"
            " upgrade quantgate"
        )
    if isinstance(version, int) and 1 <= version < oldest:
        raise InputError(
            f"{path}: format = {version} was written by an older quantgate (this one reads {oldest} to {FORMAT});"
            " check out the file that belongs to this version, or delete it and update again"
        )
    try:
        return validate(model, data, path), content
    except InputError as error:
        raise damaged(path, str(error).removeprefix(f"{path}: ")) from error


def _none_for_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _none_for_empty(item) for key, item in value.items()}
    return None if value == [] else value


def write_toml(path: Path, comment: str, data: dict[str, Any], lines: Collection[str] = ()) -> None:
    """Write `data`, which has no None, under a comment line. Raises QuantgateError, see `write_bytes`.

    lines: names of tables whose entries are tables themselves: each entry is written on one line.
    """
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(one_line(comment)))
    document.add(tomlkit.nl())
    for key, value in data.items():
        if key not in lines:
            document.add(key, tomlkit.item(value))
            continue
        table = tomlkit.table()
        for name, entry in value.items():
            inline = tomlkit.inline_table()
            inline.update(entry)
            table.add(name, inline)
        document.add(key, table)
    write_bytes(path, tomlkit.dumps(document).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step. Raises QuantgateError naming it; then the old content is untouched."""
    try:
        write_atomic(path, content)
    except OSError as error:
        untouched = "what was there before is untouched"
        raise QuantgateError(
            f"{path}: could not be written ({error.strerror or error}); {untouched}"
        ) from error


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the write lock of `root`: a file outside it, since `root` is in git.

    Raises InputError when another run keeps the lock for longer than `LOCK_SECONDS`.
    """
    # A lock file left by another user could not be opened.
    path = Path(tempfile.gettempdir()) / f"quantgate-{os.getuid()}-{hash_of(str(root.resolve()))}.lock"
    try:
        with lock(path, f"update {root}", LOCK_SECONDS):
            yield
    except BusyError as error:
        remedy = "run again when it has finished"
        raise InputError(f"{root}: {error} is updating it (lock {path}); {remedy}") from error
