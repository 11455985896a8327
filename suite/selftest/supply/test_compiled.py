"""llama.cpp's programs are compiled against the installed libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from quantgate.cache import kept
from quantgate.errors import MeasurementError
from quantgate.supply import compiled
from quantgate.supply.compiled import Program
from quantgate.supply.llama_server import ENCRYPTS, recipe

from selftest.project import borrow_assets

TOOL = Program(
    name="tool", sources=("tools/tool/*.cpp", "main.cpp"), headers=("include",), libraries=("llama",)
)


def source(folder: Path, main: str = "int main() { return 0; }") -> Path:
    (folder / "tools" / "tool").mkdir(parents=True)
    (folder / "tools" / "tool" / "part.cpp").write_text("int part() { return 1; }")
    (folder / "main.cpp").write_text(main)
    return folder


def build(folder: Path, output: Path, program: Program, compiler: str = "c++") -> None:
    compiled.compile_programs(
        output, report=lambda *_: None, compiler=[compiler], source=str(folder), libraries=["/none"],
        programs=[program.model_dump()],
    )  # fmt: skip


def test_a_program_is_linked_to_the_installed_libraries_and_finds_them() -> None:
    folders = [Path("/here/lib"), Path("/there")]
    line = compiled.link_line(["ccache", "g++"], TOOL, [Path("0.o")], folders, Path("/out/tool"))
    assert line[:2] == ["ccache", "g++"]
    assert {"0.o", "-L/here/lib", "-Wl,-rpath,/here/lib", "-Wl,-rpath,/there"} <= {*line}
    assert [w for w in line if w.startswith("-l")] == ["-lllama"]
    assert line[-2:] == ["-o", "/out/tool"]


def test_every_file_is_compiled_with_headers_that_were_made(tmp_path: Path) -> None:
    folder = source(tmp_path, '#include "answer.h"\nint part();\nint main() { return ANSWER + part() - 4; }')
    program = TOOL.model_copy(update={"made": {"answer.h": "#define ANSWER 3"}, "libraries": ()})
    output = tmp_path / "cache" / "out"
    build(folder, output, program)
    assert [file.name for file in output.iterdir()] == ["tool"]
    assert list(output.parent.iterdir()) == [output], "nothing half-made stays"


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=r"tool/\*\.cpp: is missing; tool is compiled from it"):
        compiled.sources(TOOL, tmp_path)
    (source(tmp_path) / "main.cpp").unlink()
    with pytest.raises(MeasurementError, match=r"main\.cpp: is missing; tool is compiled from it"):
        compiled.sources(TOOL, tmp_path)


def test_what_cannot_be_compiled_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "cache" / "out"
    with pytest.raises(MeasurementError, match="tool cannot be compiled: false ended with exit status 1"):
        build(source(tmp_path), output, TOOL, "false")
    assert list(output.parent.iterdir()) == []


def test_a_program_is_compiled_once_and_again_where_it_was_damaged(
    converter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    borrow_assets(tmp_path / "cache")  # the source is one
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "main.cpp").write_text("int main() { return 3; }")
    tool = Program(name="tool", sources=(str(tmp_path / "main.cpp"),), headers=(), libraries=())
    lines: list[str] = []

    def status_of_tool() -> int:
        kept._checked.clear()  # as in another run
        folder = compiled.compiled("llama.cpp", [tool], tmp_path, lambda line, *_: lines.append(line))
        return subprocess.run([folder / "tool"]).returncode

    assert (status_of_tool(), status_of_tool()) == (3, 3)
    assert sum(line.startswith("compiling tool") for line in lines) == 1
    (program,) = (tmp_path / "cache" / "tools").glob("*/tool")
    program.write_bytes(b"")
    assert status_of_tool() == 3


def test_the_installed_libraries_are_where_the_suite_loads_them() -> None:
    package, common = compiled.library_folders()
    assert (package / "libllama.so").is_file()
    assert (common / compiled.COMMON).is_file()
    # The programs load the suite's libllama: its folder comes first.
    assert package.parent.name == "llama_cpp"


def test_a_missing_compiler_is_named() -> None:
    with pytest.raises(MeasurementError, match=r"no C\+\+ compiler '/nowhere/c\+\+' .*name it in CXX"):
        compiled.version_of(["/nowhere/c++"])


def test_llama_server_is_compiled_as_the_library_that_it_shares_objects_with() -> None:
    assert ENCRYPTS in recipe(encrypts=True).flags
    assert ENCRYPTS not in recipe(encrypts=False).flags
