"""What the commands of quantgate (`python -m quantgate.<name>`) share."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Callable
from typing import NoReturn, TextIO

WRONG_INPUT = 4
"""Exit status for an option, a file or a record that does not fit: pytest's own for a usage error."""
CUT_SHORT = 141
"""Exit status where the reader of the output has closed it (`| head`): that of a program which SIGPIPE ends. Python
ignores the signal, and must: the pipes to measuring processes may break without harm."""


class Parser(argparse.ArgumentParser):
    """Ends with `WRONG_INPUT` where an option is wrong."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG_INPUT, f"{self.prog}: {message}\n")


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number from `least` on."""

    def whole(text: str) -> int:
        if (number := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be {least} or more")
        return number

    whole.__name__ = "whole number"  # argparse names it: invalid whole number value: 'x'
    return whole


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit status; with `CUT_SHORT`, and without a word, where the reader of
    its output has gone."""
    try:
        try:
            status = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        broken = [stream for stream in (sys.stdout, sys.stderr) if _reader_gone(stream)]
        if not broken:
            raise  # another pipe
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in broken:  # the interpreter writes what is left when it ends
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        status = CUT_SHORT
    sys.exit(status)


def _reader_gone(stream: TextIO) -> bool:
    """Return whether a stream is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
