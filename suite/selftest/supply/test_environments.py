"""Environments of A/B runs: what `--against` names, and how one is built, kept and never half-used."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from quantgate.cache import kept
from quantgate.errors import InputError
from quantgate.supply import environments
from quantgate.supply.environments import build, environment_of, installed, layer, parse, requirements


def wheel(folder: Path, version: str, needs: str = "") -> Path:
    """A wheel of `quantgate-tiny` with one module that knows its version."""
    info = f"quantgate_tiny-{version}.dist-info"
    files = {
        "quantgate_tiny.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: quantgate-tiny\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for name, text in files.items()
    )
    path = folder / f"quantgate_tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip that sees the tiny wheels alone."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "1.0")
    wheel(wheels, "2.0", "Requires-Dist: quantgate-absent>=3\n")
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    # What tox sets; it would forbid what is asked for.
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("quantgate-tiny==3.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraints))
    return tmp_path / "cache" / "environments"


def version_in(python: Path) -> str:
    code = "import quantgate_tiny; print(quantgate_tiny.VERSION)"
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


# --- what is named ----------------------------------------------------------------------------------


def test_a_path_is_an_interpreter_and_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert parse(str(link)) == link, "resolved, it would be another environment"


def test_versions_are_requirements() -> None:
    parsed = parse("llama-cpp-python==0.3.35  transformers<6,>=5.1")
    assert isinstance(parsed, list)
    assert [(r.name, str(r.specifier)) for r in parsed] == [
        ("llama-cpp-python", "==0.3.35"), ("transformers", "<6,>=5.1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("/nowhere/bin/python", "no interpreter is there"),
        ("transformers", "names no version: write transformers==VERSION"),
        ("transformers=5.1", "write NAME==VERSION"),
        ("  ", "name a python, or what to install"),
        ("torch==2.12.0'", "No closing quotation; write 'NAME==VERSION NAME==VERSION'"),
    ],
)
def test_what_is_neither_is_refused(against: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(against)


def test_a_folder_of_an_environment_is_told_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    with pytest.raises(InputError, match=f"name its interpreter: {tmp_path}/bin/python"):
        parse(str(tmp_path))


def test_everything_stays_as_it_is_but_what_is_named() -> None:
    here = {
        "torch": "torch==2.13.0", "llama-cpp-python": "llama_cpp_python==0.3.36", "pip": "pip==25",
        "quantgate": "quantgate==0.1", "x": "x @ git+https://h/x@abc",
    }  # fmt: skip
    named = [Requirement("Llama_CPP.python==0.3.35"), Requirement("new-one>=2")]
    assert requirements(named, here) == [
        "Llama_CPP.python==0.3.35", "new-one>=2", "torch==2.13.0", "x @ git+https://h/x@abc",
    ]  # fmt: skip


def test_what_is_installed_here_is_known() -> None:
    here = installed()
    assert here["pytest"] == f"pytest=={pytest.__version__}"
    assert {"torch", "llama-cpp-python", "transformers"} <= set(here)
    direct = {"url": "https://h/x", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    assert environments._origin(direct) == "git+https://h/x@abc"
    assert environments._origin({"url": "file:///x", "dir_info": {}}) == "file:///x"
    part = {"url": "https://h/x.zip", "archive_info": {}, "subdirectory": "python"}
    assert environments._origin(part) == "https://h/x.zip#subdirectory=python"
    assert environments._origin({**direct, "subdirectory": "a/b"}) == "git+https://h/x@abc#subdirectory=a/b"


# --- building ---------------------------------------------------------------------------------------


def test_an_environment_is_built_once_and_kept_and_a_half_built_one_is_never_used(cache: Path) -> None:
    lines: list[str] = []
    python = build(["quantgate-tiny==1.0"], lines.append)
    assert version_in(python) == "1.0"
    assert python.is_relative_to(cache)
    assert lines[0].startswith("building ")
    assert any(line.startswith("Successfully installed") for line in lines)
    lines.clear()
    assert build(["quantgate-tiny==1.0"], lines.append) == python
    assert lines == []
    kept._checked.clear()  # as in another run
    kept.entry_file(python.parents[1]).unlink()
    (module,) = python.parents[1].rglob("quantgate_tiny.py")
    module.write_text("VERSION = 'half'")
    assert version_in(build(["quantgate-tiny==1.0"], lines.append)) == "1.0"


def test_pips_error_is_shown_with_the_remedy_and_nothing_is_left(cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        build(["quantgate-tiny==2.0"], lambda text: None)
    text = str(caught.value)
    assert "pip cannot install these versions" in text
    assert "quantgate-absent" in text
    assert "name that package too" in text
    assert list(cache.iterdir()) == []


def test_an_interrupt_leaves_nothing(cache: Path) -> None:
    def interrupt(text: str) -> None:
        if text.startswith("Installing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(["quantgate-tiny==1.0"], interrupt)
    assert list(cache.iterdir()) == []
    assert version_in(build(["quantgate-tiny==1.0"], lambda text: None)) == "1.0"


def test_of_two_runs_at_once_one_builds(cache: Path) -> None:
    lines: list[str] = []
    pythons: list[Path] = []

    def one() -> None:
        pythons.append(build(["quantgate-tiny==1.0"], lines.append))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pythons)) == 1
    assert version_in(pythons[0]) == "1.0"
    assert sum(line.startswith("Successfully installed") for line in lines) == 1


def test_a_layer_has_those_of_this_environment_beneath_it_and_what_has_nothing_beneath_is_refused(
    cache: Path,
) -> None:
    python = layer(["quantgate-tiny==1.0"], lambda text: None)
    assert version_in(python) == "1.0"
    code = "import numpy, quantgate_tiny; print(numpy.__file__)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == np.__file__, "not installed again"
    assert layer(["quantgate-tiny==1.0"], lambda text: None) == python
    bare = build(["quantgate-tiny==1.0"], lambda text: None)
    assert bare != python, "without anything beneath it is another"
    message = r"quantgate cannot measure there: ModuleNotFoundError.*pyproject\.toml"
    with pytest.raises(InputError, match=message):
        environment_of(bare, lambda text: None)


def test_a_layer_keeps_to_the_pins_of_packages_that_are_pulled_in(cache: Path) -> None:
    pins = ["quantgate-tiny==2.0"]
    with pytest.raises(InputError, match="pip cannot install these versions"):
        layer(["quantgate-tiny==1.0"], lambda text: None, pins)


# --- what is in it ----------------------------------------------------------------------------------


def test_versions_of_the_other_environment_are_its_own() -> None:
    other = environment_of(Path(sys.executable), lambda text: None)
    from quantgate.machine.environment import llama_library_hash, versions

    assert other.versions == versions()
    assert other.llama_library == llama_library_hash()
    assert other.worker == (sys.executable, "-m", "quantgate.measure.worker")
