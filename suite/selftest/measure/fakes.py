"""A model of bigrams, whose log-probabilities are exact, and a session of it."""

from __future__ import annotations

import gc
import json
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from quantgate.backends.base import Rounding, Sizes, Stops, Weights
from quantgate.backends.runtime.greedy import continue_greedily
from quantgate.items import Choice, Item, Task, Text
from quantgate.jobs import Job
from quantgate.measure.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from quantgate.backends.tree import TokenTree
    from quantgate.records import Metric

VOCABULARY = 7
MB = 2**20


class Bigrams:
    """A model whose next token depends on the present one alone; notes how it is called."""

    settings = "by heart"
    rounding = Rounding(0.0, 0.0)

    def __init__(self) -> None:
        self.table = np.random.default_rng(3).normal(0, 2, (VOCABULARY, VOCABULARY)).astype(np.float32)
        self.calls: list[Any] = []
        self.trees: list[TokenTree] = []
        self.last = 0

    def logprob(self, before: int, token: int) -> float:
        row = self.table[before].astype(float)
        return float(row[token] - np.log(np.exp(row).sum()))

    def total(self, ids: Sequence[int], start: int) -> float:
        """Log-probability of the tokens from `start` on."""
        return sum(self.logprob(a, b) for a, b in list(pairwise(ids))[start - 1 :])

    def likeliest(self, token: int, count: int) -> list[int]:
        """The greedy continuation."""
        ids = []
        for _ in range(count):
            token = int(self.table[token].argmax())
            ids.append(token)
        return ids

    def reserve(self, tokens: int, sequences: int) -> None:
        self.calls.append(("reserve", tokens, sequences))

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        self.trees.append(tree)
        logits: NDArray[np.float32] = self.table[[tree.ids[row] for row in tree.rows]]
        return logits

    def prefill(self, ids: Sequence[int]) -> None:
        self.calls.append(("prefill", len(ids)))
        self.last = ids[-1]

    def decode(self, ids: Sequence[int]) -> None:
        self.calls.append(("decode", len(ids)))
        self.last = ids[-1]

    def next_logits(self) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self.table[self.last]
        return logits

    def generate(self, ids: Sequence[int], limit: int, stops: Stops) -> list[int]:
        return continue_greedily(self, ids, limit, stops)

    def weights(self) -> Weights:
        self.calls.append("weights")
        return Weights(bytes=1000, parameters=1600, file_bytes=1234)

    def lengths(self) -> list[int]:
        return []

    def sizes(self) -> Sizes:
        return Sizes(vocabulary=len(self.table))

    def tokenize(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def facts(self) -> dict[str, str | int | float | bool | None]:
        return {"kernels": "by hand"}

    def device_peak_bytes(self) -> dict[str, int]:
        return {}

    def reset_device_peak(self) -> None:
        self.calls.append("reset")


def hold_memory() -> None:
    """64 MB for a moment that the sampler, which looks every few milliseconds, cannot miss."""
    block = np.ones(64 * MB, dtype=np.uint8)
    time.sleep(0.1)
    del block


class Here:
    """A session of a fake backend, its workload in a folder, the progress it reported."""

    def __init__(self, folder: Path, backend: Any = None) -> None:
        self.folder = folder
        self.backend = backend or Bigrams()
        self.progress: list[tuple[str, float, float]] = []
        self.options: dict[str, dict[str, Any]] = {}
        self.job: dict[str, Any] = {"requests": []}
        self.write("meta.json", json.dumps({"vocabulary": VOCABULARY}))

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def new_job(self) -> Job:
        return Job(
            cell="tiny/fake/f", tier="smoke", fingerprint="x", backend="fake", scheme_options={}, threads=2,
            weights=self.folder, source_hash="w1", workload=self.folder, group_options=self.options,
            output=self.folder / "out.json", **self.job,
        )  # fmt: skip

    def session(self) -> Session:
        gc.freeze()  # garbage is collected before a peak is measured: not among all that other tests imported
        session = Session(self.new_job(), lambda *event: self.progress.append(event))
        session.load(lambda checkpoint, options, threads: self.backend)
        session.causal = True  # test_way.py asks that; tests here count the passes of a group
        return session

    def measure(self, module: Any, *parts: str, **options: Any) -> dict[str, Metric]:
        group = module.__name__.rpartition(".")[2]
        self.options = {group: options}
        session = self.session()
        session.phase = group
        metrics: dict[str, Metric] = module.measure(session, parts)
        return metrics


N_CTX, WINDOWS = 8, 3
IDS = random.Random(5).choices(range(1, VOCABULARY), k=N_CTX * WINDOWS)
STARTS = [0, *np.cumsum([1 + (7 * n) % 5 for n in range(len(IDS))]).tolist()]
"""Tokens of one to five bytes."""


def with_text(here: Here, bos: int | None = None) -> Bigrams:
    here.write("text-t.json", Text(ids=IDS, starts=STARTS, bos=bos, hash="t1").model_dump_json())
    assert isinstance(here.backend, Bigrams)
    return here.backend


CONTEXTS = [[1, 2], [3, 4, 5], [2, 6], [6, 1, 1]]


def task(name: str, output_type: str, metrics: list[str], items: list[Item]) -> Task:
    return Task(
        name=name, version="1.0", output_type=output_type, metrics=metrics, items=items,
        data_hash="d", prompt_hash="p", token_hash="k",
    )  # fmt: skip


def choice_task(here: Here) -> tuple[list[list[list[int]]], list[list[int]]]:
    """Three choices of one to three tokens, of which the lengths in characters favour others than the totals do."""
    source = random.Random(12)
    continuations = [
        [[source.randrange(VOCABULARY) for _ in range(k + 1)] for k in range(3)] for _ in CONTEXTS
    ]
    gold = [[0], [1], [2], [0, 2]]
    items = [
        Item(
            choices=[
                Choice(context=c, continuation=k, characters=1 + 9 * n) for n, k in enumerate(options)
            ],
            gold=g,
        )
        for c, options, g in zip(CONTEXTS, continuations, gold, strict=True)
    ]  # fmt: skip
    here.write(
        "task-choose.json", task("choose", "multiple_choice", ["acc", "acc_norm"], items).model_dump_json()
    )
    return continuations, gold


def greedy_task(here: Here, name: str = "last") -> None:
    """The first item's continuation is what greedy decoding gives; of the second, the first token only."""
    model = here.backend
    right = model.likeliest(CONTEXTS[0][-1], 2)
    first = model.likeliest(CONTEXTS[1][-1], 1)[0]
    wrong = (model.likeliest(first, 1)[0] + 1) % VOCABULARY
    items = [
        Item(choices=[Choice(context=CONTEXTS[0], continuation=right, characters=5)], gold=[0]),
        Item(choices=[Choice(context=CONTEXTS[1], continuation=[first, wrong], characters=5)], gold=[0]),
    ]
    here.write(f"task-{name}.json", task(name, "loglikelihood", ["acc"], items).model_dump_json())
