"""Findings of Dettmers and Zettlemoyer, The case for 4-bit precision: k-bit Inference Scaling Laws (2023), arXiv
2212.09720, on the points of the k-bit grid.

Units of all intervals but the correlation's are blocks of the text: every model and scheme was measured on the same
ones, so differences are taken block by block and averaged over what a finding is about: Student's t over the blocks,
or, where a finding picks the best of several, a bootstrap of the blocks. The correlation's are items of the task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantgate.errors import InputError
from quantgate.proofs.papers.section import NOTHING, Finding, decide
from quantgate.proofs.papers.statistics import LEVEL, Point, bootstrap, least, mean_interval, middle, pearson

DRAWS = 400
"""Fewer than elsewhere: each looks for the front again."""
TYPES = ("int", "float", "dynamic", "quantile")
FEW, MANY = (3, 4, 5), (6, 7, 8)
"""Bits at which the paper finds block sizes and data types to matter, and not to."""
STRONG = -0.8
"""Pearson's r up to which loss and accuracy count as going together as strongly as the paper says (-0.94)."""

_PLAIN = {"bits", "device", "dtype", "data_type", "block"}


def findings(points: Sequence[Point]) -> list[Finding]:
    """Return all findings, in the order of the page. Raises InputError where cells of the grid were not measured."""
    grid = Grid(points)
    return [
        *(grid.falls_with_bits(data_type) for data_type in TYPES),
        *(grid.small_blocks(bits) for bits in (*FEW, *MANY)),
        *(grid.against_int(data_type, bits) for data_type in ("float", "quantile") for bits in FEW),
        *best_precision(points),
        correlation(points),
    ]


