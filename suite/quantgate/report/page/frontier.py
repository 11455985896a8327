"""Help to choose between schemes: show the size, loss and speed of each cell, and which cells no other
cell of the same model beats in all three (the Pareto front)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from quantgate.measure.groups import group_name
from quantgate.records import Status, Verdict, worst
from quantgate.report.findings import FAILED
from quantgate.report.page.chart import Label, Scale, around, place_labels

SIZE = "memory/weight_bytes"
LOSSES = {"divergence/kl_mean": "KL divergence, nats", "perplexity": "perplexity"}
"""The metrics that state a loss, the first of them that a model's cells have; smaller is better."""
SPEEDS = {
    "throughput/decode": "decoding, tokens/s",
    "throughput/decode_ratio": "decoding, x of the reference",
}
"""The metrics that state a speed; larger is better."""
AGAINST_REFERENCE = "perplexity/loss"
"""The metric that every cell with a perplexity has but the reference."""
SHOWN = (SIZE, *LOSSES, AGAINST_REFERENCE, *SPEEDS)
"""What the charts are made of."""

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 448, 12, 286
"""The drawing, and the area inside its axes."""
SHAPES = 6
"""How many backends have a colour and a shape to themselves."""


@dataclass(frozen=True)
class Point:
    """A cell. size: bytes of its weights. speed: None where it was not measured. front: no other cell beats it."""

    cell: str
    size: float
    loss: float
    speed: float | None
    status: Status
    front: bool = False

    @property
    def backend(self) -> str:
        return self.cell.split("/")[1] if self.cell.count("/") > 1 else ""

    @property
    def scheme(self) -> str:
        return self.cell.rpartition("/")[2]

    @property
    def failed(self) -> bool:
        return self.status in FAILED


@dataclass(frozen=True)
class Mark:
    """A point as drawn. shape: the number of its backend's colour and shape. text: what it shows when pointed at."""

    x: float
    y: float
    point: Point
    shape: int
    text: str


@dataclass(frozen=True)
class Panel:
    """One of the two drawings. ticks: (pixel, text) along each axis. front: corners of the line that joins the cells
    which no other beats in these two."""

    title: str
    name: str
    marks: list[Mark]
    labels: list[Label]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    front: str


@dataclass(frozen=True)
class Frontier:
    """The chart of one model."""

    model: str
    loss: str
    """Title of the axis of losses."""
    speed: str
    """Title of the axis of speeds; empty where no speed was measured."""
    points: list[Point]
    """The smallest first."""

    @cached_property
    def backends(self) -> dict[str, int]:
        """The number of each backend's colour and shape."""
        names = sorted({point.backend for point in self.points})
        return {name: min(number, SHAPES - 1) for number, name in enumerate(names)}

    @property
    def panels(self) -> list[Panel]:
        """Loss over size and, where speeds were measured, loss over speed."""
        sizes = [point.size / 1e6 for point in self.points]
        log = max(sizes) / min(sizes) > 3
        scale = Scale(*around(sizes, log=log), LEFT, RIGHT, log=log)
        panels = [self._panel("weights, MB", "size", self.points, lambda p: p.size / 1e6, scale, 1)]
        timed = [point for point in self.points if point.speed is not None]
        if len(timed) > 1:
            _, high = around([0.0, *(p.speed or 0.0 for p in timed)], share=0.05)
            scale = Scale(0.0, high, LEFT, RIGHT)
            panels.append(self._panel(self.speed, "speed", timed, lambda p: p.speed or 0.0, scale, -1))
        return panels

    def _panel(
        self, title: str, name: str, points: list[Point], of: Callable[[Point], float], x: Scale, sign: int
    ) -> Panel:
        y = self._losses()
        marks = [Mark(x(of(p)), y(p.loss), p, self.backends[p.backend], self.text(p)) for p in points]
        # Of several cells in one place, the label of one.
        best = sorted(marks, key=lambda mark: (not mark.point.front, mark.point.loss))
        labels = place_labels(
            [(mark.x, mark.y, mark.point.scheme) for mark in best],
            [(mark.x, mark.y) for mark in marks],
            RIGHT + 8,
            BOTTOM - 2,
            LEFT + 2,
        )
        corners = staircase([(sign * of(p), p.loss) for p in points])
        line = " ".join(f"{x(sign * a)},{y(b)}" for a, b in corners)
        y_ticks = [(y(tick), _number(tick)) for tick in y.ticks]
        if y.log and min(p.loss for p in self.points) < y.low * 1.0001:
            y_ticks = [tick for tick in y_ticks if tick[0] < BOTTOM - 14] + [(BOTTOM, "0")]
        return Panel(title, name, marks, labels, [(x(t), _number(t)) for t in x.ticks], y_ticks, line)

    def _losses(self) -> Scale:
        """Return the scale of losses. It is logarithmic where they span more than a power of ten; then its lower end
        stands for 0, the loss of a reference."""
        losses = [point.loss for point in self.points]
        positive = [loss for loss in losses if loss > 0]
        if positive and max(positive) / min(positive) > 10:
            low, high = around(positive, log=True)
            return Scale(low / 1.6 if min(losses) <= 0 else low, high, BOTTOM, TOP, log=True)
        low, high = around(losses)
        return Scale(max(low, 0.0) if min(losses) >= 0 else low, high, BOTTOM, TOP)

    def text(self, point: Point) -> str:
        """Return the cell with its values and verdict."""
        values = [f"{point.size / 1e6:,.1f} MB", _with_unit(self.loss, point.loss)]
        if point.speed is not None:
            values.append(_with_unit(self.speed, point.speed))
        beaten = (
            "no other cell is as good in all" if point.front else "another cell is as good in all or better"
        )
        return f"{point.cell}: {', '.join(values)}; {point.status}; {beaten}"


