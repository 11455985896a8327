"""Compile llama.cpp's tools from the source of the installed llama-cpp-python, linked to its libraries.

Only the files of the tools are compiled (20 s). They share libllama, libggml and libllama-common with the suite, so
that different kernels cannot explain a difference. The programs stay in the cache:

<cache>/tools/llama.cpp-<key>/ the programs; the key is a hash of source, libraries, compiler and flags
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from quantgate.errors import MeasurementError
from quantgate.files import hash_of
from quantgate.jobs import Preparation
from quantgate.locks import locked
from quantgate.machine.environment import llama_library_hash
from quantgate.paths import cache_dir
from quantgate.processes.progress import OnProgress
from quantgate.supply.assets import fetch, load_assets
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.maker import run_preparation
from quantgate.supply.sources import ASSETS

ASSET = "llama.cpp"
MAIN = Path(__file__).with_name("llama_perplexity.cpp")
TOOLS: dict[str, tuple[str | Path, ...]] = {
    "llama-perplexity": ("tools/perplexity/perplexity.cpp", MAIN),
    "llama-bench": ("tools/llama-bench/llama-bench.cpp", "tools/llama-bench/main.cpp"),
}
"""Program and what it is compiled from."""

HEADERS = ("common", "include", "ggml/include")
LIBRARIES = ("llama-common", "llama", "ggml", "ggml-base")
FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-pthread", "-w")
TIME_LIMIT = 3600.0


def tools(logs: Path, say: OnProgress) -> Path:
    """Return the folder of the programs; build them unless they are cached. Raises QuantgateError."""
    assets = load_assets(ASSETS)
    package = assets[ASSET].parts[0]
    installed = metadata.version("llama-cpp-python")
    if installed != package.version:
        raise MeasurementError(
            f"llama-cpp-python {installed} is installed, {ASSETS.name} pins the source of {package.version}: install "
            "that one (fixtures/constraints.txt), or move the pin"
        )
    libraries = library_folders()
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    # The asset's folder is named by its content, so that a changed pin gives another key.
    made_of = [
        assets[ASSET].folder.name,
        MAIN.read_text(),
        llama_library_hash(),
        version_of(compiler),
        FLAGS,
    ]
    key = hash_of(made_of)
    output = cache_dir() / "tools" / f"{ASSET}-{key}"
    with locked(cache_dir() / "locks" / f"tools-{key}.lock", "compile llama.cpp's tools"):
        if not output.exists():
            root = f"{package.package.replace('-', '_')}-{package.version}/vendor/llama.cpp"
            source = fetch(ASSET, assets, on_progress=say) / root
            say(f"compiling {', '.join(TOOLS)} from {source}: once; the cache keeps them", 0, 0)
            job = Preparation(
                title="compile llama.cpp's tools",
                maker=f"{__name__}:compile_tools",
                arguments={
                    "compiler": compiler,
                    "source": str(source),
                    "libraries": [str(folder) for folder in libraries],
                },
                output=output,
            )
            run_preparation(job, logs / f"{output.name}.log", timeout=TIME_LIMIT)
    return output


def compile_tools(
    output: Path, *, report: Report, compiler: list[str], source: str, libraries: list[str]
) -> None:
    """Write the folder of the programs. Raises MeasurementError where one does not compile."""
    with whole(output, folder=True) as work:
        for number, tool in enumerate(TOOLS):
            report(f"compile {tool}", number, len(TOOLS))
            line = command(compiler, Path(source), tool, [Path(folder) for folder in libraries], work / tool)
            print(shlex.join(line), flush=True)
            status = subprocess.run(line, stdin=subprocess.DEVNULL).returncode
            if status != 0:
                raise MeasurementError(
                    f"{tool} cannot be compiled: {compiler[0]} ended with exit status {status}"
                )


def command(
    compiler: Sequence[str], source: Path, tool: str, libraries: Sequence[Path], output: Path
) -> list[str]:
    """Return the command that compiles and links one tool. Raises MeasurementError where its source is missing."""
    files = [source / file for file in TOOLS[tool]]
    for file in files:
        if not file.is_file():
            raise MeasurementError(f"{file}: is missing; {tool} is compiled from it")
    return [
        *compiler,
        *FLAGS,
        *(f"-I{source / folder}" for folder in HEADERS),
        *(str(file) for file in files),
        *(f"-L{folder}" for folder in libraries),
        *(f"-Wl,-rpath-link,{folder}" for folder in libraries),
        *(f"-l{name}" for name in LIBRARIES),
        "-o",
        str(output),
    ]


def library_folders() -> list[Path]:
    """Return the folders of llama-cpp-python's shared libraries: those that the suite loads, and libllama-common, which
    only the tools need. Raises MeasurementError where they are missing."""
    spec = importlib.util.find_spec("llama_cpp")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise MeasurementError("llama-cpp-python is not installed")
    package = Path(spec.submodule_search_locations[0])
    common = next(iter(sorted(package.parent.glob("lib*/libllama-common.so"))), None)
    if common is None:
        raise MeasurementError(
            f"{package.parent}: this llama-cpp-python lacks libllama-common.so, which llama.cpp's tools "
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