class Grid:
    """The quantized points by model, data type, block size and bits."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._at = {
            (p.model, p.options["data_type"], p.options["block"], int(p.bits)): p
            for p in points
            if p.options.get("data_type") in TYPES and p.options.keys() <= _PLAIN
        }
        self.models = list(dict.fromkeys(key[0] for key in self._at))
        self.blocks = sorted({key[2] for key in self._at if key[2] != "tensor"})
        keys = list(itertools.product(self.models, TYPES, self.blocks, (*FEW, *MANY)))
        missing = [
            f"{m} {t}{bits}-b{block}" for m, t, block, bits in keys if (m, t, block, bits) not in self._at
        ]
        if missing or not keys:
            raise InputError(
                f"{len(missing)} of {len(keys)} cells of the grid are missing: {', '.join(missing[:3])} ..."
            )

    def falls_with_bits(self, data_type: str) -> Finding:
        """Smallest fall of the divergence with one bit more."""
        steps = {
            f"from {fewer} to {more} bits": mean_interval(
                self.mean(data_type, self.blocks, fewer, "divergences")
                - self.mean(data_type, self.blocks, more, "divergences")
            )
            for fewer, more in pairwise((*FEW, *MANY))
        }
        where = least(steps)
        value, low, high = steps[where]
        return Finding(
            f"falls-with-bits-{data_type}",
            f"{data_type}: divergence falls with each bit",
            "more bits, less loss",
            value, low, high, "nats/token", decide(low, high, above=0),
            f"the smallest fall of the divergence from full precision, {where}; mean of all models and block sizes",
        )  # fmt: skip

    def small_blocks(self, bits: int) -> Finding:
        """Loss with the largest blocks minus loss with the smallest, over all data types."""
        small, large = self.blocks[0], self.blocks[-1]
        value, low, high = mean_interval(
            np.mean([self.mean(t, [large], bits) - self.mean(t, [small], bits) for t in TYPES], axis=0)
        )
        matters = bits in FEW
        return Finding(
            f"blocks-{bits}-bits",
            f"{bits} bits: blocks of {small} against {large}",
            "small blocks lose less" if matters else "the block size does not matter",
            value, low, high, "nats/token",
            decide(low, high, above=0) if matters else decide(low, high, above=-NOTHING, below=NOTHING),
            f"loss with blocks of {large} minus loss with blocks of {small}, mean of all models and data types"
            + ("" if matters else f"; up to {NOTHING:g} either way does not matter"),
        )  # fmt: skip

    def against_int(self, data_type: str, bits: int) -> Finding:
        """Loss of int minus loss of a data type, in the smallest blocks."""
        small = self.blocks[:1]
        value, low, high = mean_interval(self.mean("int", small, bits) - self.mean(data_type, small, bits))
        return Finding(
            f"{data_type}-against-int-{bits}-bits",
            f"{bits} bits: {data_type} against int",
            f"{data_type} loses less than int",
            value, low, high, "nats/token", decide(low, high, above=0),
            f"loss of int minus loss of {data_type}, blocks of {small[0]}, mean of all models",
        )  # fmt: skip

    def mean(
        self, data_type: str, blocks: Sequence[int], bits: int, what: str = "losses"
    ) -> NDArray[np.float64]:
        """Return the mean over models and block sizes, [blocks of the text]. what: `losses` or `divergences`."""
        chosen = [self._at[model, data_type, block, bits] for model in self.models for block in blocks]
        mean: NDArray[np.float64] = np.mean([getattr(p, what) for p in chosen], axis=0)
        return mean


def best_of_each(points: Sequence[Point], cost: Callable[[Point], float] = lambda p: p.loss) -> list[Point]:
    """Return the best scheme of each model and number of bits, by bits and total bits."""
    best: dict[tuple[float, str], Point] = {}
    for p in points:
        leader = best.get((p.bits, p.model))
        if leader is None or cost(p) < cost(leader):
            best[p.bits, p.model] = p
    return sorted(best.values(), key=lambda p: (p.bits, p.total_bits))


def best_precision(points: Sequence[Point]) -> list[Finding]:
    """Whether 4 bits give the lowest loss for the same total bits."""
    best = best_of_each(points)  # which scheme is the best is decided once, by the whole text
    leads, front = _leads(best), _on_front(best)
    nearest = min(leads, key=lambda b: leads[b])
    source = np.random.default_rng(0)
    count = len(best[0].losses)
    shares, drawn = [], []
    for _ in range(DRAWS):
        again = [_redrawn(p, rows) for rows in [source.integers(0, count, count)] for p in best]
        shares.append(4.0 in _on_front(again))
        drawn.append(min(_leads(again).values()))
    low, high = middle(np.array(drawn))
    share = float(np.mean(shares))
    spread = 1.96 * np.sqrt(share * (1 - share) / DRAWS)
    return [
        Finding(
            "four-bits-lead",
            "4 bits for the same total bits",
            "4 bits lose least for almost all models and sizes",
            leads[nearest], low, high, "nats/token", decide(low, high, above=0),
            f"lead of the curve of 4 bits over that of {nearest:g} bits, which comes nearest or lies below; curves run "
            "through the best scheme of each model; bootstrap of the text's blocks",
        ),
        Finding(
            "four-bits-on-front",
            "4 bits on the Pareto front",
            "no other precision loses less with as few bits or fewer",
            share, share - spread, share + spread, "of the draws",
            "holds" if share >= (1 + LEVEL) / 2 else "does not hold" if share <= (1 - LEVEL) / 2 else "open",
            "how often a scheme of 4 bits is on the front in a bootstrap of the text's blocks; on the front of the "
            "whole text: " + ", ".join(f"{bits:g}" for bits in front) + " bits",
        ),
    ]  # fmt: skip


def _leads(best: Sequence[Point]) -> dict[float, float]:
    """Return the lead of the curve of 4 bits over each other curve that reaches the same total bits, nats per token."""
    names = sorted({p.bits for p in best})
    curves = {b: curve(f"{b:g} bits", [p for p in best if p.bits == b]) for b in names}
    leads = {b: lead(curves[4.0], other) for b, other in curves.items() if b != 4}
    return {b: value for b, value in leads.items() if np.isfinite(value)}


def _on_front(best: Sequence[Point]) -> list[float]:
    return sorted({p.bits for p in pareto(best)})


def _redrawn(point: Point, rows: NDArray[np.int64]) -> Point:
    return replace(point, losses=point.losses[rows], sizes=point.sizes[rows], divergences=None)


def correlation(points: Sequence[Point]) -> Finding:
    """Pearson's r of loss and accuracy over all points. Its interval is over the items of the task: all points share
    them, so the points are not independent."""
    losses = np.array([p.loss for p in points])
    hits = np.array([p.hits for p in points])  # [points, items]
    items = hits.shape[1]
    value, low, high = bootstrap(items, lambda rows: float(pearson(losses, hits[:, rows].mean(axis=1))))
    return Finding(
        "correlation",
        "log perplexity and accuracy go together",
        "Pearson -0.94 over 35,000 experiments",
        value, low, high, "", decide(low, high, below=STRONG),
        f"Pearson's r over {len(points)} cells, accuracy on {items} items; bootstrap of the items; below {STRONG:g} "
        "counts as holding",
    )  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Loss (nats per token) over log2 of the total bits, ascending, of the models of a family in one scheme."""

    name: str
    log_bits: tuple[float, ...]
    losses: tuple[float, ...]

    def at(self, log_bits: ArrayLike) -> NDArray[np.float64]:
        """Interpolate linearly; NaN beyond the ends."""
        places = np.asarray(log_bits, dtype=np.float64)
        return np.asarray(np.interp(places, self.log_bits, self.losses, left=np.nan, right=np.nan))


def curve(name: str, points: Sequence[Point]) -> Curve:
    """Return the curve through the points of one scheme, one point a model."""
    ordered = sorted(points, key=lambda p: p.total_bits)
    return Curve(name, tuple(float(np.log2(p.total_bits)) for p in ordered), tuple(p.loss for p in ordered))


def pareto(points: Sequence[Point], cost: Callable[[Point], float] = lambda p: p.loss) -> list[Point]:
    """Return the Pareto front: the points that no other beats with as few bits or fewer, by ascending bits."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.total_bits, cost(p))):
        if not front or cost(point) < cost(front[-1]):
            front.append(point)
    return front


def lead(one: Curve, other: Curve, steps: int = 201) -> float:
    """Return by how many nats per token `one` lies below `other`, averaged over the total bits that both reach; NaN
    where there are none."""
    low = max(one.log_bits[0], other.log_bits[0])
    high = min(one.log_bits[-1], other.log_bits[-1])
    if low > high:
        return float("nan")
    grid = np.linspace(low, high, steps)
    return float(np.mean(other.at(grid) - one.at(grid)))