def frontiers(verdicts: Iterable[Verdict]) -> list[Frontier]:
    """Return the chart of each model of which at least three cells have a size and a loss."""
    models: dict[str, dict[str, dict[str, Verdict]]] = {}
    for verdict in verdicts:
        cells = models.setdefault(verdict.cell.partition("/")[0], {})
        cells.setdefault(verdict.cell, {})[verdict.metric] = verdict
    charts = (_frontier(model, cells) for model, cells in models.items())
    return [chart for chart in charts if chart is not None]


def _frontier(model: str, cells: Mapping[str, Mapping[str, Verdict]]) -> Frontier | None:
    loss = _first(LOSSES, cells)
    speed = _first(SPEEDS, cells)
    points = []
    for cell, metrics in cells.items():
        size, lost = _value(metrics, SIZE), _value(metrics, loss)
        if lost is None and loss != "perplexity" and _is_reference(metrics, group_name(loss)):
            lost = 0.0
        if size is None or lost is None or size <= 0:
            continue
        status = worst(v.status for v in metrics.values())
        points.append(Point(cell, size, lost, _value(metrics, speed), status))
    if len(points) < 3:
        return None
    points = sorted(mark_front(points), key=lambda point: (point.size, point.loss))
    return Frontier(model, LOSSES[loss], SPEEDS[speed] if speed else "", points)


def _is_reference(metrics: Mapping[str, Verdict], group: str) -> bool:
    """Return whether a cell is what the others are compared with: nothing compares it with another one. group: that of
    the loss; a cell in which that failed, or whose backend cannot measure it, is no reference."""
    relative = AGAINST_REFERENCE in metrics or group in map(group_name, metrics)
    return _value(metrics, "perplexity") is not None and not relative


def _first(names: Iterable[str], cells: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Return the first metric that at least two cells have; the last one or none where there is no such metric."""
    for name in names:
        if sum(_value(metrics, name) is not None for metrics in cells.values()) > 1:
            return name
    return "perplexity" if "perplexity" in names else ""


def _value(metrics: Mapping[str, Verdict], name: str) -> float | None:
    verdict = metrics.get(name)
    return verdict.measured if verdict is not None else None


def mark_front(points: Sequence[Point]) -> list[Point]:
    """Mark the points that no other point beats: none is at least as good in size, loss and speed and better in one.
    A speed that was not measured is the worst."""

    def costs(point: Point) -> tuple[float, float, float]:
        return point.size, point.loss, math.inf if point.speed is None else -point.speed

    every = list(map(costs, points))

    def beaten(mine: tuple[float, float, float]) -> bool:
        return any(o != mine and all(a <= b for a, b in zip(o, mine, strict=True)) for o in every)

    return [replace(point, front=not beaten(mine)) for point, mine in zip(points, every, strict=True)]


def staircase(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the line below which no pair lies, where small is good in both."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(pairs):
        if not corners or y < corners[-1][1]:
            corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return corners


def _with_unit(title: str, value: float) -> str:
    """Return a value as the title of its axis says: `decoding 108 tokens/s`."""
    name, _, unit = title.partition(", ")
    return f"{name} {value:.4g} {unit}".rstrip()


def _number(value: float) -> str:
    """Return the text of a tick."""
    return f"{value:g}" if value == 0 or 1e-4 <= abs(value) < 1e5 else f"{value:.0e}".replace("e-0", "e-")
