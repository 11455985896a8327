"""Rows of files that hold a data set: JSON lines, CSV, Parquet, folders that `datasets` saved, and the harness's task
files. What would get lost or change on the way (a column, a cell, an empty value) is an error that names the file and
the line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from quantgate.errors import InputError, MeasurementError, in_one_line
from quantgate.files import decoded, lfs_problem, matching
from quantgate.words import plural

Row = dict[str, Any]


def rows_of_file(spec: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the rows of the file that an entry of tasks.toml names: `jsonl`, `csv` (either packed by gzip, too),
    `parquet`, or `yaml` with `key`. text: a template for one column, `text`. Raises InputError."""
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        "jsonl": _jsonl,
        "csv": _csv,
        "parquet": _parquet,
        "yaml": lambda pattern: yaml_rows(pattern, spec["key"]),
    }
    rows = next(read(Path(spec[key])) for key, read in readers.items() if key in spec)
    template = spec.get("text")
    for number, row in enumerate(rows, 1):
        yield row if template is None else {"text": _filled(template, row, number)}


def dataset_of(rows: Iterable[Row], where: str) -> Any:
    """Return a `datasets.Dataset` of rows, with all their columns: `Dataset.from_list` takes those of the first row. A
    row without one has None there, as where `datasets` reads the file. where: for messages. Raises InputError."""
    import datasets

    listed = list(rows)
    if not listed:
        raise InputError(f"{where}: has no rows")
    columns = dict.fromkeys(column for row in listed for column in row)
    try:
        return datasets.Dataset.from_list([{column: row.get(column) for column in columns} for row in listed])
    except (ValueError, TypeError, OverflowError) as error:  # Arrow's are of these kinds
        raise InputError(
            f"{where}: a column has values of several types ({in_one_line(error)}): make them alike"
        ) from error


def saved_rows(folder: str) -> Any:
    """Return a data set that `datasets` saved; in memory, since what is mapped of one on disk is cached beside it: in
    the asset. Raises InputError."""
    import datasets

    try:
        rows = datasets.load_from_disk(folder, keep_in_memory=True)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: is no folder that `datasets` saved (save_to_disk)") from error
    if isinstance(rows, datasets.DatasetDict):
        raise InputError(f"{folder}: has the splits {', '.join(rows)}: name the folder of one")
    return rows


def column_of(rows: Any, column: str, where: str) -> list[str]:
    """Return the texts of a column. Raises InputError where a row has none: what Python prints for nothing, `None`, is
    no text."""
    if column not in rows.column_names:
        raise InputError(f"{where}: has no column {column!r}; it has {', '.join(rows.column_names)}")
    values = list(rows[column])
    for number, value in enumerate(values, 1):
        if not isinstance(value, str):
            problem = "is empty (null)" if value is None else f"is no text but a {type(value).__name__}"
            raise InputError(f"{where}: {column!r} of row {number} {problem}: leave out such rows")
    return values


def yaml_rows(pattern: Path, keys: Sequence[str]) -> Iterator[Row]:
    """Yield the rows that `keys` lead to in each of the harness's task files that has them, files by name. pattern:
    with wildcards. Raise MeasurementError if no file has any.

    The files are read as plain YAML: the harness's index leaves out those that another file includes."""
    empty = True
    for file in matching(pattern):
        rows = plain_yaml(file)
        for key in keys:
            rows = rows.get(key) if isinstance(rows, dict) else None
        for row in rows or ():
            empty = False
            yield row
    if empty:
        raise MeasurementError(f"{pattern}: no file has rows under {'.'.join(keys)}")


def plain_yaml(file: Path) -> Any:
    """Return what is in a YAML file of the harness, its own tags (`!function`) unread. Raises InputError."""
    import yaml

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """Leaves those tags unread."""

    Plain.add_multi_constructor("!", lambda *_: None)
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=Plain)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: is not YAML ({in_one_line(error)})") from error


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON ({error}): each line has to be one object") from error
        if not isinstance(row, dict):
            raise InputError(f"{where}: is no JSON object: write {{...}} with a key for each column")
        if "\\ud" in line.lower():  # an escape of half a pair, which no encoding of Unicode has
            _check_surrogates(where, row)
        yield row


def _check_surrogates(where: str, row: Row) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InputError(
            f"{where}: has one half of a surrogate pair, {half}, which is no character"
        ) from error


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # a cell may be a book
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        names = reader.fieldnames or ()
        if twice := [name for name in names if list(names).count(name) > 1]:
            raise InputError(f"{path}, line 1: has two columns {twice[0]!r}: rename one")
        for row in reader:
            columns, further = len(names), row.pop(None, [])
            cells = columns - list(row.values()).count(None) + len(further)
            if cells != columns:
                raise InputError(
                    f"{path}, line {reader.line_num}: has {plural(cells, 'cell')}, the first line {columns}"
                )
            yield row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error


def _parquet(path: Path) -> Iterator[Row]:
    import datasets

    with TemporaryDirectory() as folder:
        try:
            yield from datasets.Dataset.from_parquet(str(path), cache_dir=folder, keep_in_memory=True)
        except Exception as error:  # of datasets or of Arrow
            raise InputError(f"{path}: cannot be read as Parquet ({in_one_line(error)})") from error


def _text(path: Path) -> str:
    """Return the text of a file, which gzip may have packed. Raises InputError."""
    raw = path.read_bytes()
    if problem := lfs_problem(path):
        raise InputError(problem)
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: gzip cannot unpack it ({error})") from error
    return decoded(path, raw)


def _filled(template: str, row: Row, number: int) -> str:
    try:
        return template.format_map(row)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"text = {template!r}: row {number} has no such place ({in_one_line(error)}); its columns are "
            f"{', '.join(row)}"
        ) from error
