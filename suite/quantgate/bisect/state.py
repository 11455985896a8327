"""What a search has learned so far, on disk: a search that was interrupted goes on where it ended.

    <results>/bisect/<key>/state.json     the question and every reply; the key is a hash of the question
    <results>/bisect/<key>/<pins>/        records and logs of one environment

The search itself keeps nothing: it asks the same questions in the same order, and those with a reply cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from quantgate.bisect.search import Answer, Pins
from quantgate.bisect.trial import Reply
from quantgate.errors import InputError
from quantgate.files import hash_of, write_atomic
from quantgate.records import Record, Status

FORMAT = 1


class Entry(Record):
    """A reply. level: which size of sample."""

    pins: dict[str, str]
    level: int
    reply: Reply


class Content(Record):
    """The file. target: the status of the bad end, which every bad environment has; None: not judged yet."""

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    question: dict[str, Any]
    target: Status | None = None
    entries: list[Entry] = Field(default_factory=list)


class State:
    """The replies of one question. Each is on disk before the next is asked for; the file is replaced in one step."""

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        """Read what there is of this question below `folder`. Raises InputError for a file of another version."""
        self.folder = folder / hash_of(question)
        self.file = self.folder / "state.json"
        self._content = Content(question=dict(question))
        try:
            self._content = Content.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
            raise InputError(
                f"{self.file}: is not the state of a search of this version ({reason}): remove it, or name another "
                "folder with --results"
            ) from None

    @property
    def target(self) -> Status | None:
        """The status of the bad end."""
        return self._content.target

    @property
    def count(self) -> int:
        """How many replies there are."""
        return len(self._content.entries)

    def reply(self, pins: Pins, level: int) -> Reply | None:
        """Return the reply about an environment; None: there is none yet."""
        entries = self._content.entries
        return next((one.reply for one in entries if one.pins == pins and one.level == level), None)

    def aim(self, target: Status) -> None:
        """Keep the status of the bad end. Raises OSError."""
        self._write(target=target)

    def add(self, pins: Pins, level: int, reply: Reply) -> None:
        """Keep a reply. Raises OSError."""
        entry = Entry(pins=dict(pins), level=level, reply=reply)
        self._write(entries=[*self._content.entries, entry])

    def forget(self, *, broken: bool) -> None:
        """Forget every reply, or those alone that say `broken`. Raises OSError."""
        left = [e for e in self._content.entries if broken and e.reply.answer != Answer.BROKEN]
        self._write(entries=left, target=self.target if left else None)

    def _write(self, **changes: Any) -> None:
        content = self._content.model_copy(update=changes)
        write_atomic(self.file, content.model_dump_json(indent=1).encode())
        self._content = content


def place(pins: Pins) -> str:
    """Return the name of an environment's folder."""
    return hash_of(sorted(pins.items()))
