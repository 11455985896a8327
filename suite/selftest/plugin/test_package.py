"""quantgate in somebody else's repository: from its wheel, and beside tests that know nothing of it."""

from __future__ import annotations

import ast
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from quantgate.paths import FIXTURES, IMPORT_ROOT
from quantgate.plugin.case import node_id

from selftest.plugin.foreign import CELLS, INI, MATRIX, PERPLEXITY, REPO, THEIRS, collected, run, write
from selftest.tiny import TinyModel


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("mine.toml", ["--matrix=mine.toml"]),
        ("gates/mine.toml", ["--matrix", "gates/mine.toml"]),
        ("../quantgate.toml", ["--matrix=../quantgate.toml", "-o", "testpaths="]),
        ("mine.toml", ["--matrix=gone/other.toml", "--matrix=mine.toml", "-o", "testpaths="]),
        ("build/mine.toml", ["--matrix=build/mine.toml", "build/mine.toml", "tests"]),
    ],
)
def test_a_matrix_that_is_named_needs_no_other(repository: Path, file: str, arguments: list[str]) -> None:
    write(repository / file, MATRIX)
    cases = collected(repository, *arguments)
    shown = "" if file.startswith("..") else file  # pytest names no file outside its root
    assert [case for case in cases if "perplexity[" in case] == [
        f"{shown}::test_perplexity[{cell}]" for cell in CELLS
    ]
    assert any(case.startswith("tests/test_theirs.py::") for case in cases)


def test_a_run_without_a_case_of_the_matrix_that_is_named_is_refused(repository: Path) -> None:
    write(repository / "build" / "mine.toml", MATRIX)
    options = ("-p", "quantgate.plugin.entry", "-o", "testpaths=")
    status, cases, output = run(repository, *options, "--matrix=build/mine.toml")
    assert (status, cases) == (4, {}), output
    assert "build/mine.toml: pytest has collected none of its cases" in output
    status, cases, output = run(repository, *options, "--matrix=build/mine.toml", "tests")
    assert (status, cases) == (0, THEIRS), output


def test_an_option_of_the_same_name_is_the_repositorys(repository: Path) -> None:
    write(repository / "mine.toml", MATRIX)
    conftest = repository / "conftest.py"
    theirs = conftest.read_text() + '    parser.addoption("--build-matrix", "--matrix")\n'
    conftest.write_text(theirs)
    assert set(collected(repository, "--matrix=mine.toml")) == set(THEIRS)
    conftest.write_text(theirs.replace('"--build-matrix", "--matrix"', '"--grid", dest="matrix"'))
    assert len(collected(repository, "--matrix=mine.toml")) > len(THEIRS)


def test_a_case_outside_of_the_root_is_named_by_its_path(tmp_path: Path) -> None:
    """Its own node id begins with nothing, and no command takes that."""
    here = tmp_path / "here"
    config = SimpleNamespace(invocation_params=SimpleNamespace(dir=here), rootpath=here)
    item: Any = SimpleNamespace(config=config, path=tmp_path / "mine.toml", nodeid="::test_a[m/b/s]")
    assert node_id(item) == "../mine.toml::test_a[m/b/s]"


def test_the_entry_point_imports_nothing_heavy() -> None:
    code = "import pytest, sys; old = set(sys.modules); import quantgate.plugin.entry; print(set(sys.modules) - old)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(IMPORT_ROOT)},
        capture_output=True,
        text=True,
    )
    assert ast.literal_eval(done.stdout) <= {"quantgate", "quantgate.plugin", "quantgate.plugin.entry"}


def test_cases_lie_below_the_matrix_file(repository: Path) -> None:
    write(repository / "quantgate.toml", MATRIX)
    cases = [PERPLEXITY.format(cell) for cell in CELLS]
    assert collected(repository) == [*THEIRS, *cases], "whatever `testpaths` say"
    assert collected(repository, "tests") == list(THEIRS)
    assert collected(repository, cases[1]) == cases[1:], "as the reproducing command names it"
    assert collected(repository, "-k", "kbit") == cases[1:]
    assert collected(repository, "--quantgate-tier", "smoke", "-m", "fp32") == cases[:1], "--tier is theirs"


def test_a_matrix_in_the_root_of_a_checkout_is_taken_by_its_cases(tmp_path: Path) -> None:
    """Its conftest.py loads the plugin, and so does the entry point of an editable installation."""
    write(tmp_path / "quantgate.toml", MATRIX)
    for name in ("conftest.py", "pyproject.toml", "suite/test_perplexity.py"):
        write(tmp_path / name, (REPO / name).read_text())
    shutil.copytree(FIXTURES / "models" / "pocket-90k", tmp_path / "models" / "pocket-90k")
    assert collected(tmp_path) == [f"suite/test_perplexity.py::test_perplexity[{cell}]" for cell in CELLS]


