"""A backend or a metric group of somebody else's: what it gives is checked before it becomes a number."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from quantgate.backends import base
from quantgate.backends.spec import BackendSpec, Capability, SchemeOptions
from quantgate.backends.tree import TokenSequence, TokenTree
from quantgate.errors import InputError, MeasurementError
from quantgate.measure import worker
from quantgate.measure.added import MEMBERS, check_metrics, checked, facts_of, sizes_of
from quantgate.measure.groups import Group
from quantgate.measure.scoring import score
from quantgate.records import AGREEMENT, Declared, Metric, Record

from selftest.measure.fakes import Bigrams, Here

SEQUENCES = [TokenSequence((1, 2, 3, 4), 1), TokenSequence((1, 2), 1)]


def spec(*capabilities: Capability, model: Any) -> BackendSpec:
    return BackendSpec(options=SchemeOptions, capabilities=frozenset(capabilities), load=lambda *_: model)


def test_members_are_those_of_the_protocols() -> None:
    assert set(MEMBERS) == set(get_args(Capability))
    members = {
        name for protocol in vars(base).values() if isinstance(protocol, type) for name in dir(protocol)
    }
    assert {name for names in MEMBERS.values() for name in names} <= members


def test_a_model_has_the_members_of_what_its_backend_declares() -> None:
    class Slow(Bigrams):
        @property
        def settings(self) -> str:  # type: ignore[override]
            raise AssertionError("asked for while loading")

    model = Slow()
    whole = spec("scores", "logits", "steps", "timings", "weights", "tokenizes", "generates", model=model)
    assert checked("fake", whole)(Path(), {}, 1) is model
    with pytest.raises(MeasurementError) as caught:
        checked("fake", spec("weights", "scores", model=model))(Path(), {}, 1)
    assert str(caught.value) == (
        "what the backend fake loads (Slow) has no scores, which belongs to the capability scores that BACKEND "
        "declares: write it, or remove the capability"
    )
    with pytest.raises(MeasurementError, match=r"\(object\) has no sizes, which every backend has: write it"):
        checked("fake", spec(model=object()))(Path(), {}, 1)


def number(name: str) -> dict[str, Metric]:
    return {name: Metric(kind="exact", value=1.0, unit="", better="lower")}


def test_a_group_gives_metrics_that_its_case_judges() -> None:
    group = Group(options=Record, metrics={}, measure=lambda *_: {}, family="quality")
    for name in ("mine", "mine/part", AGREEMENT):
        assert check_metrics("mine", group, number(name)) == number(name)
    example = 'return metrics by full name, {"mine": Metric(...)}'
    for wrong, message in (
        (None, f"returned nothing: {example}"),
        ([1.0], f"returned a list: {example}"),
        ({"mine": 1.0}, f"returned a float as 'mine': {example}"),
        (
            number("part"),
            "returned part: only names that begin with mine are judged by its case: call it mine/part",
        ),
    ):
        with pytest.raises(MeasurementError) as caught:
            check_metrics("mine", replace(group, metrics={"mine": Declared("exact")}), wrong)
        assert str(caught.value) == f"{__file__}: measure {message}"


def test_what_a_model_says_of_itself_is_of_its_types(here: Here) -> None:
    class Wrong(Bigrams):
        sizes_, facts_ = Bigrams().sizes(), Bigrams().facts()

        def sizes(self) -> Any:
            return self.sizes_

        def facts(self) -> Any:
            return self.facts_

    model: Any = Wrong()
    assert (sizes_of(model), facts_of(model)) == (model.sizes_, model.facts_)
    for facts, message in (
        (None, 'returned nothing: return a dict that has "kernels", what the model runs on'),
        ({"version": 1}, "returned no kernels: return a dict"),
        ({"kernels": [1]}, "returned a list as 'kernels': return text, a number, or None"),
    ):
        model.facts_ = facts
        with pytest.raises(MeasurementError, match=f"^Wrong.facts {message}"):
            facts_of(model)
    model.sizes_ = 7
    here.backend = model
    with pytest.raises(
        MeasurementError, match=r"^Wrong.sizes returned a int: return Sizes\(vocabulary=\.\.\.\)$"
    ):
        here.session()


def test_a_text_that_no_group_has_asked_for_is_named(here: Here) -> None:
    with pytest.raises(
        MeasurementError, match=r"^text wiki: is not in the workload, as `needs` of no metric group"
    ):
        here.session().text("wiki")


@pytest.mark.parametrize("name", ["needs", "expected", "as_measured"])
def test_a_function_of_a_group_that_fails_is_named_with_its_line(name: str) -> None:
    def failing(*_: object) -> Any:
        raise KeyError("x")

    functions: Any = {"measure": failing, name: failing}
    group = Group(options=Record, metrics={}, family="quality", **functions)
    with pytest.raises(
        InputError, match=rf"^{name} of a metric group fails: KeyError in test_added.py:\d+: 'x'; co"
    ):
        getattr(group, name)(Record(), {})


Result = tuple[NDArray[np.float64], NDArray[np.bool_]]


class Scoring:
    def __init__(self, change: Callable[[list[Result]], list[Any]]) -> None:
        self.change = change

    def scores(self, sequences: Sequence[TokenSequence]) -> list[Any]:
        counts = [len(one.ids) - one.start for one in sequences]
        return self.change([(np.full(n, -1.0), np.zeros(n, bool)) for n in counts])


def test_one_log_probability_for_each_scored_token() -> None:
    whole: Any = Scoring(lambda results: results)
    assert [one.total for one in score(whole, [SEQUENCES], 9)[0]] == [-3.0, -1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results[:1], "returned 1 results for 2 sequences: return one for each"),
        (
            lambda results: [(p[1:], g[1:]) for p, g in results],
            "returned 2 log-probabilities and 2 flags for a sequence with 3 scored tokens: return one of each for a",
        ),
        (
            lambda results: [(p, g[:1]) for p, g in results],
            "returned 3 log-probabilities and 1 flags for a sequence",
        ),
        (lambda results: [(p * math.nan, g) for p, g in results], "returned nan, which is no natural-log"),
        (
            lambda results: [(p * -1, g) for p, g in results],
            "returned 1, which is no natural-log probability",
        ),
    ],
    ids=["too few", "too short", "too few flags", "nan", "positive"],
)
def test_anything_else_is_refused(change: Any, message: str) -> None:
    backend: Any = Scoring(change)
    with pytest.raises(MeasurementError) as caught:
        score(backend, [SEQUENCES], 9)
    assert str(caught.value).startswith(f"Scoring.scores {message}")


def test_logits_are_of_the_rows_that_were_asked_for() -> None:
    class Everything(Bigrams):
        def logits(self, tree: TokenTree) -> NDArray[np.float32]:
            logits: NDArray[np.float32] = self.table[tree.ids]
            return logits

    last: Any = [[TokenSequence((1, 2, 3, 4), 3)]]
    with pytest.raises(
        MeasurementError, match=r"Everything\.logits returned an array of 3x7 for 1 rows: return"
    ):
        score(Everything(), last, 9)


def test_an_error_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head = "from quantgate.records import Metric\ndef make(output, *, report, value):\n"
    body = "    return Metric(kind='exact', value=float(value), unit='', better='lower')\n"
    (tmp_path / "their_maker.py").write_text(head + body)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(worker, "end_with_parent", lambda: None)
    for value, cause in (
        ("nan", "their_maker.py:3: Metric.value: must be a finite number, not nan"),
        ("x", "ValueError in their_maker.py:3: could not convert string to float: 'x'"),
    ):
        job = {"title": "make", "maker": "their_maker:make", "arguments": {"value": value}, "output": "x"}
        file = tmp_path / "job.json"
        file.write_text(json.dumps({"kind": "prepare", **job}))
        assert worker.main([str(file)]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {cause}"
    del sys.modules["their_maker"]
