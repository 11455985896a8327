"""Items of a task of the user's own, held against lm-evaluation-harness, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import InputError
from quantgate.measure.metrics import accuracy
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import load_task, make_task

from selftest.supply.harness import joined, lines, requests, scores, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selftest.tiny import TinyModel


CAPITALS = """\
task: capitals
output_type: multiple_choice
num_fewshot: 2
fewshot_split: test
doc_to_text: "{{country}}:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
COUNTRIES = [
    {"country": name, "choices": [f"{name} City", "Bern"], "answer": 0}
    for name in ("Ay", "Bee", "Cee", "Dee")
]


def capitals(
    folder: Path, rows: Sequence[dict[str, Any]], *changes: tuple[str, str], **further: Any
) -> dict[str, Any]:
    """The place of a task of these rows. changes: of the text of its file."""
    text = CAPITALS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "capitals.yaml").write_text(text)
    file = str(folder / "capitals.yaml")
    return {"jsonl": lines(folder, rows), "file": file, "items": len(rows), **further}


def test_a_task_that_asks_for_examples_has_them_unless_the_tier_says_how_many(
    tiny: TinyModel, tmp_path: Path
) -> None:
    encoder = Encoder(tiny.safetensors, None)
    spec = capitals(tmp_path, COUNTRIES)
    theirs = load_task("capitals", spec)
    theirs.set_fewshot_seed(1234)  # the harness's default
    expected = joined(requests(theirs))
    for fewshot, count in ((None, 2), (0, 0), (1, 1)):
        options = accuracy.Options(tasks=["capitals"], items=4, fewshot=fewshot)
        posed = accuracy.needs(options).tasks["capitals"].model_dump()
        made = make_task("capitals", {**spec, **posed}, encoder)
        prompts = joined(texts(made, encoder))
        assert made.fewshot == count
        assert all(one.count(":") == count + 1 for item in prompts for one in item)
        assert (prompts == expected) is (fewshot is None)


def rows_with(**changes: Any) -> list[dict[str, Any]]:
    """Two rows, the second one with these changes."""
    return [COUNTRIES[0], {**COUNTRIES[1], **changes}]


@pytest.mark.parametrize("norm", [True, False])
def test_the_harnesss_mutual_information_adds_no_choices(norm: bool, tiny: TinyModel, tmp_path: Path) -> None:
    metrics = "{metric: acc}, {metric: acc_norm}" if norm else "{metric: acc}"
    encoder = Encoder(tiny.safetensors, None)
    changes = (("[{metric: acc}, {metric: acc_norm}]", f"[{metrics}, {{metric: acc_mutual_info}}]"),)
    task = make_task("capitals", capitals(tmp_path, COUNTRIES, *changes, fewshot=0), encoder)
    plain = make_task("capitals", capitals(tmp_path, COUNTRIES, fewshot=0), encoder)
    assert task.items == plain.items
    assert task.metrics == (["acc", "acc_norm"] if norm else ["acc"])


@pytest.mark.parametrize(
    ("rows", "gold"),
    [
        (rows_with(answer=1), [1]),  # an index
        ([{**row, "answer": row["choices"][0]} for row in rows_with()], [0]),  # a text
        (rows_with(choices=["Bern"], answer=0), [0]),  # of one choice
        (
            rows_with(choices=["a", "b", "c", "d", "a"], answer=4),
            [4],
        ),  # more than the others have, two of them equal
    ],
)
def test_right_answers_are_those_of_the_harness(
    rows: list[dict[str, Any]],
    gold: list[int],
    tiny: TinyModel,
    tmp_path: Path,
) -> None:
    spec = capitals(tmp_path, rows, fewshot=0)
    ours, theirs = make_task("capitals", spec, Encoder(tiny.safetensors, None)), load_task("capitals", spec)
    assert ours.items[1].gold == gold
    source = random.Random(2)
    for item, document in zip(ours.items, theirs.eval_docs, strict=True):
        for _ in range(10):
            totals = [-source.choice((1.0, 2.0, 9.0)) for _ in item.choices]  # with ties
            expected = theirs.process_results(document, [(total, False) for total in totals])
            assert accuracy.item_metrics(ours, item, scores(totals)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"answer": 2},
            r"item 2: the right answer, 2, is none of its 2 choices, nor the number of one, from 0: \['Bee",
        ),
        ({"answer": -1}, "item 2: the right answer, '-1', is none of"),
        ({"answer": None}, "item 2: the right answer, 'None', is none of"),
        ({"choices": ["", "Bern"]}, "item 2: choice 1 is empty, and acc_norm divides by the characters"),
    ],
)
def test_an_item_that_cannot_be_right_is_named(
    change: dict[str, Any], message: str, tiny: TinyModel, tmp_path: Path
) -> None:
    spec = capitals(tmp_path, rows_with(**change), fewshot=0)
    with pytest.raises(InputError, match=f"task 'capitals': {message}"):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))


LISTED = ('"{{answer}}"', "answer")  # as the column has it, not as text
JOINED = ("metric_list", 'target_delimiter: ""\nmetric_list')
BARE = (", {metric: acc_norm}", "")


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (
            [{**row, "answer": "1"} for row in COUNTRIES],
            [LISTED],
            r"'1', is none of .*in a column of texts, write \"\{\{column\}\}\"\): \['Ay City'",
        ),
        (
            [{**row, "answer": []} for row in COUNTRIES],
            [LISTED],
            r"right answer, \[\], is none of its 2 choices",
        ),
        (
            rows_with(choices=["", "Bern"]),
            [JOINED, BARE],
            "choice 1, '', has no token of its own after the prompt",
        ),
    ],
)
def test_answers_and_choices_of_other_kinds_are_named(
    rows: list[dict[str, Any]], changes: list[tuple[str, str]], message: str,
    tiny: TinyModel, tmp_path: Path,
) -> None:  # fmt: skip
    spec = capitals(tmp_path, rows, *changes, fewshot=0)
    with pytest.raises(InputError, match=message):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))


def test_a_number_in_a_column_of_texts_is_one_in_a_template(tiny: TinyModel, tmp_path: Path) -> None:
    rows = [{**row, "answer": "1"} for row in COUNTRIES]
    made = make_task("capitals", capitals(tmp_path, rows, fewshot=0), Encoder(tiny.safetensors, None))
    assert [item.gold for item in made.items] == [[1]] * 4


def test_data_of_a_task_that_cannot_be_read_is_named_with_the_task(tiny: TinyModel, tmp_path: Path) -> None:
    spec = capitals(tmp_path, COUNTRIES)
    (tmp_path / "rows.jsonl").write_text("{}\n{")
    with pytest.raises(InputError, match=r"task 'capitals': .*rows.jsonl, line 2: is not JSON"):
        make_task("capitals", spec, Encoder(tiny.safetensors, None))
