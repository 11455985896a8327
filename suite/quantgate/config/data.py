"""Where texts and the rows of tasks lie: the entries of fixtures/tasks.toml, and of a matrix's tables `[texts.*]` and
`[tasks.*]`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from quantgate.config.sentences import WrongValueError, plainly
from quantgate.errors import InputError
from quantgate.files import checked_name
from quantgate.records import Record

FILES = ("folder", "folders", "jsonl", "csv", "parquet", "yaml")
"""Keys that say in which files rows lie."""
ROWS = (*FILES, "hub")
"""Keys that say where rows lie."""
PATTERNS = ("folders", "yaml")
"""Keys whose paths have wildcards."""
SPLITS = ("validation", "test")
TAKEN = ("mean", "pooled")
"""Names that stand for all tasks together."""


def _place(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError(f"must be a path, not {plainly(value)}")
    return value


Place = Annotated[str, AfterValidator(_place)]


class Entry(Record):
    """Where rows lie: in an asset, in the hub, or in files here, relative to the TOML file.

    folder: saved with `datasets`; folders: a pattern, rows of each in turn; jsonl: one object a line; csv; parquet;
    yaml: a pattern of files, and `key`, where in each its rows are. hub: a repository with `revision`, a commit, and
    `split`. text: a template that makes the one column `text`. documents: the function of
    `quantgate.supply.documents` that makes documents of rows in another form.
    """

    asset: str | None = Field(default=None, min_length=1)
    hub: str | None = Field(default=None, min_length=1)
    config: str | None = None
    revision: str | None = None
    split: str | None = Field(default=None, min_length=1)
    folder: Place | None = None
    folders: Place | None = None
    jsonl: Place | None = None
    csv: Place | None = None
    parquet: Place | None = None
    yaml: Place | None = None
    key: list[str] | None = Field(default=None, min_length=1)
    text: str | None = None
    documents: str | None = None

    @property
    def places(self) -> list[str]:
        """The keys that say where rows lie."""
        return [key for key in ROWS if getattr(self, key) is not None]

    @model_validator(mode="after")
    def _one_place(self) -> Entry:
        if len(self.places) > 1:
            raise ValueError(f"names rows in {' and '.join(self.places)}: remove all but one")
        if (self.yaml is None) != (self.key is None):
            raise ValueError("yaml and key go together: files, and where in each its rows are")
        if self.hub is None and (self.revision is not None or self.config is not None):
            raise ValueError("revision and config are of a hub repository: name it as hub, or remove them")
        if self.hub is not None and (self.asset is not None or self.split is None):
            raise ValueError("hub needs `split`, and no asset")
        if self.hub is not None and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise WrongValueError(
                "revision",
                "must be the 40 hexadecimal digits of a commit, since a branch or a tag can move",
            )
        return self


class TextEntry(Entry):
    """A text: a plain file (`path`), the joined `column` of rows, or `characters` at `random` (the seed).

    distinct: each value once. first: rows from this one on. joiner: what stands between rows."""

    path: Place | None = None
    column: str | None = None
    distinct: bool = False
    first: int = Field(default=0, ge=0)
    joiner: str = "\n\n"
    random: int | None = None
    characters: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> TextEntry:
        kinds = [*self.places, *(key for key in ("path", "random") if getattr(self, key) is not None)]
        if len(kinds) != 1:
            named = f", not {' and '.join(kinds)}" if kinds else ""
            raise ValueError(f"give one of {', '.join(('path', *ROWS, 'random'))}{named}")
        if (self.column is None) == bool(self.places):
            raise ValueError(
                "column says which column of rows is the text: give it with rows, and only there"
            )
        if (self.random is None) != (self.characters is None):
            raise ValueError("random, the seed, and characters go together")
        return self


class TaskEntry(Entry):
    """The rows of a task. split: under which the harness gets them; None: as `test`. columns: new name = old name.
    file: the task itself, in the harness's format. nltk_data: a folder that its rules read with NLTK."""

    columns: dict[str, str] = Field(default_factory=dict)
    file: Place | None = None
    nltk_data: Place | None = None

    @model_validator(mode="after")
    def _of_rows(self) -> TaskEntry:
        if not self.places and not self.nltk_data:
            raise ValueError(f"give one of {', '.join(ROWS)}: where its rows lie")
        if self.split not in (None, *SPLITS):
            raise WrongValueError(
                "split",
                f"cannot be {plainly(self.split)}: the harness asks what is in {' or '.join(map(repr, SPLITS))}",
            )
        return self


class Calibration(Record):
    """The size of a calibration set: its `tokens`, and those of a sequence (`length`)."""

    tokens: int = Field(ge=1)
    length: int = Field(ge=1)


class Data(Record):
    """A whole tasks.toml."""

    texts: dict[str, TextEntry]
    tasks: dict[str, TaskEntry]
    calibration: Calibration


def check_data_names(where: str, texts: dict[str, TextEntry], tasks: dict[str, TaskEntry]) -> None:
    """Raise InputError for a name that cannot be part of a file's, or is taken. where: for messages."""
    for kind, names in (("texts", texts), ("tasks", tasks)):
        for name in names:
            checked_name(f"{where}: {kind}:", name)
            if kind == "tasks" and name in TAKEN:
                raise InputError(
                    f"{where}: tasks.{name}: stands for all tasks together: give it another name"
                )
