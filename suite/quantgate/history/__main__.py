"""`python -m quantgate.history`: append the runs of old reports, say what happened, write the page.

Exit status of `events`: 0, none is open; 1, one or more are; 4, wrong input. Of `import`: 0; 4, a report could not be
read or written (the others were). Of `issues` and `page`: 0; 4, wrong input.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from quantgate.commands import WRONG_INPUT, Parser, at_least, run_command
from quantgate.errors import InputError
from quantgate.history.acknowledged import ACKNOWLEDGED, load_acknowledged
from quantgate.history.events import Event, State, events
from quantgate.history.issues import to_issues
from quantgate.history.series import History, read
from quantgate.history.store import append
from quantgate.history.telling import to_json, to_text

OPEN_EVENTS = 1
"""Exit status where an event is open."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except InputError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT


def _import(options: argparse.Namespace) -> int:
    """Append the run of each report; one that is there already is left as it is."""
    from quantgate.history.old_reports import read_report

    status = 0
    for report in options.reports:
        try:
            path, new = append(options.history, *read_report(report))
            print(f"wrote {path}" if new else f"{path} is there already")
        except InputError as error:
            print(error, file=sys.stderr)
            status = WRONG_INPUT
    return status


def _events(options: argparse.Namespace) -> int:
    """Print the events of a history."""
    history, listed = _read(options)
    if options.json:
        print(to_json(history, listed))
    else:
        print(to_text(history, listed, everything=options.all))
    return OPEN_EVENTS if any(event.state == State.OPEN for event in listed) else 0


def _issues(options: argparse.Namespace) -> int:
    """Print the events of a history as texts of issues."""
    history, listed = _read(options)
    print(to_issues(history, listed))
    return 0


def _page(options: argparse.Namespace) -> int:
    """Write the page of a history."""
    from quantgate.history.page.write import write_page

    write_page(options.out, *_read(options, options.newest))
    print(f"wrote {options.out}")
    return 0


def _read(options: argparse.Namespace, newest: int | None = None) -> tuple[History, list[Event]]:
    """Return a history and its events; print what could not be read."""
    acknowledged = load_acknowledged(options.acknowledged)
    history = read(options.folder, tier=options.tier, newest=newest)
    for problem in history.problems:
        print(problem, file=sys.stderr)
    return history, events(history, acknowledged, options.today)


def _parser() -> Parser:
    parser = Parser(prog="python -m quantgate.history", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], about: str) -> Callable[..., object]:
        one = commands.add_parser(name, help=about)
        one.set_defaults(command=run)
        return one.add_argument

    add = command("import", _import, "append the runs of old reports")
    add(
        "reports",
        nargs="+",
        type=Path,
        metavar="REPORT",
        help="report.json of --report, or the folder that has it",
    )
    add("--history", type=Path, default=Path("history"), metavar="DIR", help="default: history/")

    add = command("events", _events, "say what happened, and what of it is open")
    _add_reading(add)
    add("--all", action="store_true", help="also events that are acknowledged, gone or fixed")
    add("--json", action="store_true", help="all events with their members, for programs")

    about = "write each event as the text of a GitHub issue, for .github/scripts/events.py"
    _add_reading(command("issues", _issues, about))

    add = command("page", _page, "write all of it as one HTML file that loads nothing")
    _add_reading(add)
    add("--out", type=Path, default=Path("history.html"), metavar="FILE", help="default: history.html")
    add("--newest", type=at_least(1), metavar="N", help="only the last N runs (default: all)")
    return parser


def _add_reading(add: Callable[..., object]) -> None:
    """Add the options of commands that read a history and its events."""
    add("folder", type=Path, metavar="DIR", help="the history")
    add("--tier", metavar="NAME", help="only runs of this tier")
    add("--acknowledged", type=Path, metavar="FILE", help=f"default: {ACKNOWLEDGED.name} among the fixtures")
    add(
        "--today",
        type=datetime.date.fromisoformat,
        metavar="DATE",
        default=datetime.datetime.now(datetime.UTC).date(),
        help="the day at which acknowledgements have to hold (default: today, UTC)",
    )


if __name__ == "__main__":
    run_command(main)
