"""Eight updates that each lose a little less than the tolerance, through the judge and the files of a baseline."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from quantgate.baselines.store import read
from quantgate.baselines.update import plan_update, write_update
from quantgate.config.tolerances import Tolerance, Tolerances
from quantgate.errors import InputError
from quantgate.judge.compare import Comparison, Rules, verdicts
from quantgate.records import Measurement, Status, Verdict

from selftest.baselines.accepted import CELL, TIER, measured
from selftest.judge.made import OLD, perplexity

RULES = Rules(
    Tolerances(run_alpha=0.01, tolerance=[Tolerance(metric="perplexity", relative=0.0025, noise=0.05)]), 1e-4
)


def after(step: int, loss: float) -> Measurement:
    """The measurement after so many steps, each of which lost the same share."""
    metric = perplexity([sample + step * math.log1p(loss) for sample in OLD])
    return measured(created=f"2026-07-{step + 1:02}", metrics={"perplexity": metric})


def night(root: Path, new: Measurement) -> list[Verdict]:
    """What a run says of a measurement."""
    old = read(root, CELL, TIER)
    return verdicts(Comparison(new, old, anchors=old.anchors if old else {}), lambda name: True, RULES)


def accept(root: Path, new: Measurement, *, re_anchor: bool = False) -> None:
    plan = plan_update(new, read(root, CELL, TIER), night(root, new), re_anchor=re_anchor)
    write_update(root, plan, reason="a step", accept_regressions=True)


@pytest.mark.parametrize(("loss", "beyond"), [(0.002, 2), (0.0005, 5), (0.0004, 7), (0.0003, None)])
def test_the_first_step_whose_sum_is_beyond_the_tolerance_is_drift(
    tmp_path: Path, loss: float, beyond: int | None
) -> None:
    accept(tmp_path, after(0, loss))
    first = None
    for step in range(1, 9):
        new = after(step, loss)
        red = {v.metric for v in night(tmp_path, new) if v.status == Status.DRIFT}
        if red and first is None:
            first = step
            assert red == {"perplexity/anchor"}
        if first is None:
            accept(tmp_path, new)
        else:
            with pytest.raises(InputError, match="perplexity/anchor: since the anchor of 2026-07-01"):
                accept(tmp_path, new)
    assert first == beyond


def test_a_moved_anchor_gives_room_for_one_step_and_no_more(tmp_path: Path) -> None:
    accept(tmp_path, after(0, 0.002))
    accept(tmp_path, after(1, 0.002))
    accept(tmp_path, after(2, 0.002), re_anchor=True)
    accept(tmp_path, after(3, 0.002))
    with pytest.raises(InputError, match="since the anchor of 2026-07-03"):
        accept(tmp_path, after(4, 0.002))


def test_what_was_won_back_is_no_loss(tmp_path: Path) -> None:
    """The anchor is no best value: losses and gains of all updates add up."""
    for number, step in enumerate((0, 1, 0, 1, 0, 1)):
        new = after(step, 0.002).model_copy(update={"created": f"2026-07-{number + 1:02}"})
        assert Status.DRIFT not in {v.status for v in night(tmp_path, new)}
        accept(tmp_path, new)
