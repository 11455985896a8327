"""Write one page of all sections, readable without the papers: HTML that loads nothing, and the figures as PNG."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate.files import write_atomic
from quantgate.proofs.papers.expected import Outcome
from quantgate.proofs.papers.section import Figure, Measured, Paper, Table, load_altair

NAME = "papers.html"
SCALE = 2.0
"""Pixels of a PNG to one of the page."""


@dataclass(frozen=True)
class Shown:
    """One section of the page. missing: why it was not measured; empty where it was. origin: a sentence on the run that
    measured it. specs: of the figures by name, as the page's script takes them."""

    name: str
    paper: Paper
    missing: str = ""
    outcomes: Sequence[Outcome] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    origin: str = ""
    specs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tally(self) -> str:
        """`14 hold, 2 do not hold, 1 open`."""
        count = Counter(o.finding.state for o in self.outcomes)
        return f"{count['holds']} hold, {count['does not hold']} do not hold, {count['open']} open"


def origin_of(measured: Measured) -> str:
    """Say which versions measured the cells, when, and how long it took."""
    records = [record for _, record in measured]
    if not records:
        return ""
    seconds = sum(r.seconds for r in records)
    last = max(records, key=lambda r: r.created)
    versions = ", ".join(
        f"{k} {last.environment[k]}"
        for k in ("torch", "transformers", "llama-cpp-python")
        if k in last.environment
    )
    return (
        f"{len(records)} cells, {seconds / 60:.0f} minutes of measuring processes, the last one at {last.created}; "
        f"{versions}."
    )


def render(sections: Sequence[Shown]) -> str:
    """Return the page. Raises InputError where altair or vl-convert is missing."""
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    )
    # The browser would end the script at an end tag inside it.
    script = _script().replace("</script", "<\\/script")
    page: str = template.render(sections=sections, script=script)
    return page


def write(sections: Sequence[Shown], folder: Path) -> list[Path]:
    """Write page and PNGs; returns their paths, the page's first."""
    files = {NAME: render(sections).encode()}
    for figure in (figure for section in sections for figure in section.figures):
        files[f"{figure.name}.png"] = png(figure.chart)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]


def styled(chart: Any) -> Any:
    """Return the chart with the look that all figures share."""
    return (
        chart.configure_view(strokeOpacity=0.2)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.4)
        .configure_legend(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", symbolOpacity=1)
        .configure_header(labelFontSize=12)
    )


def png(chart: Any) -> bytes:
    """Return the chart as a picture."""
    import vl_convert

    picture: bytes = vl_convert.vegalite_to_png(styled(chart).to_json(), scale=SCALE)
    return picture


@functools.cache
def _script() -> str:
    """Return the JavaScript that shows charts, in one piece to be put into the page."""
    load_altair()
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script
