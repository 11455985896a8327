"""Entries of texts and tasks: those of the user's matrix, and those that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.config.data import TAKEN, Data
from quantgate.config.toml_input import read_toml, validate
from quantgate.measure.metrics import accuracy, answers
from quantgate.supply.sources import TASKS

from selftest.config.user_file import USER_FILE, load_text, refusal

ROWS = "folder, folders, jsonl, csv, parquet, yaml, hub"
COMMIT = "b08601e04326c79dfdd32d625aee71d232d685c3"


def test_the_shipped_entries_are_complete() -> None:
    shipped = validate(Data, read_toml(TASKS), TASKS, strict=True)
    assert shipped.tasks["hellaswag"].places == ["folder"]
    assert shipped.texts["boolq"].column == "passage"


def test_names_of_all_tasks_together_are_taken() -> None:
    assert set(TAKEN) == {accuracy.MEAN, answers.POOLED}


def test_a_matrix_may_have_texts_and_tasks(tmp_path: Path) -> None:
    more = (
        '[texts.book]\npath = "book.txt"\n[texts.notes]\njsonl = "notes.jsonl"\ncolumn = "body"\n'
        '[tasks.support]\nfile = "support.yaml"\nparquet = "support.parquet"\ncolumns = { question = "q" }\n'
    )
    matrix = load_text(tmp_path, USER_FILE + more)
    assert matrix.texts["book"].model_dump(exclude_unset=True) == {"path": "book.txt"}
    assert matrix.texts["notes"].joiner == "\n\n"
    assert matrix.tasks["support"].columns == {"question": "q"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("[texts.a]\npth = 'a.txt'", "texts.a.pth: unknown key. Did you mean 'path'? Allowed: "),
        ("[texts.a]", f"texts.a: give one of path, {ROWS}, random"),
        (
            "[texts.a]\npath = 'a'\ncsv = 'b'\ncolumn = 'c'",
            "texts.a: give one of path, .*, random, not csv and path",
        ),
        ("[texts.a]\njsonl = 'a.jsonl'", "texts.a: column says which column of rows is the text"),
        ("[texts.a]\npath = 'a.txt'\ncolumn = 'b'", "texts.a: column says which column .* only there"),
        ("[texts.a]\npath = ''", "texts.a.path: must be a path, not ''"),
        ("[texts.a]\nrandom = 0", "texts.a: random, the seed, and characters go together"),
        ("[texts.a]\ncsv = 'a'\ncolumn = 'b'\nfirst = -1", "texts.a.first: must be 0 or more, not -1"),
        ("[texts.'a/b']\npath = 'a'", "texts: 'a/b': cannot be part of a file name"),
        ("[tasks.a]\nfile = 'a.yaml'", f"tasks.a: give one of {ROWS}: where its rows lie"),
        ("[tasks.a]\ncsv = 'a'\njsonl = 'b'", "tasks.a: names rows in jsonl and csv: remove all but one"),
        (
            "[tasks.a]\ncsv = 'a'\nsplit = 'train'",
            "tasks.a.split: cannot be 'train': the harness asks what is in 'val",
        ),
        ("[tasks.a]\nyaml = '*.yaml'", "tasks.a: yaml and key go together"),
        ("[tasks.a]\ncsv = 'a'\nrevision = 'b'", "tasks.a: revision and config are of a hub repository"),
        (
            "[tasks.a]\nhub = 'o/a'\nsplit = 'test'\nrevision = 'main'",
            "tasks.a.revision: must be the 40 hexadecimal",
        ),
        (f"[tasks.a]\nhub = 'o/a'\nrevision = '{COMMIT}'", "tasks.a: hub needs `split`, and no asset"),
        ("[tasks.mean]\ncsv = 'a'", "tasks.mean: stands for all tasks together: give it another name"),
        ("[tasks]\na = 'b'", "tasks.a: must be a table, [tasks.a], not the text 'b'"),
    ],
)
def test_a_wrong_entry_is_named_with_what_is_allowed(tmp_path: Path, entry: str, message: str) -> None:
    before, _, after = message.partition(".*")
    text = refusal(tmp_path, f"{USER_FILE}\n{entry}\n")
    assert text.startswith(before)
    assert after in text
