"""Results of items, held against lm-evaluation-harness where it has the task."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import InputError
from quantgate.items import Choice, Item, Task
from quantgate.measure.metrics import accuracy
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import make_task, results_of

from selftest.supply.harness import harness, lines, scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selftest.tiny import TinyModel


def a_task(results: Any, tokens: Sequence[int], gold: list[int], *metrics: str) -> tuple[Task, Item]:
    item = Item(
        choices=[Choice(context=[1], continuation=[2] * n, characters=4 * n) for n in tokens], gold=gold
    )
    task = Task(
        name="x", version="1", output_type="multiple_choice", results=results, metrics=list(metrics),
        items=[item], data_hash="d", prompt_hash="p", token_hash="t",
    )  # fmt: skip
    return task, item


def test_the_share_of_true_answers_is_that_of_the_harness() -> None:
    source = random.Random(5)
    labels = [1, 1, 0, 1, 0]
    document = {
        "question": "Do bears dress?",
        "mc1_targets": {"choices": ["a"], "labels": [1]},
        "mc2_targets": {"choices": list("abcde"), "labels": labels},
    }
    theirs = harness("truthfulqa_mc2", [document], "truthfulqa/truthfulqa_mc2.yaml")
    task, item = a_task("mass", [1] * 5, [0, 1, 3], "acc")
    for _ in range(20):
        totals = [-30 * source.random() for _ in labels]
        expected = float(theirs.process_results(document, [(t, False) for t in totals])["acc"])
        assert accuracy.item_metrics(task, item, scores(totals)) == {"acc": pytest.approx(expected)}
    assert accuracy.margins(task, item, scores([-1.0, -2.0, -4.0, -8.0, -3.0])) == {"margin": 2.0}


def test_the_right_answers_of_truthfulqa_mc2_are_its_labels(tiny: TinyModel, tmp_path: Path) -> None:
    rows = [
        {
            "question": "Do bears dress?",
            "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["No", "Never", "Yes", "Rarely"], "labels": [1, 1, 0, 0]},
        }
    ] * 2
    spec = {"jsonl": lines(tmp_path, rows), "split": "validation", "items": 2}
    task = make_task("truthfulqa_mc2", spec, Encoder(tiny.safetensors, None))
    assert (task.results, task.metrics, [i.gold for i in task.items]) == ("mass", ["acc"], [[0, 1]] * 2)


@pytest.mark.parametrize(
    ("per_token", "lms", "ss"),
    [((-1, -2, -3), 1.0, 1.0), ((-2, -1, -3), 1.0, 0.0), ((-1, -3, -2), 0.5, 1.0), ((-3, -2, -1), 0.0, 0.0)],
)
def test_stereoset_counts_preferences_by_token(per_token: tuple[float, ...], lms: float, ss: float) -> None:
    """A long sentence is not less likely for its length."""
    tokens = (5, 2, 9)
    task, item = a_task("stereoset", tokens, [0], "lms", "ss")
    totals = scores([n * p for n, p in zip(tokens, per_token, strict=True)])
    assert accuracy.item_metrics(task, item, totals) == {"lms": lms, "ss": ss}
    assert accuracy.margins(task, item, totals) == {}


def test_a_given_answer_has_its_likelihood_and_that_by_character() -> None:
    task, item = a_task("gold", [3], [0])
    assert accuracy.item_metrics(task, item, scores([-6.0])) == {}
    assert accuracy.margins(task, item, scores([-6.0])) == {"margin": -6.0, "margin_norm": -0.5}


def test_code_of_a_task_that_is_not_known_is_refused() -> None:
    assert results_of("arc_easy", None) == "choice"
    with pytest.raises(InputError, match=r"task .odd. computes its results by a function"):
        results_of("odd", math.sqrt)
    with pytest.raises(InputError, match="by a function"):
        results_of("truthfulqa_mc2", "no-such-rule")
