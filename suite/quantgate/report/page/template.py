"""Fill a template and put styles and scripts into it, so that the page is one file that loads nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from quantgate.records import Status
from quantgate.report.summary import MARKS

FOLDER = Path(__file__).parent

SLUGS = {status: status.replace(" ", "-") for status in Status}
"""CSS classes of the conclusions."""


def render(
    name: str,
    *,
    folder: Path = FOLDER,
    styles: tuple[str, ...] = (),
    scripts: tuple[str, ...] = (),
    **values: Any,
) -> str:
    """Return the page of the template `name` in `folder`, which may extend those of this room.

    styles, scripts: files of `folder` that follow `style.css` and `page.js`. Every value is escaped.
    """
    import markupsafe

    # Both are files of the project, not input; neither contains an end tag (a selftest holds them to that).
    css = _together("style.css", folder, styles)
    code = _together("page.js", folder, scripts)
    template = templates(folder).get_template(name)
    page: str = template.render(
        marks=MARKS,
        slugs=SLUGS,
        css=markupsafe.Markup(css),  # noqa: S704
        script=markupsafe.Markup(code),  # noqa: S704
        # The browser runs this script and no other, whatever a name or a log contains, and loads nothing.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(code)}'",
        **values,
    )
    return page


@functools.cache
def templates(folder: Path) -> Any:
    """Return jinja2's environment of `folder`, which compiles a template once."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _together(first: str, folder: Path, files: tuple[str, ...]) -> str:
    paths = [FOLDER / first, *(folder / file for file in files)]
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
