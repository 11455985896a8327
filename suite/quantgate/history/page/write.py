"""Write the page of a history."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quantgate.errors import InputError
from quantgate.files import replacing
from quantgate.history.events import Event
from quantgate.history.page import view as views
from quantgate.history.page.data import pack
from quantgate.history.series import History
from quantgate.history.telling import WORDS
from quantgate.records import Scalar
from quantgate.report.page.template import render

FOLDER = Path(__file__).parent
PLACE = "<!--pieces-->"
"""Where the packed series stand in the page."""


def write_page(path: Path, history: History, events: Sequence[Event]) -> None:
    """Write the page in one step. Raises InputError naming the file where it cannot be written."""
    shown = views.view(history, events)
    pieces = [pack(entry.series, history.tiers[entry.tier]) for entry in shown.entries]
    table = views.rows(shown)
    numbers = {(entry.tier, entry.cell): number for number, entry in enumerate(shown.entries)}
    page = render(
        "history.html.j2",
        folder=FOLDER,
        styles=("history.css",),
        scripts=("chart.js", "history.js"),
        shown=shown,
        rows=table,
        tally=views.tally(table),
        words=WORDS,
        sentence=views.sentence,
        members=views.members,
        frontiers=views.newest_frontiers(shown),
        numbers=numbers,
        links={cell: f"#c{number}" for (_, cell), number in numbers.items()},
        meta=views.meta(shown, [piece.ranges for piece in pieces]),
    )
    before, _, after = page.partition(PLACE)
    try:
        with replacing(path) as file:
            file.write(before.encode())
            file.write(_element("environments", _environments(history)).encode())
            for number, piece in enumerate(pieces):
                file.write(_element(f"piece-{number}", piece.text).encode())
            file.write(after.encode())
    except OSError as error:
        raise InputError(
            f"cannot write the page {path}: {error.strerror or error}. "
            "Name a file in a writable folder with --out FILE."
        ) from error


def _element(name: str, text: str) -> str:
    return f'<script type="text/plain" id="{name}">{text}</script>\n'


def _environments(history: History) -> str:
    """Return the environments by their codes, packed: keys and values once, then their numbers."""
    texts: dict[str, int] = {}
    lists = [list(_numbered(history.environments.get(name, {}), texts)) for name in history.hashes]
    packed = zlib.compress(json.dumps([list(texts), lists], separators=(",", ":")).encode(), 6)
    return base64.b64encode(packed).decode()


def _numbered(environment: Mapping[str, Scalar], texts: dict[str, int]) -> Iterator[int]:
    for pair in environment.items():
        for text in map(str, pair):
            yield texts.setdefault(text, len(texts))
