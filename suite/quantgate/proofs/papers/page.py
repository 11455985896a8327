"""One page of all sections, readable without the papers: HTML that loads nothing, and the figures as PNG beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantgate.files import write_atomic
from quantgate.proofs.papers import charts
from quantgate.proofs.papers.expected import Outcome
from quantgate.proofs.papers.section import Figure, Measured, Paper, Table

NAME = "papers.html"


@dataclass(frozen=True)
class Shown:
    """One section. missing: why there is nothing but the question; empty where it was measured. origin: a sentence on
    the run that measured it."""

    name: str
    paper: Paper
    missing: str = ""
    outcomes: Sequence[Outcome] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    origin: str = ""
    specs: Mapping[str, Any] = field(default_factory=dict)
    """Of the figures, by name: as the page's script takes them."""

    @property
    def tally(self) -> str:
        """`14 hold, 2 do not hold, 1 open`."""
        count = Counter(o.finding.state for o in self.outcomes)
        return f"{count['holds']} hold, {count['does not hold']} do not hold, {count['open']} open"


def origin_of(measured: Measured) -> str:
    """Which versions measured the cells, when, and how long it took."""
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
    """The page. Raises InputError without the libraries that draw."""
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string(
        (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    )
    # A script's own end tags would end it for the browser.
    script = charts.script().replace("</script", "<\\/script")
    page: str = template.render(sections=sections, script=script)
    return page


def write(sections: Sequence[Shown], folder: Path) -> list[Path]:
    """Write page and PNGs; returns their paths, the page's first."""
    files = {NAME: render(sections).encode()}
    for figure in (figure for section in sections for figure in section.figures):
        files[f"{figure.name}.png"] = charts.png(figure.chart)
    for name, content in files.items():
        write_atomic(folder / name, content)
    return [folder / name for name in files]
