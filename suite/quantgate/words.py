"""Format numbers, changes and durations; remove control characters from text of other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from quantgate.records import Verdict

DASH = "-"
ROUNDING = 1e-10
"""Percent; a smaller change is that of the last digit of a sum."""
BEYOND = 1e15
"""Numbers from here on, the perplexities of broken models, are written as powers of ten."""


def signed(number: float, unit: str) -> str:
    """Return a signed number with its unit, `+0.53 %`, `-12 %`; empty where it rounds to zero."""
    if abs(number) >= BEYOND:
        return f"{number:+.3g} {unit}"
    digits = 2 if abs(number) < 0.995 else 1 if abs(number) < 9.95 else 0
    text = f"{number:+.{digits}f}"
    return f"{text} {unit}" if float(text) else ""


def quantity(value: float | None, unit: str = "") -> str:
    """Return a value in full, so that two values that differ look different."""
    if value is None:
        return DASH
    if unit == "fraction":
        return f"{value * 100:.2f} %"
    if abs(value) >= BEYOND:
        text = f"{value:.5g}"
    elif unit == "x":
        text = f"{value:.3f}"
    else:
        text = f"{value:,.0f}" if value.is_integer() or abs(value) >= 9999.5 else f"{value:#.5g}"
    return f"{text} {unit}".rstrip()


def delta(value: float, verdict: Verdict) -> str:
    """Return a change in the verdict's terms: percent, percentage points, or the metric's unit."""
    if verdict.change_unit == "absolute" and verdict.unit != "fraction":
        return f"{value:+{_digits(value, 4)}} {verdict.unit}".rstrip()
    unit = "%" if verdict.change_unit == "relative" else "pp"
    if not value:
        return f"0 {unit}"
    percent = value * 100
    if abs(percent) < ROUNDING:
        return f"0 {unit}"
    if abs(percent) >= BEYOND:
        return f"{percent:+.3g} {unit}"
    digits = ".1f" if abs(percent) >= 10 else ".2f" if abs(percent) >= 0.005 else ".1g"  # never +0.00
    return f"{percent:+{digits}} {unit}"


def _digits(value: float, most: int) -> str:
    """Return the format of a number: at most so many digits; whole, with commas, from a thousand on."""
    return ",.0f" if 999.5 <= abs(value) < BEYOND else f".{most}g"


def limit(verdict: Verdict, value: float | None) -> str:
    """Return a tolerance or a detectable change in the verdict's terms, without a sign; empty for None."""
    if value is None:
        return ""
    if verdict.change_unit == "absolute" and verdict.unit != "fraction":
        return f"{value:{_digits(value, 3)}} {verdict.unit}".rstrip()
    return f"{value * 100:.3g} {'%' if verdict.change_unit == 'relative' else 'pp'}"


def difference(verdict: Verdict) -> str:
    """Return the change with its interval: `+9.28 % (+8.91 % to +9.65 %)`."""
    if verdict.change is None:
        return ""
    text, low, high = delta(verdict.change, verdict), verdict.change_low, verdict.change_high
    if low is not None and high is not None:
        beyond = verdict.change_unit == "relative" and high > 10  # a factor of 11: the figures mean nothing
        text += f" ({delta(low, verdict)} to {'more than +1000 %' if beyond else delta(high, verdict)})"
    return text


def columns(verdict: Verdict) -> list[str]:
    """Return baseline, measured, difference and tolerance for the row of a table; a dash where there is none."""
    values = [quantity(verdict.baseline, verdict.unit), quantity(verdict.measured, verdict.unit)]
    return [*values, difference(verdict) or DASH, limit(verdict, verdict.tolerance) or DASH]


def comparison(verdict: Verdict) -> list[str]:
    """Return the phrases baseline, measured, difference, tolerance and detectable loss, to be joined by commas."""
    phrases = [
        f"baseline {quantity(verdict.baseline, verdict.unit)}",
        f"measured {quantity(verdict.measured, verdict.unit)}",
        difference(verdict),
        f"tolerance {limit(verdict, verdict.tolerance)}" if verdict.tolerance is not None else "",
        f"detects {limit(verdict, verdict.detectable)}" if verdict.detectable is not None else "",
    ]
    return [phrase for phrase in phrases if phrase]


def duration(seconds: float) -> str:
    """Return a duration: `41 s`, `9 min 40 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun: `1 cell`, `3 cells`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(metrics: list[str]) -> str:
    """Join names of metrics; a group with more than three is shown as `group/* (number)`."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        groups.setdefault(metric.partition("/")[0], []).append(metric)
    return ", ".join(
        f"{group}/* ({len(names)})" if len(names) > 3 else ", ".join(names) for group, names in groups.items()
    )


def shortened(names: Sequence[str], most: int) -> str:
    """Join names; of more than `most` only the first ones: `a, b and 3 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def abridged(cells: list[str]) -> str:
    """Join names of cells; from more than six only the first four, since the table has them all."""
    return ", ".join(cells) if len(cells) <= 6 else f"{shortened(cells, 4)} cells"


def lines_of(text: str) -> list[str]:
    """Return the lines that are not blank, made harmless (see `clean`)."""
    return [line for line in clean(text).splitlines() if line.strip()]


def clean(text: str) -> str:
    """Remove escape sequences, control characters and the overwritten states of progress bars."""
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", "", text).expandtabs(4)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", "", line) for line in lines)