def test_settings_of_a_repository(repository: Path) -> None:
    """Its ini file may lie in another folder, and make what is not measured an error; a mark may have our name."""
    write(
        repository / "quantgate.toml",
        MATRIX.replace(', "mine/kbit/ours"', "") + "divergence = { text = 'boolq' }\n",
    )
    write(repository / "ci" / "pytest.ini", f"{INI}    empty_parameter_set_mark = fail_at_collect\n")
    write(
        repository / "tests" / "test_ours.py",
        "import pytest\n\n@pytest.mark.quantgate\ndef test_it(): pass\n",
    )
    cases = collected(repository, "-c", "ci/pytest.ini", "tests", "quantgate.toml")
    assert [case.rpartition("/")[2] for case in cases] == [
        "test_ours.py::test_it",
        *(case.rpartition("/")[2] for case in THEIRS),
        PERPLEXITY.format(CELLS[0]).rpartition("/")[2],
    ]


def test_an_installation_that_lacks_a_package_is_no_regression(repository: Path) -> None:
    write(repository / "quantgate.toml", MATRIX)
    write(repository / "psutil.py", "raise ModuleNotFoundError('not installed')\n")
    status, _, output = run(repository, "-p", "quantgate.plugin.entry", "-p", "no:xdist", fresh=True)
    assert status == 4, output
    assert "quantgate.toml: quantgate cannot be loaded: " in output
    assert "not installed; `pip check`" in output
    assert "Traceback" not in output


def test_the_matrix_may_be_a_table_of_pyproject(repository: Path) -> None:
    table = MATRIX.replace("\n[", "\n[tool.quantgate.")
    write(repository / "pyproject.toml", f"[project]\nname = 'theirs'\n{table}")
    assert collected(repository)[3:] == [
        PERPLEXITY.format(cell).replace("quantgate.toml", "pyproject.toml") for cell in CELLS
    ]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has the wheel, and this environment's packages without the checkout."""
    folder = tmp_path_factory.mktemp("package")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPO)]
    subprocess.run([*pip, *build], check=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    purelib = subprocess.check_output(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], text=True
    )
    # A line alone puts the folder on the path; the .pth files in it, of the checkout's installation too, stay unread.
    Path(purelib.strip(), "beneath.pth").write_text("\n".join(site.getsitepackages()))
    (wheel,) = folder.glob("*.whl")
    subprocess.run(
        [
            *pip,
            "--python",
            str(python),
            "install",
            "--no-deps",
            "--no-index",
            "--ignore-installed",
            "--no-compile",
            str(wheel),
        ],
        check=True,
    )
    return python


LLAMACPP = """
[models.mine]
license = "Apache-2.0"
weights = { path = "models/mine" }
gguf = { path = "models/mine.gguf" }

[backends.llamacpp.schemes]
ours = { bits = 4, ftype = "Q4_K_M" }

[tiers.smoke]
time_limit = 120
cells = ["mine/llamacpp/F16", "mine/llamacpp/ours"]
perplexity = { text = "boolq", n_ctx = 32, windows = 16 }
"""


@pytest.mark.slow
def test_the_wheel_gates_a_model_in_another_repository(
    repository: Path, python: Path, tiny: TinyModel
) -> None:
    """Without a matrix it adds no case, option or mark. With one it measures, accepts, passes, and is red with exit
    status 1 once the scheme is worse. Their tests pass."""
    alone = run(repository, python=python)
    assert alone[:2] == (0, THEIRS), alone[2]
    status, _, shown = run(repository, "--help", python=python)
    assert status == 0, shown
    assert "quantgate" not in shown

    matrix = repository / "quantgate.toml"
    write(matrix, LLAMACPP)
    shutil.copytree(tiny.safetensors, repository / "models" / "mine")
    shutil.copyfile(tiny.gguf, repository / "models" / "mine.gguf")
    options = ("--quantgate-text=text.txt", "--threads=1")
    update = ("--update-baselines", "--reason=first")
    status, cases, output = run(repository, *options, *update, python=python)
    assert status == 0, output
    assert {name: cases[name] for name in THEIRS} == THEIRS
    assert {file.parent.name for file in (repository / "baselines").rglob("smoke.toml")} == {"F16", "ours"}
    assert (repository / ".quantgate" / ".gitignore").read_text() == "*\n"

    status, cases, output = run(repository, *options, "--reuse", python=python)
    full, ours = (PERPLEXITY.format(f"mine/llamacpp/{scheme}") for scheme in ("F16", "ours"))
    assert (status, cases) == (0, THEIRS | {full: "PASSED", ours: "PASSED"}), output

    matrix.write_text(LLAMACPP.replace("Q4_K_M", "Q2_K"))
    status, cases, output = run(repository, *options, "--reuse", python=python)
    assert (status, cases) == (1, THEIRS | {full: "PASSED", ours: "FAILED"}), output
    assert f"pytest --quantgate-tier smoke --quantgate-text=text.txt --threads=1 '{ours}'" in output
