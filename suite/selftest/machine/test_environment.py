"""What is recorded of the environment, and the hashes that tell one build from another."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import io
import json
import platform
import tokenize
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from quantgate.judge.environment import changed_environment, relevant
from quantgate.machine import environment
from quantgate.machine.builds import builds
from quantgate.machine.environment import (
    PACKAGES,
    code_hash,
    cuda_driver,
    describe,
    extensions,
    instruction_sets,
    llama_library_hash,
    machine,
    variables,
    versions,
    without_words,
    work_facts,
)
from quantgate.paths import PACKAGE


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Everything here is remembered for the life of a process."""
    cached = (versions, machine, llama_library_hash, code_hash, instruction_sets, extensions)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


# --- versions -------------------------------------------------------------------------------------


def test_versions_has_python_and_every_package() -> None:
    table = versions()
    assert set(table) == {"python", *PACKAGES}
    assert table["python"] == platform.python_version()
    assert {name: table[name] for name in PACKAGES} == {name: metadata.version(name) for name in PACKAGES}


@pytest.mark.parametrize(
    "name", ["torch", "transformers", "bitsandbytes", "llama-cpp-python", "lm_eval", "numpy"]
)
def test_the_libraries_that_compute_are_among_the_packages(name: str) -> None:
    assert name in PACKAGES


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ["numpy", "no-such-distribution"])
    assert versions()["no-such-distribution"] is None
    assert versions()["numpy"] == metadata.version("numpy")


def test_code_that_other_distributions_measure_with_is_named_and_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It widens no tolerance, as the engine's own does not."""
    assert not extensions()
    files = {
        "theirs.py": "BACKEND = 1\n",
        "more/__init__.py": "",
        "more/group.py": "GROUP = 1\n",
        "theirs-2.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 2.0\n",
        "theirs-2.0.dist-info/entry_points.txt": "[quantgate.backends]\nx = theirs:BACKEND\n",
        "more-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: more\nVersion: 1.0\n",
        "more-1.0.dist-info/entry_points.txt": "[quantgate.metrics]\ny = more.group:GROUP\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    extensions.cache_clear()
    before = work_facts({})
    assert str(extensions()["quantgate code of theirs"]).startswith("2.0 (")
    for name in ("theirs", "more/group"):
        (tmp_path / f"{name}.py").write_text("OTHER = 1\n")
        extensions.cache_clear()
        after = work_facts({})
        (line,) = changed_environment(before, after)
        assert line.startswith(f"quantgate code of {name.partition('/')[0]} ")
        assert not relevant([line], ())
        assert describe().items() >= extensions().items()
        before = after


def test_the_description_is_plain_data_of_versions_and_machine() -> None:
    facts = describe()
    ours = {"quantgate", "quantgate code", "commit"}
    assert set(facts) - set(variables()) == {*versions(), *builds(), *machine()} | ours
    assert json.loads(json.dumps(facts)) == facts


def test_the_machine_is_described_as_the_kernel_does() -> None:
    facts = machine()
    cpuinfo = Path("/proc/cpuinfo").read_text()
    assert f": {facts['cpu']}\n" in cpuinfo
    assert facts["cores"] == cpuinfo.count("processor\t:")
    kilobytes = int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    assert facts["memory_gb"] == round(kilobytes / 2**20, 1)
    assert str(facts["os"]).startswith("Linux ")


def test_the_instruction_sets_are_flags_of_this_processor() -> None:
    flags = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    ).split()
    names = instruction_sets().split()
    assert set(names) <= set(flags)
    assert ("avx2" in names) == ("avx2" in flags)
    assert ("avx512f" in names) == ("avx512f" in flags)


# --- hashes ---------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of llama_cpp's folder layout that can be changed."""
    package = tmp_path / "llama_cpp"
    (package / "lib").mkdir(parents=True)
    (package / "lib" / "libllama.so").write_bytes(b"one build")
    (package / "lib" / "libggml.so").write_bytes(b"of ggml")
    (package / "llama.py").write_text("")
    spec = importlib.machinery.ModuleSpec("llama_cpp", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "llama_cpp" else None)
    return package / "lib"


