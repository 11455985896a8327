"""`python -m quantgate.supply.llama_server`: build llama-server against the installed llama-cpp-python; print its path.

It is compiled once, in two minutes of a processor, from the source inside the pinned package, and kept in the cache. It
computes with the libraries of the cells in process. The web page is left out. Exit status 1: it cannot be built.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantgate.commands import Parser, run_command
from quantgate.errors import QuantgateError
from quantgate.processes.progress import OnProgress
from quantgate.serving.programs import LLAMA_SERVER
from quantgate.supply.compiled import COMMON, Program, compiled, library_folders

UI = """\
#pragma once
#include <cstddef>
#include <string>
#include <vector>

struct llama_ui_asset {
    std::string name;
    const unsigned char * data;
    size_t size;
    std::string type;
    std::string etag;
};

inline const std::vector<llama_ui_asset> & llama_ui_get_assets() {
    static const std::vector<llama_ui_asset> none;
    return none;
}
"""
"""The header with the files of the web page, which llama.cpp's own build makes: here it has none."""

MANY = 1000

ENCRYPTS = "-DCPPHTTPLIB_OPENSSL_SUPPORT"
"""Changes the layout of objects that the server shares with libllama-common: both have it, or neither."""


def llama_server(logs: Path, say: OnProgress) -> Path:
    """Return the path of the program, built unless it is cached. Raises QuantgateError."""
    common = library_folders()[-1] / COMMON
    return compiled(LLAMA_SERVER, [recipe(b"libssl.so" in common.read_bytes())], logs, say) / LLAMA_SERVER


def recipe(encrypts: bool) -> Program:
    """Return what llama-server is compiled from. encrypts: libllama-common was built with OpenSSL. -O1 takes a third of
    the time of -O3; what computes is in the libraries."""
    further = (ENCRYPTS,) if encrypts else ()
    return Program(
        name=LLAMA_SERVER,
        sources=["tools/server/*.cpp"],
        headers=[".", "common", "include", "ggml/include", "tools/mtmd", "tools/server", "vendor"],
        made={"ui.h": UI},
        libraries=["mtmd", "llama-common", "llama", "ggml", "ggml-base"],
        flags=("-O1", "-DLLAMA_SUBPROCESS", "-DLLAMA_SHARED", "-DGGML_SHARED", *further),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Build it, and print where it is."""
    Parser("python -m quantgate.supply.llama_server", description=__doc__).parse_args(arguments)
    logs = Path(tempfile.mkdtemp(prefix="llama-server-"))
    try:
        path = llama_server(logs, _say)
    except QuantgateError as error:
        print(f"llama-server cannot be built: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _say(line: str, done: float, total: float) -> None:
    if total < MANY:  # files, and no bytes of a download
        print(f"{line}{f' ({done:g} of {total:g})' if total else ''}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
