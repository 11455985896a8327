"""Collect llama.cpp's log: its calls return a null pointer or a status, and only the log has the cause."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp
from llama_cpp._logger import llama_log_callback

_ERROR, _CONTINUED = 4, 5
"""Levels as ggml numbers them."""
_LAST = re.compile(r"(?:error loading model|failed to quantize): (.+)")
"""How llama.cpp passes on what its C++ code has thrown."""
_VAGUE = ("failed to load model from", "failed to load GGUF split from")


class Log:
    """lines: all of it, in order. errors: those of level error."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._text = ""
        self._level = 0

    def add(self, level: int, text: str) -> None:
        """Take a piece as llama.cpp hands it over: of a line, or of several."""
        if level != _CONTINUED:
            self._level = level
        self._text += text
        *whole, self._text = self._text.split("\n")
        for line in filter(None, map(str.strip, whole)):
            self.lines.append(line)
            if self._level == _ERROR and line.strip("="):
                self.errors.append(line)

    @property
    def cause(self) -> str:
        """Why a call failed, in llama.cpp's words: what was thrown, or where that says nothing, the first error."""
        thrown = [match[1] for line in self.errors if (match := _LAST.search(line))]
        clear = [text for text in thrown if not any(vague in text for vague in _VAGUE)]
        named = [re.sub(r"^\w+: ", "", line) for line in self.errors]
        return next(iter([*clear[-1:], *named]), "its log says nothing")


@contextmanager
def listening() -> Iterator[Log]:
    """Read along while the block runs; what llama-cpp-python prints of the log goes on being printed."""
    log = Log()

    def hear(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        line = text.decode(errors="replace")
        log.add(level, line)
        if level == _ERROR:
            # llama-cpp-python takes this level for debugging.
            print(line, end="", flush=True, file=sys.stderr)
        else:
            llama_log_callback(level, text, data)

    callback = llama_cpp.llama_log_callback(hear)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield log
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))
