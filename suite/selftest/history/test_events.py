"""One cause is one event, with its cause, an identity that stays, and a state."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import shutil
from pathlib import Path

import pytest
from quantgate.history.acknowledged import Acknowledgement
from quantgate.history.events import Event, State, events
from quantgate.history.issues import to_issues
from quantgate.history.series import read

from selftest.history import nights
from selftest.history.nights import Change, Kind, Plan

LLAMA = {60: {"llama-cpp-python": "0.3.37"}}


def of(folder: Path, plan: Plan, **options: object) -> list[Event]:
    shutil.rmtree(folder, ignore_errors=True)
    nights.write(folder, plan)
    return events(read(folder), **options)  # type: ignore[arg-type]


def step(factor: float, *metrics: str, cells: str = "", since: int = 60, until: int = 9999) -> Change:
    return lambda cell, metric, night: (
        factor if since <= night < until and metric in metrics and cells in cell else 1.0
    )


def test_nothing_happened(tmp_path: Path) -> None:
    assert of(tmp_path / "h", Plan(nights=100)) == []


def test_a_step_of_quality_is_seen_at_once_with_its_cause(tmp_path: Path) -> None:
    plan = Plan(nights=80, environments=LLAMA, change=step(1.02, "perplexity", cells="llamacpp"))
    (event,) = of(tmp_path / "h", plan)
    assert event.id.startswith("worse-20260302-")
    assert event.run == event.seen
    assert event.cause == ["llama-cpp-python 0.3.36 -> 0.3.37"]
    assert set(event.cells) == {"m/llamacpp/Q4_K_M", "m/llamacpp/Q4_0"}
    assert event.metrics == ["perplexity"]
    assert [round(move.change, 6) for move in event.members] == [0.02, 0.02]
    assert event.state == State.OPEN


def test_the_loss_since_the_anchor_is_the_values_and_no_event_of_its_own(tmp_path: Path) -> None:
    since = [kind._replace(metric=f"{kind.metric}/anchor") for kind in nights.KINDS[:1]]
    change = step(1.02, "perplexity", "perplexity/anchor")
    (event,) = of(tmp_path / "h", Plan(nights=80, metrics=[*nights.KINDS, *since], change=change))
    assert event.metrics == ["perplexity"]


def test_all_that_moves_at_one_run_in_one_direction_is_one_event(tmp_path: Path) -> None:
    def upgrade(cell: str, metric: str, night: int) -> float:
        factors = {
            "perplexity": 1.02,
            "accuracy/mean/acc": 0.9,
            "throughput/decode_ratio": 0.9,
            "memory/peak_resident": 0.9,
        }
        return factors.get(metric, 1.0) if night >= 60 else 1.0

    better, worse = sorted(
        of(tmp_path / "h", Plan(nights=90, environments=LLAMA, change=upgrade)), key=lambda e: e.direction
    )
    assert (
        worse.metrics == ["accuracy/mean/acc", "perplexity", "throughput/decode_ratio"]
        or len(worse.metrics) == 3
    )
    assert len(worse.members) == 9
    assert better.metrics == ["memory/peak_resident"]
    assert len(better.members) == 3


def test_equal_numbers_in_another_environment_are_nothing(tmp_path: Path) -> None:
    assert of(tmp_path / "h", Plan(nights=80, environments=LLAMA)) == []


def test_last_digits_that_move_with_the_environment_are_nothing_and_without_a_cause_are_told(
    tmp_path: Path,
) -> None:
    change = step(1 + 1e-9, "perplexity", cells="llamacpp")
    assert of(tmp_path / "h", Plan(nights=80, environments=LLAMA, change=change)) == []
    (event,) = of(tmp_path / "h", Plan(nights=80, change=change))
    assert event.direction == "unequal"
    assert event.cause == ()
    jitter: Change = lambda cell, metric, night: 1 + 1e-9 * (night % 3) if metric == "perplexity" else 1.0  # noqa: E731
    (event,) = of(tmp_path / "h", Plan(nights=80, change=jitter))
    assert len(event.members) == 3, "told once, not every night"


def test_what_need_not_repeat_is_an_event_where_it_moves_alone(tmp_path: Path) -> None:
    """Memory that a process holds grows by some bytes more or fewer with each token."""
    growth = Kind("decoding/growth", "exact", "bytes/token", "lower", 120.0, 1000.0)
    jitter: Change = lambda cell, metric, night: 1 + 0.1 * (night % 3)  # noqa: E731
    assert of(tmp_path / "h", Plan(nights=80, metrics=(growth,), change=jitter)) == []
    leak: Change = lambda cell, metric, night: 100.0 if night >= 60 else 1.0  # noqa: E731
    (event,) = of(tmp_path / "h", Plan(nights=80, metrics=(growth,), change=leak))
    assert event.direction == "worse"


def test_small_steps_add_up(tmp_path: Path) -> None:
    creep: Change = lambda cell, metric, night: (  # noqa: E731
        1 + 0.0005 * (night // 10) if (cell, metric) == ("m/llamacpp/Q4_0", "perplexity") else 1.0
    )
    environments = {n: {"torch": f"2.{n}"} for n in range(10, 80, 10)}
    happened = of(tmp_path / "h", Plan(nights=80, environments=environments, change=creep))
    assert [event.direction for event in happened] == ["worse", "worse"]
    assert happened[-1].run.time.date() == datetime.date(2026, 1, 31)
    assert happened[-1].cause == ["torch 2.13.0+cpu -> 2.30"]
    assert happened[-1].members[0].change == pytest.approx(0.0015)


def test_other_machines_are_compared_with_themselves(tmp_path: Path) -> None:
    machines = {n: {"cpu": "AMD" if n % 2 else "Intel"} for n in range(120)}
    odd: Change = lambda cell, metric, night: 1.03 if night % 2 else 1.0  # noqa: E731
    assert of(tmp_path / "h", Plan(nights=120, machines=machines, change=odd)) == []
    both: Change = lambda cell, metric, night: (  # noqa: E731
        (1.03 if night % 2 else 1.0) * (1.02 if night >= 60 and metric == "perplexity" else 1.0)
    )
    plan = Plan(nights=120, machines=machines, environments=LLAMA, change=both)
    (event,) = of(tmp_path / "h", plan)
    assert len(event.members) == 6, "both classes, a night apart, by one cause"


def test_missing_nights_and_failed_cells_are_no_event(tmp_path: Path) -> None:
    fails: Change = lambda cell, metric, night: math.nan if night in (50, 51) and "Q4_0" in cell else 1.0  # noqa: E731
    missing = frozenset({*range(20, 30), 70})
    assert of(tmp_path / "h", Plan(nights=100, missing=missing, change=fails)) == []


@pytest.mark.parametrize("until", [100, 140, 200])
def test_an_event_keeps_its_identity(tmp_path: Path, until: int) -> None:
    change = step(0.96, "throughput/decode_ratio")
    ids = {event.id: event.seen.id for event in of(tmp_path / "h", Plan(nights=80, change=change))}
    assert len(ids) == 1
    later = {event.id: event.seen.id for event in of(tmp_path / "h", Plan(nights=until, change=change))}
    assert later == ids


def test_a_level_that_is_back_is_gone_or_fixed(tmp_path: Path) -> None:
    for metric in ("perplexity", "throughput/decode_ratio"):
        change = step(0.94 if "ratio" in metric else 1.03, metric, until=70)
        (event,) = of(tmp_path / "h", Plan(nights=100, change=change))
        assert event.state == State.GONE
        assert event.reason.startswith("back since 2026-03-1")
    environments = {60: {"torch": "2.14"}, 70: {"torch": "2.14.1"}}
    plan = Plan(nights=100, environments=environments, change=step(1.03, "perplexity", until=70))
    (event,) = of(tmp_path / "h", plan)
    assert event.state == State.FIXED
    assert event.reason == "back since 2026-03-12: torch 2.14 -> 2.14.1"


def test_half_of_a_large_step_is_still_a_loss_and_two_steps_back_are_back(tmp_path: Path) -> None:
    """40 % worse, then 19 %: nearly eight tolerances. Nothing is fixed before the rest has gone, too."""

    def change(cell: str, metric: str, night: int) -> float:
        if metric != "perplexity" or night < 60:
            return 1.0
        return 1.4 if night < 70 else 1.19 if night < 80 else 1.001

    plan = Plan(nights=78, environments=LLAMA, change=change)
    better, worse = sorted(of(tmp_path / "h", plan), key=lambda e: e.direction)
    assert (better.state, worse.state) == (State.OPEN, State.OPEN)
    for event in of(tmp_path / "h", dataclasses.replace(plan, nights=90)):
        assert (event.state, event.reason) == (State.GONE, "back since 2026-03-22")


def test_runs_of_other_tiers_between_the_nights_split_no_event(tmp_path: Path) -> None:
    """A shift of what varies is placed a night too early or too late, of one series and of another."""

    def change(cell: str, metric: str, night: int) -> float:
        first = 61 if "Q4_0" in cell else 60
        return 0.7 if night >= first else 1.0

    ratio = nights.KINDS[-1:]
    (alone,) = of(tmp_path / "h", Plan(nights=90, metrics=ratio, change=change))
    for seed in (1, 2, 3, 4):
        nights.write(tmp_path / "h", Plan(nights=90, metrics=nights.KINDS[:1], tier="smoke", seed=seed))
    (event,) = events(read(tmp_path / "h"))
    assert (event.id, event.digest) == (alone.id, alone.digest)
    entry = Acknowledgement(
        event=f"worse-20260303-{nights.run_id(Plan(), 61)[:8]}",
        reason="a night beside it",
        until=datetime.date(2026, 6, 1),
    )
    (event,) = events(read(tmp_path / "h"), [entry])
    assert event.state == State.ACKNOWLEDGED


def test_an_acknowledgement_holds_until_its_day_for_its_members(tmp_path: Path) -> None:
    plan = Plan(nights=80, change=step(1.02, "perplexity"))
    (event,) = of(tmp_path / "h", plan)
    day = datetime.date(2026, 6, 1)

    def state(today: datetime.date = day, **fields: str) -> State:
        entry = Acknowledgement(**{"event": event.id, "reason": "on purpose", "until": day, **fields})
        (again,) = of(tmp_path / "h", plan, acknowledged=[entry], today=today)
        return again.state

    assert state() == State.ACKNOWLEDGED
    assert state(today=day + datetime.timedelta(1)) == State.OPEN
    assert state(cell="*/llamacpp/*") == State.OPEN, "one cell is not covered"
    assert state(cell="m/*", metric="perp*") == State.ACKNOWLEDGED
    assert state(event="worse-20260302-ffffffff") == State.OPEN
    near = nights.run_id(plan, 61)[:8]
    assert state(event=f"worse-20260303-{near}") == State.ACKNOWLEDGED, "a run was added to the past since"


def test_a_baseline_that_moved_to_the_new_level_acknowledges(tmp_path: Path) -> None:
    change = step(1.02, "perplexity")
    (event,) = of(tmp_path / "h", Plan(nights=80, change=change, accepted={70: 1.02}))
    assert (event.state, event.reason) == (State.ACKNOWLEDGED, "the baseline moved to the new level")
    (event,) = of(tmp_path / "h", Plan(nights=80, change=change, accepted={70: 1.001}))
    assert event.state == State.OPEN
    (event,) = of(tmp_path / "h", Plan(nights=80, change=change, accepted={50: 1.02}))
    assert event.state == State.OPEN, "a baseline of before says nothing of the step"


def test_a_baseline_of_another_class_of_machine_acknowledges_nothing(tmp_path: Path) -> None:
    """Every other night is on a machine whose baseline is 2 % higher; then the first one gets worse by 2 %."""
    plan = Plan(
        nights=80,
        machines={n: {"cpu": "AMD" if n % 2 else "Intel"} for n in range(80)},
        accepted={n: 1.02 if n % 2 else 1 / 1.02 for n in range(1, 80)},
        missing=frozenset({59}),
        change=lambda cell, metric, night: (
            1.02 if metric == "perplexity" and (night % 2 or night >= 60) else 1.0
        ),
    )
    (event,) = of(tmp_path / "h", plan)
    assert (event.direction, event.state) == ("worse", State.OPEN)


def test_what_fails_is_what_failed_in_the_newest_run_of_its_own_tier(tmp_path: Path) -> None:
    *_, last = nights.write(tmp_path, Plan(nights=70, change=step(1.02, "perplexity")))
    lines = last.read_text().splitlines()
    lines = [one.replace('"pass"', '"regression"') if '"perplexity"' in one else one for one in lines]
    last.write_text("\n".join([*lines, ""]))
    nights.write(tmp_path, Plan(nights=80, tier="smoke", seed=1, missing=frozenset(range(79))))
    history = read(tmp_path)
    assert history.runs[-1].tier == "smoke"
    (issue,) = json.loads(to_issues(history, events(history)))["events"]
    assert {metric for _, metric in issue["failing"]} == {"perplexity"}
    assert len(issue["failing"]) == 3


def test_a_cell_that_is_in_no_run_any_more_leaves_no_open_event(tmp_path: Path) -> None:
    change = step(1.02, "perplexity", cells="Q4_0", since=5)
    plan = Plan(nights=10, change=change)
    renamed = Plan(cells=["m/llamacpp/Q4_0-new"], change=change, seed=1, missing=frozenset(range(10)))

    def state(nights_after: int) -> tuple[State, str]:
        shutil.rmtree(tmp_path / "h", ignore_errors=True)
        nights.write(tmp_path / "h", plan)
        nights.write(tmp_path / "h", dataclasses.replace(renamed, nights=10 + nights_after))
        (event,) = events(read(tmp_path / "h"))
        return event.state, event.reason

    assert state(13) == (State.OPEN, "")
    assert state(14) == (State.GONE, "not in the runs since 2026-01-10")


def test_a_cell_that_fails_for_weeks_keeps_its_event_open(tmp_path: Path) -> None:
    def change(cell: str, metric: str, night: int) -> float:
        return 1.0 if night < 5 else 1.02 if night < 10 else math.nan

    states = {event.state for event in of(tmp_path / "h", Plan(nights=40, change=change))}
    assert states == {State.OPEN}


def test_the_digest_changes_with_members_and_state_alone(tmp_path: Path) -> None:
    one = step(1.02, "perplexity", cells="Q4_0")
    (first,) = of(tmp_path / "h", Plan(nights=80, change=one))
    (later,) = of(tmp_path / "h", Plan(nights=90, change=one))
    (more,) = of(tmp_path / "h", Plan(nights=80, change=step(1.02, "perplexity", cells="llamacpp")))
    (gone,) = of(tmp_path / "h", Plan(nights=90, change=step(1.02, "perplexity", cells="Q4_0", until=85)))
    assert first.digest == later.digest
    assert len({first.digest, more.digest, gone.digest}) == 3
    assert first.id == more.id == gone.id
