"""`python -m quantgate.proofs.cuda`: whether the suite measures rightly on a CUDA device; `--device cpu`: a rehearsal.

Exit status 1: a check is outside its bound or failed; 4: wrong input, or no such device.
"""

from __future__ import annotations

from quantgate.commands import run_command
from quantgate.proofs.cuda.command import main

if __name__ == "__main__":
    run_command(main)
