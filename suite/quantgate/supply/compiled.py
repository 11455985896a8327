"""Compile llama.cpp's programs from the source of the installed llama-cpp-python, linked to its libraries.

Only the files of the programs are compiled. They share libllama and libggml with the suite, so that different kernels
cannot explain a difference. The programs stay in the cache:

<cache>/tools/<asset>-<libraries>-<key>/ the programs; <libraries> is the hash of the shared libraries, the key one of
source, libraries, compiler and flags
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate.errors import MeasurementError
from quantgate.files import hash_of
from quantgate.machine.builds import package_folder
from quantgate.machine.environment import Environment, llama_library_hash
from quantgate.paths import cache_dir
from quantgate.processes.progress import OnProgress
from quantgate.records import Record
from quantgate.serving.programs import TOOLS
from quantgate.supply.assets import fetch, load_assets
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.maker import Maker
from quantgate.supply.sources import ASSETS

LANGUAGE = ("-std=c++17", "-DNDEBUG", "-pthread", "-w")
COMMON = "libllama-common.so"
TIME_LIMIT = 3600.0


class Program(Record):
    """sources: files, or patterns, below llama.cpp's folder; absolute paths are others. headers: folders, below it,
    too. made: headers that are written for it, by name. libraries: those it is linked to, without `lib`."""

    name: str
    sources: tuple[str, ...]
    headers: tuple[str, ...] = ("common", "include", "ggml/include")
    made: dict[str, str] = Field(default_factory=dict)
    libraries: tuple[str, ...] = ("llama-common", "llama", "ggml", "ggml-base")
    flags: tuple[str, ...] = ("-O3",)


def compiled(asset: str, programs: Sequence[Program], logs: Path, say: OnProgress) -> Path:
    """Return the folder of the programs; build them unless they are cached. asset: carries the source. Raises
    QuantgateError."""
    assets = load_assets(ASSETS)
    package = assets[asset].parts[0]
    libraries = [str(folder) for folder in library_folders()]
    installed = metadata.version("llama-cpp-python")
    if installed != package.version:
        raise MeasurementError(
            f"llama-cpp-python {installed} is installed, {ASSETS.name} pins the source of {package.version}: install "
            "that one (fixtures/constraints.txt), or move the pin"
        )
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    # The asset's folder is named by its content, so that a changed pin gives another key.
    made_of = [
        assets[asset].folder.name,
        [one.model_dump() for one in programs],
        [Path(file).read_text() for one in programs for file in one.sources if Path(file).is_absolute()],
        libraries,
        version_of(compiler),
        LANGUAGE,
    ]
    key = f"{llama_library_hash()}-{hash_of(made_of)}"
    names = ", ".join(one.name for one in programs)

    def arguments() -> dict[str, Any]:
        root = f"{package.package.replace('-', '_')}-{package.version}/vendor/llama.cpp"
        source = fetch(asset, assets, on_progress=say) / root
        say(f"compiling {names} from {source}: once; the cache keeps them", 0, 0)
        return {
            "compiler": compiler,
            "source": str(source),
            "libraries": libraries,
            "programs": [one.model_dump() for one in programs],
        }

    return Maker(logs, TIME_LIMIT, say, Environment()).make(
        cache_dir() / TOOLS / f"{asset}-{key}",
        f"compile {names}",
        f"{__name__}:compile_programs",
        arguments,
    )


def compile_programs(
    output: Path,
    *,
    report: Report,
    compiler: list[str],
    source: str,
    libraries: list[str],
    programs: list[dict[str, object]],
) -> None:
    """Write the folder of the programs. Raises MeasurementError where one does not compile."""
    wanted = [Program.model_validate(one) for one in programs]
    with whole(output, folder=True) as work:
        for program in wanted:
            room = work.parent / f"{program.name}.made"
            room.mkdir()
            for name, text in program.made.items():
                (room / name).write_text(text)
            files = sources(program, Path(source))
            objects = [room / f"{number}.o" for number in range(len(files))]
            lines = [
                compile_line(compiler, program, Path(source), room, file, target)
                for file, target in zip(files, objects, strict=True)
            ]
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                done = pool.map(lambda line, name=program.name: _run(line, name), lines)
                for number, _ in enumerate(done):
                    report(f"compile {program.name}", number + 1, len(lines) + 1)
            folders = [Path(folder) for folder in libraries]
            _run(link_line(compiler, program, objects, folders, work / program.name), program.name)


def _run(line: Sequence[str], name: str) -> None:
    print(shlex.join(line), flush=True)
    status = subprocess.run(line, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise MeasurementError(f"{name} cannot be compiled: {line[0]} ended with exit status {status}")


def sources(program: Program, source: Path) -> list[Path]:
    """Return the files that a program is compiled from. Raises MeasurementError where one is missing."""
    files: list[Path] = []
    for name in program.sources:
        matches = sorted(source.glob(name)) if "*" in name else [source / name]
        if not matches or not matches[0].is_file():
            raise MeasurementError(f"{source / name}: is missing; {program.name} is compiled from it")
        files += matches
    return files


def compile_line(
    compiler: Sequence[str], program: Program, source: Path, room: Path, file: Path, output: Path
) -> list[str]:
    """Return the command that compiles one file of a program. room: the folder of the headers that were made."""
    headers = [room, *(source / folder for folder in program.headers)]
    return [
        *compiler, *LANGUAGE, *program.flags, *(f"-I{folder}" for folder in headers), "-c", str(file), "-o", str(output)
    ]  # fmt: skip


def link_line(
    compiler: Sequence[str],
    program: Program,
    objects: Sequence[Path],
    libraries: Sequence[Path],
    output: Path,
) -> list[str]:
    """Return the command that links a program. It finds its libraries, and they each other, by RPATH: a RUNPATH would
    not hold for libraries of libraries."""
    return [
        *compiler,
        "-pthread",
        *map(str, objects),
        *(f"-L{folder}" for folder in libraries),
        "-Wl,--disable-new-dtags",
        *(f"-Wl,-rpath,{folder}" for folder in libraries),
        *(f"-l{name}" for name in program.libraries),
        "-o",
        str(output),
    ]


def library_folders() -> list[Path]:
    """Return the folders of llama-cpp-python's shared libraries: those that the suite loads, and libllama-common, which
    only the programs need. Raises MeasurementError where they are missing."""
    package = package_folder("llama_cpp")
    if package is None:
        raise MeasurementError("llama-cpp-python is not installed")
    common = next(iter(sorted(package.parent.glob(f"lib*/{COMMON}"))), None)
    if common is None:
        raise MeasurementError(
            f"{package.parent}: this llama-cpp-python lacks {COMMON}, which llama.cpp's programs "
            "need: install it from source (pip install --force-reinstall --no-binary llama-cpp-python ...)"
        )
    return [package / "lib", common.parent]


def version_of(compiler: Sequence[str]) -> str:
    """Return the first line of `--version`. Raises MeasurementError where the compiler is missing."""
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MeasurementError(
            f"no C++ compiler {shlex.join(compiler)!r} ({error}): install one, or name it in CXX"
        ) from None
    return done.stdout.partition("\n")[0]
