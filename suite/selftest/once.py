"""What takes seconds to make is made once, for all processes of pytest-xdist."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from quantgate.locks import locked


class Once:
    """Folders below one that the processes of a test session share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the folder of this name, which `make` fills where none has before. Tests do not change what is in it:
        they copy it."""
        folder, made = self.folder / name, self.folder / f"{name}.made"
        with locked(self.folder / f"{name}.lock", f"make {name}"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                make(folder)
                made.touch()
        return folder
