"""Show a planned update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantgate.records import Status

if TYPE_CHECKING:
    from rich.table import Table

    from quantgate.baselines.update import Row, Update


def format_update(update: Update) -> Table:
    """Return the planned update as a table for the terminal: metric, old, new, difference."""
    from rich.table import Table
    from rich.text import Text

    on = f", timings of {update.machine}" if update.machine else ""
    again = ["update them again on an idle machine: -m throughput"] if update.warnings else []
    warnings = [*update.narrow, *update.warnings, *again]
    table = Table(
        title=Text(f"{update.new.cell} ({update.new.tier}{on})"),
        title_justify="left",
        caption=Text("\n".join(warnings), style="yellow") if warnings else None,
        caption_justify="left",
    )
    table.add_column("metric", overflow="fold")
    for heading in ("old", "new", "difference"):
        table.add_column(heading, justify="right")
    colours = {Status.REGRESSION: "red", Status.ERROR: "red", Status.IMPROVEMENT: "green"}
    for row in update.rows:
        table.add_row(
            Text(f"{row.metric} ({row.unit})"),
            "-" if row.old is None else _number(row.old),
            f"kept from {row.kept}" if row.new is None else _number(row.new),
            _difference(row),
            style="dim" if row.new is None else colours.get(row.status, "") if row.status else "",
        )
    return table


def _difference(row: Row) -> str:
    if row.difference is None:
        return "" if row.new is None else "first"
    if row.difference == 0:
        return "none"
    return _number(row.difference, "+") + (f" ({row.difference / abs(row.old):+.2%})" if row.old else "")


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if value.is_integer() else f"{value:{sign}.6g}"
