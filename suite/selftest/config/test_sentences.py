"""What is wrong with a value of a TOML file is one plain sentence: the key, what it must be, what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from quantgate.config.data import Data
from quantgate.config.sentences import allowed, nearest
from quantgate.config.tolerances import load_tolerances
from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import InputError
from quantgate.run.inputs import load_matrix

from selftest.config.user_file import USER_FILE, refusal

MATRIX: dict[str, Any] = {
    "models": {
        "mine": {
            "license": "MIT",
            "weights": {"path": "w"},
            "gguf": {"hub": "a/b", "revision": "0" * 40, "file": "f.gguf"},
            "add_bos": True,
            "checkpoints": {"llamacpp/mix": {"path": "x.gguf", "sha256": {"x.gguf": "0" * 64}}},
        }
    },
    "backends": {
        "llamacpp": {
            "minimum_share": 0.5,
            "schemes": {"mix": {"as_is": True}, "Z": {"bits": 4, "ftype": "Q4_0", "rounding": "weights"}},
        },
        "kbit": {"grid": [{"name": "g{bits}", "dtype": "float32", "data_type": "int", "bits": [3, 4]}]},
        "transformers": {
            "schemes": {
                "q": {"bits": 8, "dtype": "float32", "quantization": {"method": "quanto", "weights": "int8"}},
                "c": {"bits": 32, "dtype": "float32", "cache": {"backend": "hqq", "nbits": 4}},
            }
        },
    },
    "tiers": {
        "smoke": {
            "time_limit": 60,
            "cells": ["mine/llamacpp/F16", "mine/llamacpp/mix"],
            "perplexity": {"text": "boolq", "windows": 8, "protocol": "full"},
            "accuracy": {"tasks": ["piqa"], "items_of": {"piqa": 3}, "budget": 512},
            "decoding": {"text": "boolq", "further": [{"context": 4, "tokens": 4}]},
        },
        "more": {"extends": "smoke"},
    },
}
DATA: dict[str, Any] = {
    "texts": {
        "book": {"path": "book.txt"},
        "notes": {"csv": "notes.csv", "column": "body", "first": 3, "distinct": True},
        "noise": {"random": 0, "characters": 9},
    },
    "tasks": {
        "mine": {
            "file": "mine.yaml",
            "yaml": "*.yaml",
            "key": ["a"],
            "split": "test",
            "columns": {"q": "question"},
        },
        "hub": {"hub": "a/b", "revision": "0" * 40, "split": "test"},
    },
    "calibration": {"tokens": 8, "length": 4},
}
TOLERANCES: dict[str, Any] = {
    "run_alpha": 0.01,
    "tolerance": [
        {"metric": "perplexity", "tier": "smoke", "rounding": "none", "relative": 0.1, "against": False},
        {"metric": "memory/peak", "cell": "*", "absolute": 1.0, "elsewhere": 2.0, "reason": "r"},
    ],
}
WRONG = ["-1", f"1{30 * '0'}", "nan", '""', '"x"', "[]", "[1]", "{}", "{ a = 1 }", "2020-01-02"]
ENGLISH_OF_PYDANTIC = re.compile(
    r"Value error|[Ii]nput|Extra|valid (dict|string|int|num|bool|list)|instance|validation error|\(got |None|<class"
)


def keys_of(table: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and every place of a list, at any depth."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in pairs:
        yield (*above, key)
        yield from keys_of(value, (*above, key))


def changed(table: dict[str, Any], keys: tuple[Any, ...]) -> Iterator[str]:
    """The texts of files with a wrong value there."""
    copy = deepcopy(table)
    inner: Any = copy
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = "HERE"
    before, after = tomlkit.dumps(copy).split('"HERE"')
    for value in WRONG:
        yield f"{before}{value}{after}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "load"),
    [
        (MATRIX, load_matrix),
        (TOLERANCES, load_tolerances),
        (DATA, lambda file: validate(Data, read_toml(file), file, strict=True)),
    ],
    ids=["matrix", "tolerances", "data"],
)
def test_whatever_stands_in_place_of_a_value_ends_in_a_sentence(
    tmp_path: Path, table: dict[str, Any], load: Any
) -> None:
    file = tmp_path / "file.toml"
    file.write_text(tomlkit.dumps(table))
    load(file)
    refused = 0
    for keys in keys_of(table):
        for text in changed(table, keys):
            file.write_text(text)
            try:
                load(file)
            except InputError as error:
                refused += 1
                for line in str(error).splitlines():
                    assert line.startswith(f"{file}: "), text
                    assert not ENGLISH_OF_PYDANTIC.search(line), text
    assert refused > 80


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[tiers.smoke.accuracy]\ntasks = ['piqa']\nbudget = 'fast'",
            "accuracy.budget: must be a whole number or 'auto', not the text 'fast'",
        ),
        (
            "[tiers.smoke.accuracy]\ntasks = ['piqa']\nbudget = 3",
            "accuracy.budget: must be 16 or more, not 3",
        ),
        ("[tiers.smoke.memory]\nprompt = '8'", "memory.prompt: must be a whole number, not the text '8'"),
        ("[tiers.smoke.memory]\nprompt = 8.5", "memory.prompt: must be a whole number, not 8.5"),
        ("[tiers.smoke.memory]\ncache = 'yes'", "memory.cache: must be true or false, not the text 'yes'"),
        ("[tiers.smoke]\nmemory = 3", ""),
        (
            "[tiers.smoke.decoding]\ntext = 2020-01-02",
            "decoding.text: must be text in quotes, not the date or time 2020-01-02",
        ),
        (
            "[tiers.smoke.decoding]\ntext = 'x'\nfurther = { context = 3 }",
            "decoding.further: must be tables, [[further]], not a table",
        ),
        (
            "[[tiers.smoke.decoding.further]]\ncontext = 0\n[tiers.smoke.decoding]\ntext = 'x'",
            "decoding.further (entry 1).context: must be 1 or more, not 0",
        ),
    ],
)
def test_the_sentence_says_what_must_stand_there(tmp_path: Path, more: str, message: str) -> None:
    refused = refusal(tmp_path, f"{USER_FILE}\n{more}\n")
    assert (
        refused == f"tiers.smoke.{message}" if message else refused.startswith("is not valid TOML: Cannot ")
    )


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("sha256 = '12'", "sha256: must be the 64 hexadecimal digits that `sha256sum FILE` prints, not '12'"),
        ("sha256 = { 'x y' = '12' }", 'sha256."x y": must be the 64 hexadecimal digits'),
        ("sha256 = {}", "sha256: must not be empty"),
        ("sha256 = 12", "sha256: must be text in quotes or a table, not 12"),
        ("revision = 'main'", "revision: is for a hub source only: remove it"),
        ("file = ''", "file: must not be empty"),
        ('path = "a\\u0000b"', "path: must be a path, not 'a"),
        (
            "path = '~nobody-of-this-name/x'",
            "path: begins with a home directory that does not exist: ~nobody",
        ),
        (
            "hub = 'https://huggingface.co/a/b'",
            "hub: must be the name of a repository, OWNER/NAME, not 'https",
        ),
    ],
)
def test_what_is_wrong_with_a_source(tmp_path: Path, checkpoint: str, message: str) -> None:
    source = checkpoint if checkpoint.startswith(("path", "hub")) else f"path = 'x'\n{checkpoint}"
    text = f"{USER_FILE}\n[models.mine.checkpoints.'llamacpp/Q4_K_M']\n{source}\n"
    assert refusal(tmp_path, text).startswith(f'models.mine.checkpoints."llamacpp/Q4_K_M".{message}')


def test_a_suggestion_ignores_case_first() -> None:
    assert nearest("type_K", ["type_v", "type_k"]) == "type_k"
    assert nearest("q4_k_m", ["Q4_K_S", "Q4_K_M"]) == "Q4_K_M"
    assert nearest("WINDOW", ["windows", "text"]) == "windows"
    assert nearest("zebra", ["windows", "text"]) is None
    assert allowed("x", []) == "There are none"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"a = 'caf\xe9'",
            r"is not UTF-8: byte 0xe9 at offset 8 \(line 1\): if it is Latin-1, convert it by",
        ),
        ("a = 1".encode("utf-16"), r"is UTF-16, not UTF-8 \(byte order mark at offset 0\): convert it by"),
        (b"a = 1" + b"0" * 5000, "is not valid TOML: it has a number of thousands of digits"),
        (b"a = " + b"[" * 5000, "is not valid TOML: its lists and tables are nested too deep"),
        (b"[a]\n[a]\n", r"is not valid TOML: Cannot declare \('a',\) twice \(at line 2, column 3\)"),
    ],
    ids=["Latin-1", "UTF-16", "digits", "nested", "twice"],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.toml: {message}"):
        read_toml(file)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xef\xbb\xbfa = 'caf\xc3\xa9'")
    assert read_toml(file) == {"a": "caf\u00e9"}
