"""The search for the guilty change, with tables for judges."""

from __future__ import annotations

import math
import random

import pytest
from quantgate.bisect.search import Answer, Culprit, Span, changes_between, most, narrow, search

from selftest.bisect.tables import Rule, Table, every, pins, some, steps

EIGHT = "abcdefgh"
GOOD = pins(*EIGHT, version=0)


@pytest.mark.parametrize("guilty", EIGHT)
def test_one_of_eight_packages_takes_three_environments_and_one_for_its_only_release(guilty: str) -> None:
    table = Table(bad=every(f"{guilty}==1"))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert finding.culprits == (Culprit((guilty,), f"{guilty}==0", f"{guilty}==1"),)
    assert finding.exact
    assert finding.good == GOOD
    assert finding.bad == {**GOOD, guilty: f"{guilty}==1"}
    # log2 of two releases, the good one and the bad one: it shows that the package is bad by itself
    assert len(table.environments) <= 3 + math.log2(2)
    packages = [one for one in table.environments if sum(a.endswith("==1") for a in one.values()) > 1]
    assert len(packages) <= 3


@pytest.mark.parametrize("guilty", EIGHT)
@pytest.mark.parametrize("releases", [2, 3, 7, 20, 100])
def test_its_releases_add_their_logarithm(guilty: str, releases: int) -> None:
    for first_bad in {1, 2, releases // 2 + 1, releases}:
        table = Table(bad=every(f"{guilty}=={first_bad}"))
        finding = search(GOOD, pins(*EIGHT, version=releases), table, steps)
        assert finding.culprits == (
            Culprit((guilty,), f"{guilty}=={first_bad - 1}", f"{guilty}=={first_bad}"),
        )
        assert len(table.environments) <= most(8) + math.ceil(math.log2(releases + 1))
        assert most(8) == 3


def test_a_single_package_is_not_asked_for_again() -> None:
    table = Table(bad=every("a==1"))
    finding = search(pins("a", version=0), pins("a", version=1), table, steps)
    assert finding.culprits == (Culprit(("a",), "a==0", "a==1"),)
    assert table.environments == [], "both ends are judged already"


def test_two_that_are_bad_only_together_are_both_named_with_their_releases() -> None:
    for one, other in (("a", "b"), ("b", "g"), ("a", "h"), ("g", "h")):
        table = Table(bad=every(f"{one}==2", f"{other}==3"))
        finding = search(GOOD, pins(*EIGHT, version=4), table, steps)
        assert set(finding.culprits) == {
            Culprit((one,), f"{one}==1", f"{one}==2"), Culprit((other,), f"{other}==2", f"{other}==3"),
        }  # fmt: skip
        assert finding.bad == {**GOOD, one: f"{one}==2", other: f"{other}==3"}
        assert table.answer(finding.good) == Answer.GOOD
        assert finding.exact


def test_three_that_are_bad_only_together() -> None:
    table = Table(bad=every("b==1", "d==1", "h==1"))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert {culprit.packages for culprit in finding.culprits} == {("b",), ("d",), ("h",)}
    assert finding.bad == {**GOOD, **pins("b", "d", "h", version=1)}


def test_of_two_guilty_ones_one_is_shown_and_is_guilty() -> None:
    table = Table(bad=some(every("b==1"), every("f==1")))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert [culprit.packages for culprit in finding.culprits] == [("b",)]


def test_a_partner_that_is_bad_by_itself_stands_alone() -> None:
    """`b` masks nothing when `c` is old: with both new it is good, with `h` bad again."""
    table = Table(bad=lambda new: "b==1" in new and ("c==1" not in new or "h==1" in new))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert table.answer(finding.bad) == Answer.BAD
    assert table.answer(finding.good) == Answer.GOOD
    assert len(finding.culprits) == 1


# --- what cannot be judged --------------------------------------------------------------------------


def test_what_cannot_be_built_is_neither_good_nor_bad() -> None:
    """`e` and `f` can only be installed together; the guilty one is another."""
    table = Table(bad=every("b==1"), broken=lambda new: ("e==1" in new) != ("f==1" in new))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert finding.culprits == (Culprit(("b",), "b==0", "b==1"),)
    assert finding.exact


def test_packages_that_cannot_be_told_apart_are_said_to_be_so() -> None:
    table = Table(bad=every("f==1"), broken=lambda new: ("e==1" in new) != ("f==1" in new))
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    [culprit] = finding.culprits
    assert set(culprit.packages) == {"e", "f"}
    assert not finding.exact
    assert finding.bad == {**GOOD, **pins("e", "f", version=1)}


def test_the_other_order_tells_apart_what_the_first_one_does_not() -> None:
    """Without the new `f`, the new `e` cannot be installed; `f` alone can."""
    broken = lambda new: "e==1" in new and "f==1" not in new  # noqa: E731
    for guilty in "ef":
        finding = search(GOOD, pins(*EIGHT, version=1), Table(every(f"{guilty}==1"), broken), steps)
        [culprit] = finding.culprits
        assert culprit.packages == (guilty,)
    assert finding.exact, "f is bad by itself"


def test_a_package_that_needs_another_new_one_is_judged_beside_it() -> None:
    """`h` is guilty, and cannot be installed without the new `c`."""
    table = Table(bad=every("h==3"), broken=lambda new: "h==1" in new and "c==4" not in new)
    finding = search(GOOD, pins(*EIGHT, version=4), table, steps)
    assert finding.culprits == (Culprit(("h",), "h==2", "h==3"),)
    assert "c" in finding.beside
    assert table.answer(finding.good) == Answer.GOOD
    assert table.answer(finding.bad) == Answer.BAD
    assert not finding.exact


@pytest.mark.parametrize("kind", ["broken", "unclear"])
def test_releases_that_cannot_be_judged_are_stepped_over_and_said(kind: str) -> None:
    def between(new: frozenset[str]) -> bool:
        return "a==4" in new and "a==8" not in new

    table = Table(bad=every("a==6"))
    setattr(table, kind, between)
    finding = search(pins("a", version=0), pins("a", version=10), table, steps)
    assert finding.culprits == (Culprit(("a",), "a==3", "a==8", ("a==4", "a==5", "a==6", "a==7")),)
    assert not finding.exact


def test_a_partner_that_can_never_be_judged_apart_is_named_as_beside() -> None:
    """`h` alone is good, `h` with `b` cannot be installed without `c`, with both it is bad."""
    table = Table(bad=every("b==1", "h==1"), broken=lambda new: {"b==1", "h==1"} <= new and "a==1" not in new)
    finding = search(GOOD, pins(*EIGHT, version=1), table, steps)
    assert {culprit.packages for culprit in finding.culprits} == {("b",), ("h",)}
    assert finding.beside == ("a",)
    assert table.answer(finding.bad) == Answer.BAD


def test_whatever_the_table_says_the_two_that_are_shown_were_judged_so() -> None:
    draw = random.Random(18)
    for _ in range(400):
        names = EIGHT[: draw.randint(1, 8)]
        last = draw.randint(1, 6)
        good, bad = pins(*names, version=0), pins(*names, version=last)
        guilty = [every(*_some(draw, names, last)) for _ in range(draw.randint(1, 3))]
        hole = _some(draw, names, last)
        unclear = _some(draw, names, last)
        table = Table(some(*guilty), broken=_odd(hole, len(names) * last), unclear=_half(unclear))
        if table.answer(bad) != Answer.BAD or table.answer(good) != Answer.GOOD:
            continue
        finding = search(good, bad, table, steps)
        judged = [good, *table.environments, bad]
        assert finding.good in judged
        assert finding.bad in judged
        assert table.answer(finding.good) == Answer.GOOD
        assert table.answer(finding.bad) == Answer.BAD
        if finding.exact and len(finding.culprits) == 1:
            assert len(changes_between(finding.good, finding.bad)) == 1


def _odd(hole: frozenset[str], whole: int) -> Rule:
    return lambda new: len(hole & new) % 2 == 1 and len(new) < whole


def _half(pair: frozenset[str]) -> Rule:
    return lambda new: len(pair) == 2 and len(pair & new) == 1


def _some(draw: random.Random, names: str, last: int) -> frozenset[str]:
    chosen = draw.sample(names, min(len(names), draw.randint(1, 2)))
    return frozenset(f"{name}=={draw.randint(1, last)}" for name in chosen)


# --- packages that come and go ----------------------------------------------------------------------


def test_a_package_that_only_one_end_has() -> None:
    table = Table(bad=every("new==1"))
    finding = search(GOOD, {**pins(*EIGHT, version=1), "new": "new==1"}, table, steps)
    assert finding.culprits == (Culprit(("new",), None, "new==1"),)
    table = Table(bad=lambda new: "old==1" not in new)
    finding = search({**GOOD, "old": "old==1"}, pins(*EIGHT, version=1), table, steps)
    assert finding.culprits == (Culprit(("old",), "old==1", None),)
    assert finding.bad == GOOD


def test_equal_ends_are_refused() -> None:
    with pytest.raises(ValueError, match="the same pins"):
        search(GOOD, GOOD, Table(bad=every()), steps)


def test_the_row_is_as_ordered() -> None:
    table = Table(bad=every("a==1", "c==1"))
    search(pins(*"abc", version=0), pins(*"abc", version=1), table, steps, order=["c", "b", "a"])
    assert table.environments[0] in (
        {**pins(*"abc", version=0), "c": "c==1"}, {**pins(*"abc", version=0), "c": "c==1", "b": "b==1"},
    )  # fmt: skip


# --- its parts --------------------------------------------------------------------------------------


def test_a_row_is_halved_and_a_stretch_without_answers_stepped_over() -> None:
    for first_bad in range(1, 65):
        places: list[int] = []

        def ask(place: int, first_bad: int = first_bad, places: list[int] = places) -> Answer:
            places.append(place)
            return Answer.BAD if place >= first_bad else Answer.GOOD

        assert narrow(0, 64, ask) == Span(first_bad - 1, first_bad)
        assert len(places) <= 6
    span = narrow(0, 100, lambda p: Answer.BROKEN if 30 <= p < 70 else Answer.BAD if p >= 80 else Answer.GOOD)
    assert span == Span(79, 80)
    tried: list[int] = []

    def hole(place: int) -> Answer:
        tried.append(place)
        return Answer.INCONCLUSIVE if 45 <= place < 55 else Answer.BAD if place >= 20 else Answer.GOOD

    assert narrow(0, 100, hole) == Span(19, 20)
    assert len(tried) <= 8, "a hole in the middle costs one question or two"
