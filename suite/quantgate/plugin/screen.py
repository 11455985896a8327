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
    """Standard output as it was before pytest captured it; nothing in a process of pytest-xdist. Warnings are shown
    there as they come: who holds a lock, what of the cache is made anew."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._warnings: logging.StreamHandler[Any]
        if is_worker(config):
            self.file = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
            # The processes of pytest-xdist have standard error alone, here as it was before it was captured.
            self._warnings = logging.StreamHandler(os.fdopen(os.dup(2), "w", errors="backslashreplace"))
        else:
            self.file = os.fdopen(os.dup(1), "w", errors="backslashreplace")
            self._warnings = logging.StreamHandler(self)
        self._warnings.setLevel(logging.WARNING)
        logging.getLogger("quantgate").addHandler(self._warnings)

    def say(self, text: str) -> None:
        """Write a whole line."""
        self.write(f"{text}\n")
        self.file.flush()

    def write(self, text: str) -> None:
        """Write text that begins a line."""
        self.fresh_line()
        self.file.write(text)

    def flush(self) -> None:
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
