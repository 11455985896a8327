"""The task `continuation`: its items are fair, and lm-evaluation-harness takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from quantgate.supply.documents import continuation, sentences
from quantgate.supply.encoder import Encoder
from quantgate.supply.sources import task_file
from quantgate.supply.tasks import load_task, make_task

from selftest.tiny import TinyModel

PASSAGES = [
    f"This is the first sentence of passage {n}. The second says {n * n}. "
    f"Only here the {'very ' * (n % 7)}third one is about {n} and nothing else. A fourth follows."
    for n in range(40)
]


def items(passages: list[str]) -> list[dict[str, Any]]:
    return list(continuation({"passage": passage} for passage in passages))


def test_sentences_end_where_a_capital_follows() -> None:
    text = 'It costs 3.50 now. Does it?  Yes!\nIn e.g. two shops. "No" said U.S. officials.'
    assert sentences(text) == [
        "It costs 3.50 now.",
        "Does it?",
        "Yes!",
        'In e.g. two shops. "No" said U.S. officials.',
    ]


def test_the_right_sentence_is_the_one_that_follows() -> None:
    made = items(PASSAGES)
    assert len(made) == len(PASSAGES)
    for number, item in enumerate(made):
        true = item["sentences"][item["label"]]
        assert PASSAGES[number].startswith(f"{item['context']} {true}")
        assert len(set(item["sentences"])) == 4
        assert sum(sentence in PASSAGES[number] for sentence in item["sentences"]) == 1


def test_neither_place_nor_length_tells_the_right_one() -> None:
    made = items([p for n in range(10) for p in (s.replace("passage", f"text {n}") for s in PASSAGES)])
    places = np.bincount([item["label"] for item in made], minlength=4)
    assert places.min() > len(made) / 8
    true = np.mean([len(i["sentences"][i["label"]]) for i in made])
    wrong = np.mean([len(s) for i in made for s in i["sentences"]])
    assert abs(true / wrong - 1) < 0.1


def test_items_are_the_same_each_time_and_leave_short_passages_out() -> None:
    short = ["One sentence only.", "Two of them. That is all."]
    assert items(PASSAGES) == items([*short, *PASSAGES, *PASSAGES])


def test_it_is_a_task_of_the_harness(tiny: TinyModel, tmp_path: Path) -> None:
    import datasets  # here: it takes a third of a second in each process that collects

    datasets.Dataset.from_dict({"passage": PASSAGES}).save_to_disk(tmp_path / "passages")
    spec = {"folder": str(tmp_path / "passages"), "split": "test", "documents": "continuation", "items": 8}
    assert task_file("continuation").parent.name == "tasks"
    document = load_task("continuation", spec).dataset["test"][0]
    encoder = Encoder(tiny.safetensors, None)
    task = make_task("continuation", spec, encoder)
    assert (task.output_type, task.metrics, len(task.items)) == ("multiple_choice", ["acc", "acc_norm"], 8)
    assert [i.gold for i in task.items] == [[item["label"]] for item in items(PASSAGES)[:8]]
    first = task.items[0].choices[0]
    assert encoder.tokenizer.decode(first.context) == document["context"]
    assert encoder.tokenizer.decode(first.continuation) == " " + document["sentences"][0]
    assert json.loads(task.model_dump_json())["name"] == "continuation"
