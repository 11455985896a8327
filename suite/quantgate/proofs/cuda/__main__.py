"""`python -m quantgate.proofs.cuda`: whether the suite measures rightly on a CUDA device; `--device cpu`: a rehearsal.

Exit status 1: a check is outside its bound or failed; 4: wrong input, no such device, or a module that is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from quantgate.commands import WRONG_INPUT, run_command

NEEDED = (
    "accelerate",
    "numpy",
    "packaging",
    "platformdirs",
    "psutil",
    "pydantic",
    "rich",
    "safetensors",
    "tokenizers",
)
"""Modules without which no row can be measured, beside torch and transformers. The check may be run where nobody has
installed this package, and no index can be reached."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    if absent := [name for name in (*NEEDED, "torch", "transformers") if find_spec(name) is None]:
        print(
            f"not installed: {', '.join(absent)}. Install them, or bring them along in a folder on PYTHONPATH "
            "(pip install --target)",
            file=sys.stderr,
        )
        return WRONG_INPUT
    from quantgate.proofs.cuda.command import main as run

    return run(arguments)


if __name__ == "__main__":
    run_command(main)
