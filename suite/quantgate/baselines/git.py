"""Which files of baselines git leaves out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


def ignored(root: Path, files: Sequence[Path]) -> list[Path]:
    """Return those of `files`, which lie below `root`, that a .gitignore keeps out of git; none where git knows no
    repository there."""
    if not files:
        return []
    paths = b"".join(os.fsencode(file.absolute()) + b"\0" for file in files)
    command = ["git", "-C", str(root), "check-ignore", "-z", "--stdin"]
    try:
        done = subprocess.run(command, input=paths, capture_output=True, check=False)
    except OSError:
        return []
    return [Path(os.fsdecode(path)) for path in done.stdout.split(b"\0") if path]
