"""Records kept in git as TOML: read with a remedy in each error, written whole, by one run at a time."""

from __future__ import annotations

import hashlib
import os
import tempfile
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantgate.config.toml_input import validate
from quantgate.errors import InputError, QuantgateError
from quantgate.files import write_atomic
from quantgate.locks import BusyError
from quantgate.locks import locked as lock
from quantgate.records import FORMAT, Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LOCK_SECONDS = 10.0
"""How long a writer waits for another one, which holds the lock for milliseconds."""

R = TypeVar("R", bound=Record)


def one_line(text: str) -> str:
    """Printable and on one line, so that it can stand in a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def damaged(path: Path, problem: str) -> InputError:
    """The error for a file in git that is not what was written."""
    remedy = f"restore it with `git checkout -- {path}`, or delete it and update again"
    return InputError(f"{path}: {problem}; {remedy}")


def parse_toml(path: Path, model: type[R], oldest: int = 1) -> tuple[R, bytes] | None:
    """A file as a record, and its bytes; None: no such file. oldest: the first format with this layout.

    Raises InputError for a file that is unreadable, corrupted, has a wrong key, or is of a newer or older format.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        data = _swapped(tomllib.loads(content.decode()), [], None)
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, nested a thousand times
        raise damaged(path, f"corrupted: {error}") from error
    found = data.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"{path}: format = {found} was written by a newer quantgate (this one reads up to {FORMAT});"
            " upgrade quantgate"
        )
    if isinstance(found, int) and 1 <= found < oldest:
        raise InputError(
            f"{path}: format = {found} was written by an older quantgate (this one reads {oldest} to {FORMAT});"
            " check out the file that belongs to this version, or delete it and update again"
        )
    try:
        return validate(model, data, path), content
    except InputError as error:
        raise damaged(path, str(error).removeprefix(f"{path}: ")) from error


def write_toml(path: Path, comment: str, data: dict[str, Any], lines: Collection[str] = ()) -> None:
    """Write `data` under a comment line. Raises QuantgateError, see `write_bytes`.

    lines: names of tables whose entries are tables themselves, without lists: one line is written for each entry.
    """
    import tomli_w

    # TOML has no null. A condition of None is compared later and must come back, so it is written as [],
    # which no scalar can be. Floats are written with `repr`, so they come back to the last digit.
    data = _swapped(data, None, [])
    tables = {key: table for key, table in data.items() if isinstance(table, dict)}
    blocks = [
        f"# {one_line(comment)}\n",
        tomli_w.dumps({key: value for key, value in data.items() if key not in tables}),
        *(
            _line_each(key, table) if key in lines else tomli_w.dumps({key: table})
            for key, table in tables.items()
        ),
    ]
    write_bytes(path, "\n".join(blocks).encode())


def _line_each(name: str, table: dict[str, dict[str, Any]]) -> str:
    """A table with an inline table for each entry, which tomli_w writes inside arrays only."""
    import tomli_w

    def line(key: str, entry: dict[str, Any]) -> str:
        fields = tomli_w.dumps(entry).rstrip("\n").split("\n")  # one each: line ends in strings are escaped
        return tomli_w.dumps({key: 0}).replace(" = 0\n", f" = {{ {', '.join(fields)} }}\n")

    return f"[{name}]\n" + "".join(line(key, entry) for key, entry in table.items())


def _swapped(value: Any, old: object, new: object) -> Any:
    if isinstance(value, dict):
        return {key: _swapped(item, old, new) for key, item in value.items()}
    return new if value == old else value


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step. Raises QuantgateError naming it; what was there before is untouched."""
    try:
        write_atomic(path, content)
    except OSError as error:
        why = error.strerror or error
        raise QuantgateError(
            f"{path}: could not be written ({why}); what was there before is untouched"
        ) from error


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the write lock of `root`: a file outside it, since `root` is in git.

    Raises InputError when another run keeps it for longer than `LOCK_SECONDS`.
    """
    user = getattr(os, "getuid", int)()  # a lock file left by another user could not be opened
    key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"quantgate-{user}-{key}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(path, f"update {root}", LOCK_SECONDS))
        except BusyError as error:
            raise InputError(
                f"{root}: {error} is updating it (lock {path}); run again when it has finished"
            ) from error
        yield
