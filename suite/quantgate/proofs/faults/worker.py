"""Start the measuring process with a fault: `python -m quantgate.proofs.faults.worker NAME JOB.json`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from quantgate.commands import WRONG_INPUT
from quantgate.errors import InputError
from quantgate.measure import worker
from quantgate.proofs.faults.catalogue import named


def main(arguments: Sequence[str]) -> int:
    """Apply the fault, then measure. Returns the exit status: 4 for a fault that does not exist."""
    name, *job = arguments
    try:
        fault = named(name)
    except InputError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    fault.apply()
    return worker.main(job)


if __name__ == "__main__":
    worker.leave(main(sys.argv[1:]))
