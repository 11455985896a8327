"""What the commands of quantgate (`python -m quantgate.<name>`) share."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

WRONG_INPUT = 4
"""Exit status for an option, a file or a record that does not fit: pytest's own for a usage error."""


class Parser(argparse.ArgumentParser):
    """Ends with `WRONG_INPUT` where an option is wrong."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG_INPUT, f"{self.prog}: {message}\n")
