"""Write to the terminal beside pytest: notes, warnings and progress while cases run."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest


def is_worker(config: pytest.Config) -> bool:
    """Return whether this is a process of pytest-xdist, which hands its reports to another."""
    return hasattr(config, "workerinput")


class Screen:
    """Standard output as it was before pytest captured it; nothing in a process of pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.file: Any
        self._warnings: logging.Handler
        if is_worker(config):
            self.file = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
            self._warnings = _OnStderr(logging.WARNING)
        else:
            self.file = os.fdopen(os.dup(1), "w", errors="backslashreplace")
            self._warnings = _OnScreen(self)
        logging.getLogger("quantgate").addHandler(self._warnings)

    def say(self, text: str) -> None:
        """Write a line of its own."""
        self.fresh_line()
        self.file.write(f"{text}\n")
        self.file.flush()

    def fresh_line(self) -> None:
        """End the line that pytest has begun (`suite/test_memory.py ..`)."""
        find = self._config.pluginmanager.get_plugin
        reporter, capture = find("terminalreporter"), find("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.flush()

    def close(self) -> None:
        """Show warnings no longer, and close the file."""
        logging.getLogger("quantgate").removeHandler(self._warnings)
        self.file.close()


class _OnScreen(logging.Handler):
    """Shows warnings as they come: who holds a lock, what of the cache is made anew."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(record.getMessage())


class _OnStderr(logging.Handler):
    """Shows warnings on standard error, duplicated before pytest captures it."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._descriptor = os.dup(2)

    def emit(self, record: logging.LogRecord) -> None:
        os.write(self._descriptor, f"{record.getMessage()}\n".encode(errors="backslashreplace"))
