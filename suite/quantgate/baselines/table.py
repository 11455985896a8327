"""Show a planned update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantgate.measure.groups import group_name
from quantgate.records import Status

if TYPE_CHECKING:
    from rich.table import Table

    from quantgate.baselines.update import Row, Update


def format_update(update: Update) -> Table:
    """Return the planned update as a table for the terminal: metric, old, new, difference from it and from the
    anchor."""
    from rich.table import Table
    from rich.text import Text

    on = f", timings of {update.machine}" if update.machine else ""
    groups = " or ".join(dict.fromkeys(map(group_name, update.warnings)))
    again = [f'update them again on an idle machine: -m "{groups}"'] if update.warnings else []
    warnings = [*update.moved, *update.narrow, *update.warnings, *again]
    table = Table(
        title=Text(f"{update.new.cell} ({update.new.tier}{on})"),
        title_justify="left",
        caption=Text("\n".join(warnings), style="yellow") if warnings else None,
        caption_justify="left",
    )
    table.add_column("metric", overflow="fold")
    anchored = ["from the anchor"] if any(row.anchor is not None for row in update.rows) else []
    for heading in ("old", "new", "difference", *anchored):
        table.add_column(heading, justify="right")
    red = dict.fromkeys((Status.REGRESSION, Status.DRIFT, Status.ERROR), "red")
    colours = {**red, Status.IMPROVEMENT: "green"}
    for row in update.rows:
        table.add_row(
            Text(f"{row.metric} ({row.unit})" if row.unit else row.metric),
            "-" if row.old is None else _number(row.old),
            f"kept from {row.kept}" if row.new is None else _number(row.new),
            _difference(row),
            *([_from_anchor(row)] if anchored else []),
            style="dim" if row.new is None else colours.get(row.status, "") if row.status else "",
        )
    return table


def _difference(row: Row) -> str:
    if row.difference is None:
        return "" if row.new is None else "first"
    return _signed(row.difference, row.old)


def _from_anchor(row: Row) -> str:
    """Return what the losses of all updates add up to; empty where nothing adds up."""
    if row.from_anchor is None:
        return ""
    return f"{_signed(row.from_anchor, row.anchor)} since {row.since}"


def _signed(difference: float, of: float | None) -> str:
    if difference == 0:
        return "none"
    return _number(difference, "+") + (f" ({100 * difference / abs(of):+.2f} %)" if of else "")


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.0f}" if value.is_integer() else f"{value:{sign}.6g}"
