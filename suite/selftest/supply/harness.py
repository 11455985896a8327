"""What the tests of tasks share: rows in a file, and what lm-evaluation-harness makes of the same rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from quantgate.items import Task
from quantgate.measure.scoring import Scored
from quantgate.supply.encoder import Encoder
from quantgate.supply.tasks import build_task


def lines(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(task: Task, encoder: Encoder) -> list[list[tuple[str, str]]]:
    """Of each item, context and continuation of each choice."""
    decode = encoder.tokenizer.decode
    return [[(decode(c.context), decode(c.continuation)) for c in item.choices] for item in task.items]


def harness(name: str, documents: list[dict[str, Any]], file: str) -> Any:
    """The harness's task on these documents; file: in the folder of its tasks."""
    import datasets
    import lm_eval

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})

    def configure(config: dict[str, Any]) -> dict[str, Any]:
        splits = dict.fromkeys(("training_split", "validation_split", "fewshot_split", "process_docs"))
        return config | splits | {"test_split": "test", "custom_dataset": lambda **_: data}

    return build_task(name, (Path(lm_eval.__file__).parent / "tasks" / file).parent, configure)


def requests(task: Any) -> list[list[tuple[str, str]]]:
    """What the harness scores, by item."""
    task.build_all_requests(rank=0, world_size=1)
    by_item: dict[int, list[tuple[str, str]]] = {}
    for request in task.instances:
        by_item.setdefault(request.doc_id, []).append(request.args)
    return list(by_item.values())


def joined(items: list[list[tuple[str, str]]]) -> list[list[str]]:
    return [["".join(pair) for pair in item] for item in items]


def scores(totals: Sequence[float]) -> list[Scored]:
    """What the suite makes of choices with these log-probabilities, each of one token."""
    return [Scored(np.array([total]), np.array([False])) for total in totals]
