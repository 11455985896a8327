"""What files and other distributions add to the engine: found, or refused in a sentence that names the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from quantgate.backends.spec import BackendSpec, SchemeOptions
from quantgate.discovery import discover
from quantgate.errors import InputError
from quantgate.measure.groups import Group
from quantgate.records import Declared, Record

GROUP = "selftest.things"
"""Entry points of nobody else."""


class Engine:
    """A package in a folder, and a distribution that offers entry points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("added/__init__.py", "")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text)

    def offer(self, name: str, **entries: str) -> None:
        lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
        self.write(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(f"{name}-1.0.dist-info/entry_points.txt", f"[{GROUP}]\n{lines}")

    def discover(self) -> dict[str, int]:
        return discover("added", "THING", GROUP, int)

    def refusal(self) -> str:
        with pytest.raises(InputError) as caught:
            self.discover()
        return str(caught.value)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Engine(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("added", "theirs")]:
        del sys.modules[name]


def test_files_and_entry_points_are_found(engine: Engine) -> None:
    engine.write("added/one.py", "THING = 1")
    engine.write("added/helper.py", "")
    engine.write("theirs.py", "THING = 2")
    engine.offer("theirs", two="theirs:THING")
    assert engine.discover() == {"one": 1, "two": 2}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import no_such_module\nTHING = 1",
            "ModuleNotFoundError in one.py:1: No module named 'no_such_module'",
        ),
        ("\nTHING = 1 +", "SyntaxError: invalid syntax (one.py, line 2)"),
        ("def made():\n    return {}['x']\nTHING = made()", "KeyError in one.py:2: 'x'"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_line(
    engine: Engine, code: str, message: str
) -> None:
    engine.write("added/one.py", code)
    assert engine.refusal() == f"{engine.folder}/added/one.py: cannot be imported: {message}; correct it"


def test_an_object_of_another_kind_is_refused(engine: Engine) -> None:
    engine.write("added/one.py", "THING = 'text'")
    assert engine.refusal() == f"{engine.folder}/added/one.py: THING is a str, not a int"
    engine.write("added/one.py", "")
    del sys.modules["added.one"]
    engine.write("theirs.py", "THING = 2")
    engine.offer("theirs", two="theirs")
    origin = "entry point two of theirs: theirs"
    assert engine.refusal() == f"{origin} is a module, not a int: name the object, theirs:THING"


def test_a_name_that_two_have_is_refused(engine: Engine) -> None:
    engine.write("theirs.py", "THING = 2")
    engine.offer("theirs", two="theirs:THING")
    engine.offer("others", two="theirs:THING")
    assert "added has another entry point of this name: rename the entry point" in engine.refusal()
    engine.write("added/two.py", "THING = 1")
    assert "added has a module of this name" in engine.refusal()


def load(*_: object) -> None: ...


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"capabilities": frozenset({"score"})},
            "no capability 'score'. Did you mean 'scores'? Allowed: generates, ",
        ),
        ({"capabilities": "scores"}, 'must be a frozenset, not a text: frozenset({"scores"})'),
        ({"options": Record}, "a class derived from quantgate.backends.spec.SchemeOptions"),
        ({"load": None}, "load must be a function of checkpoint, options and threads"),
    ],
)
def test_what_a_backend_may_not_declare(fields: dict[str, object], message: str) -> None:
    whole = {"options": SchemeOptions, "capabilities": frozenset({"scores"}), "load": load}
    assert BackendSpec(**whole)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        BackendSpec(**{**whole, **fields})  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capabilities": frozenset({"logit"})}, "no capability 'logit'. Did you mean 'logits'?"),
        ({"options": dict}, "a class derived from quantgate.records.Record"),
        (
            {"metrics": {"x": "exact"}},
            "metrics: 'x' must be Declared(KIND). Allowed: exact, level, paired, ratio, ",
        ),
        ({"metrics": {"x": Declared("exakt")}}, "metrics: 'x' must be Declared(KIND)"),  # type: ignore[arg-type]
    ],
)
def test_what_a_metric_group_may_not_declare(fields: dict[str, object], message: str) -> None:
    whole = {"options": Record, "metrics": {"x": Declared("exact")}, "measure": load, "family": "quality"}
    assert Group(**whole)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        Group(**{**whole, **fields})  # type: ignore[arg-type]
    assert message in str(caught.value)