def hashed() -> str:
    llama_library_hash.cache_clear()
    return llama_library_hash()


def test_the_library_hash_is_the_same_for_the_same_files(library: Path) -> None:
    before = hashed()
    assert len(before) == 12
    (library / "libllama.so").touch()
    (library / "readme.txt").write_text("not a library")
    assert hashed() == before


def test_the_library_hash_changes_with_any_library(library: Path) -> None:
    hashes = [hashed()]
    (library / "libllama.so").write_bytes(b"One build")
    hashes.append(hashed())
    (library / "libggml.so").write_bytes(b"of ggml!")
    hashes.append(hashed())
    (library / "libggml-cuda.so").write_bytes(b"")
    hashes.append(hashed())
    (library / "libggml-cuda.so").rename(library / "libggml-rocm.so")
    hashes.append(hashed())
    assert len(set(hashes)) == len(hashes)


def test_without_llamacpp_the_hash_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert hashed() == "absent"


def test_the_installed_libraries_are_found() -> None:
    """An empty match would give a hash too, and it would never change."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    libraries = [f.name for f in (Path(spec.origin).parent / "lib").glob("*.so")]
    assert {"libllama.so", "libggml.so"} <= set(libraries)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine whose files can be changed."""
    for name in (
        "measure/scoring.py",
        "measure/metrics/perplexity.py",
        "measure/metrics/notes.txt",
        "judge/judge.py",
        "backends/tree.py",
        "backends/runtime/llamacpp.py",
        "serving/client.py",
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(f"# {name}\n")
    monkeypatch.setattr(environment, "PACKAGE", tmp_path)
    return tmp_path


def code_hashed() -> str:
    code_hash.cache_clear()
    return code_hash(*environment.MEASURING)


@pytest.mark.parametrize(
    "name", ["measure/scoring.py", "measure/metrics/perplexity.py", "backends/tree.py", "measure/added.py"]
)
def test_the_code_hash_changes_with_the_code_that_measures(code: Path, name: str) -> None:
    before = code_hashed()
    (code / name).write_text("x = 1\n")
    assert code_hashed() != before


def test_words_are_no_code(code: Path) -> None:
    """A better comment makes nothing anew; a string that is a value does."""
    plain = 'def f(x):\n    y = "# kept"\n    return x + len(y)\n'
    worded = (
        '"""What f is for.\n\n# not code\n"""\n\ndef f(x):  # adds\n    """Add."""\n\n    y = "# kept"\n'
        "    # a comment\n    return x + len(y)\n"
    )
    hashes = []
    for text in (plain, worded, plain.replace("kept", "lost")):
        (code / "measure/scoring.py").write_text(text)
        hashes.append(code_hashed())
    assert hashes[0] == hashes[1] != hashes[2]


def words_removed_by_the_parser(source: str) -> str:
    """Python source without comments, docstrings and empty lines, by Python's own parser and tokenizer."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(ast.Constant(str()), lineno=first, end_lineno=int(last)):
                lines[first - 1 : last] = [""] * (last - first + 1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def test_what_counts_as_words_in_the_engine_does_to_the_parser() -> None:
    """Were a value taken for words, records would be used that were made with another one."""
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text()
        assert without_words(source) == words_removed_by_the_parser(source), file


@pytest.mark.parametrize("name", ["judge/judge.py", "measure/metrics/notes.txt"])
def test_the_code_hash_does_not_change_with_other_files(code: Path, name: str) -> None:
    before = code_hashed()
    (code / name).write_text("x = 1\n")
    assert code_hashed() == before


def test_a_pattern_that_matches_no_file_is_an_error(code: Path) -> None:
    with pytest.raises(ValueError, match=r"no file of the engine matches \['scoring\.py'\]"):
        code_hash("measure/*.py", "scoring.py")


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:43:04 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@host)",
    ],
)
def test_the_driver_of_a_gpu_is_read_from_its_file(tmp_path: Path, line: str) -> None:
    file = tmp_path / "version"
    assert cuda_driver(file) is None
    file.write_text(f"{line}\nGCC version:  gcc version 12.2.0 (Debian)\n")
    assert cuda_driver(file) == "580.65.06"
