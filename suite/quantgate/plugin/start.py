"""The folder and the variables that pytest was started with, which its tests may change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Start:
    """The folder of this process when it is made, and the variables of that time, or of the last `take_variables`."""

    def __init__(self) -> None:
        self._folder = Path.cwd()
        self.take_variables()

    def take_variables(self) -> None:
        """Take the variables as they are now."""
        self._variables = dict(os.environ)

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Run the block in that folder and with these variables; leave both as they were before the block.

        A fixture that a repository has for all of its tests (a temporary folder, no variables) is active in the gate's
        cases, too. There, `--baselines=DIR` would name another folder, and the cache would lie in another home.
        """
        before = dict(os.environ)
        folder = os.open(".", os.O_PATH)  # it may have been removed, and has no path then
        try:
            os.chdir(self._folder)
            _set(self._variables)
            yield
        finally:
            _set(before)
            os.fchdir(folder)
            os.close(folder)


def _set(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
