"""What the figures of all sections share: sizes, colours, and how a chart becomes a PNG or a part of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quantgate.errors import InputError

WIDTH, HEIGHT = 420, 300
SCALE = 2.0
"""Pixels of a PNG to one of the page."""


def altair() -> Any:
    """The library. Raises InputError without it."""
    try:
        import altair
        import vl_convert  # noqa: F401
    except ImportError:
        raise InputError(
            "figures need altair and vl-convert-python: pip install 'quantgate[papers]'"
        ) from None
    return altair


def data(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Rows of named values as a chart takes them."""
    return altair().Data(values=[dict(row) for row in rows])


def dressed(chart: Any) -> Any:
    """With the look that all figures have."""
    return (
        chart.configure_view(strokeOpacity=0.2)
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.4)
        .configure_legend(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", symbolOpacity=1)
        .configure_header(labelFontSize=12)
    )


def png(chart: Any) -> bytes:
    """The chart as a picture."""
    import vl_convert

    made: bytes = vl_convert.vegalite_to_png(dressed(chart).to_json(), scale=SCALE)
    return made


def script() -> str:
    """The JavaScript that shows charts, in one piece, to be put into a page: it loads nothing."""
    altair()
    import vl_convert

    made: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return made
