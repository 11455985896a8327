"""Run lm-evaluation-harness's model class on the suite's tasks; `score` is a maker that runs in a separate process."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

from quantgate.errors import MeasurementError
from quantgate.files import write_atomic
from quantgate.items import Task
from quantgate.proofs.peers.outcome import other_predictions
from quantgate.records import Record
from quantgate.supply.checkpoints import Report
from quantgate.supply.tasks import load_task


class TaskScores(Record):
    """lm-eval's scores of the first items of a task.

    tokens: [items][choices] of (context, continuation). loglikelihoods: [items][choices], nats. metrics: by name, one
    value an item. seconds: of scoring alone, without tokenization.
    """

    tokens: list[list[tuple[list[int], list[int]]]]
    loglikelihoods: list[list[float]]
    metrics: dict[str, list[float]]
    seconds: float


Scores = dict[int, dict[str, TaskScores]]
"""By batch size and task."""


def score(
    output: Path,
    *,
    report: Report,
    model: str,
    gguf: str | None,
    add_bos: bool | None,
    tasks: dict[str, dict[str, Any]],
    batch_sizes: list[int],
    softmax: str | None,
    threads: int,
) -> None:
    """Write `Scores` as JSON.

    model: a folder of safetensors. gguf: a file whose weights, dequantized to fp32, replace the folder's. tasks: as
    `load_task` takes them. softmax: dtype of the log-softmax (`softmax_dtype` of lm-eval); None: the model's.
    """
    import torch

    torch.set_num_threads(threads)
    built = {}
    for number, (name, spec) in enumerate(tasks.items()):
        report(f"prepare task {name}", number, len(tasks))
        built[name] = load_task(name, spec)
        built[name].build_all_requests(limit=spec["items"], rank=0, world_size=1)
    model_class = timed_model_class()
    weights = {"pretrained": model}
    if gguf is not None:
        file = Path(gguf)
        weights = {"pretrained": str(file.parent), "gguf_file": file.name, "tokenizer": model}
    scores: dict[int, dict[str, dict[str, Any]]] = {}
    for size in batch_sizes:
        lm = model_class(
            **weights,
            device="cpu",
            dtype="float32",
            softmax_dtype=softmax,
            batch_size=size,
            add_bos_token=add_bos,
        )
        for number, (name, task) in enumerate(built.items()):
            report(f"lm-eval {name}, batches of {size}", number, len(built))
            scores.setdefault(size, {})[name] = score_task(lm, task).model_dump()
    write_atomic(output, json.dumps(scores).encode())


def score_task(lm: Any, task: Any) -> TaskScores:
    """Score the requests of a task whose requests are built."""
    requests = task.instances
    results = lm.loglikelihood(requests, disable_tqdm=True)
    order = sorted(range(len(requests)), key=lambda i: (requests[i].doc_id, requests[i].idx))
    tokens, loglikelihoods = [], []
    metrics: dict[str, list[float]] = {}
    for _, group in itertools.groupby(order, key=lambda i: requests[i].doc_id):
        item = list(group)
        tokens.append([lm.tokens[i] for i in item])
        loglikelihoods.append([float(results[i][0]) for i in item])
        for metric, value in task.process_results(requests[item[0]].doc, [results[i] for i in item]).items():
            if metric in ("acc", "acc_norm"):
                metrics.setdefault(metric, []).append(float(value))
    return TaskScores(tokens=tokens, loglikelihoods=loglikelihoods, metrics=metrics, seconds=lm.seconds)


def timed_model_class() -> Any:
    """Return lm-eval's class for transformers, extended to keep the tokens of its last call and the seconds it took."""
    from lm_eval.models.huggingface import HFLM

    class Timed(HFLM):  # type: ignore[misc]
        tokens: list[tuple[list[int], list[int]]]
        seconds: float

        def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
            self.tokens = [(context, continuation) for _, context, continuation in requests]
            begin = time.perf_counter()
            scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, **options)
            self.seconds = time.perf_counter() - begin
            return scores

    return Timed


def check_tokens(task: Task, theirs: TaskScores) -> None:
    """Raise MeasurementError unless both score the same token ids."""
    ours = [[(c.context, c.continuation) for c in item.choices] for item in task.items]
    if ours == theirs.tokens:
        return
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs.tokens, strict=False))
    raise MeasurementError(
        f"{task.name}: lm-eval and the suite scored different tokens, first at item {len(list(same))} "
        f"({len(ours)} items here, {len(theirs.tokens)} there)"
    )


def judged_differently(ours: dict[str, list[float]], theirs: TaskScores) -> int:
    """Count the items whose `acc` or `acc_norm` differs. ours: by metric, one value an item."""
    return max(
        sum(a != b for a, b in zip(values, theirs.metrics[metric], strict=True))
        for metric, values in ours.items()
    )


def predicted_differently(task: Task, ours: list[list[float]], theirs: TaskScores, tie: float) -> int:
    """Count the items whose predicted choice, by `acc` or `acc_norm`, differs by more than a tie of `tie` nats."""
    lengths = {
        "acc": [[1.0] * len(item.choices) for item in task.items],
        "acc_norm": [[float(c.characters) for c in item.choices] for item in task.items],
    }
    return max(other_predictions(ours, theirs.loglikelihoods, lengths[m], tie) for m in task.metrics)
