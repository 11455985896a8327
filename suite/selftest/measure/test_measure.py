"""Metrics: exact values from a model whose log-probabilities are known, and lm-evaluation-harness's own verdicts."""

from __future__ import annotations

import json
import math
import mmap
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from quantgate.backends.base import Rounding, Sizes, Weights
from quantgate.backends.tree import TokenSequence
from quantgate.errors import InputError, MeasurementError
from quantgate.items import Choice, Item, Task, Text
from quantgate.jobs import Job, Needs
from quantgate.machine.environment import machine
from quantgate.measure import budget as tuning
from quantgate.measure import scoring
from quantgate.measure.metrics import (
    accuracy,
    code,
    decoding,
    memory,
    perplexity,
    throughput,
    tokenizer,
)
from quantgate.measure.scoring import Scored
from quantgate.measure.session import Session
from quantgate.processes.turns import Turns
from quantgate.records import Disturbance

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from quantgate.backends.tree import TokenTree
    from quantgate.records import Metric

    from selftest.tiny import TinyModel

VOCABULARY = 7
MB = 2**20


class Bigrams:
    """A model whose next token depends on the present one alone; notes what it is asked for."""

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
        found = []
        for _ in range(count):
            token = int(self.table[token].argmax())
            found.append(token)
        return found

    def reserve(self, tokens: int, sequences: int) -> None:
        self.calls.append(("reserve", tokens, sequences))

    def logits(self, tree: TokenTree) -> NDArray[np.float32]:
        self.trees.append(tree)
        found: NDArray[np.float32] = self.table[[tree.ids[row] for row in tree.rows]]
        return found

    def prefill(self, ids: Sequence[int]) -> None:
        self.calls.append(("prefill", len(ids)))
        self.last = ids[-1]

    def decode(self, ids: Sequence[int]) -> None:
        self.calls.append(("decode", len(ids)))
        self.last = ids[-1]

    def next_logits(self) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.table[self.last]
        return found

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

    def session(self) -> Session:
        job = Job(
            cell="tiny/fake/f", tier="smoke", fingerprint="x", backend="fake", scheme_options={}, threads=2,
            weights=self.folder, source_hash="w1", workload=self.folder, group_options=self.options,
            output=self.folder / "out.json", **self.job,
        )  # fmt: skip
        session = Session(job, lambda *event: self.progress.append(event))
        session.load(lambda checkpoint, options, threads: self.backend)
        return session

    def measure(self, module: Any, *parts: str, **options: Any) -> dict[str, Metric]:
        group = module.__name__.rpartition(".")[2]
        self.options = {group: options}
        session = self.session()
        session.phase = group
        metrics: dict[str, Metric] = module.measure(session, parts)
        return metrics


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


# --- forward passes -------------------------------------------------------------------------------


def test_time_in_forward_passes_is_counted_by_phase(here: Here) -> None:
    class Slow(Bigrams):
        def decode(self, ids: Sequence[int]) -> None:
            time.sleep(0.02)
            super().decode(ids)

    here.backend = Slow()
    session = here.session()
    begin = time.perf_counter()
    for phase in ("one", "other", "other"):
        session.phase = phase
        session.backend.decode([1])
    session.phase = "none"
    session.backend.weights()
    assert set(session.forward) == {"one", "other"}
    assert session.forward["one"] >= 0.02
    assert session.forward["other"] >= 0.04
    assert sum(session.forward.values()) <= time.perf_counter() - begin


# --- perplexity -----------------------------------------------------------------------------------

N_CTX, WINDOWS = 8, 3
IDS = random.Random(5).choices(range(1, VOCABULARY), k=N_CTX * WINDOWS)
STARTS = [0, *np.cumsum([1 + (7 * n) % 5 for n in range(len(IDS))]).tolist()]
"""Tokens of one to five bytes."""


def with_text(here: Here, bos: int | None = None) -> Bigrams:
    here.write("text-t.json", Text(ids=IDS, starts=STARTS, bos=bos, hash="t1").model_dump_json())
    assert isinstance(here.backend, Bigrams)
    return here.backend


def windows(bos: int | None = None) -> list[list[int]]:
    found = [IDS[n : n + N_CTX] for n in range(0, len(IDS), N_CTX)]
    return found if bos is None else [[bos, *ids[1:]] for ids in found]


@pytest.mark.parametrize("bos", [None, 0])
@pytest.mark.parametrize(("protocol", "start", "scored"), [("full", 1, 7), ("half", 5, 3)])
def test_perplexity_is_the_exponential_of_the_mean_over_the_scored_tokens(
    here: Here, protocol: str, start: int, scored: int, bos: int | None
) -> None:
    model = with_text(here, bos)
    found = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, protocol=protocol)
    nll = [-model.total(ids, start) for ids in windows(bos)]
    metric = found["perplexity"]
    assert metric.value == pytest.approx(math.exp(sum(nll) / (scored * WINDOWS)), rel=1e-6)
    assert metric.samples == pytest.approx([x / scored for x in nll], rel=1e-6)
    assert metric.weights == [scored] * WINDOWS
    error = np.std([x / scored for x in nll], ddof=1) / math.sqrt(WINDOWS)
    assert metric.stderr == pytest.approx(metric.value * error, rel=1e-6)
    assert (metric.kind, metric.link, metric.better) == ("paired", "exp", "lower")
    assert metric.conditions == {
        "source": "w1", "tokens": "t1", "text": "t", "n_ctx": N_CTX, "windows": WINDOWS,
        "protocol": protocol, "block": 128, "scored tokens": scored * WINDOWS,
    }  # fmt: skip


@pytest.mark.parametrize(("protocol", "start"), [("full", 1), ("half", 5)])
def test_bits_per_byte_counts_the_bytes_of_the_scored_tokens(here: Here, protocol: str, start: int) -> None:
    model = with_text(here)
    found = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, protocol=protocol)
    bits = [-model.total(ids, start) / math.log(2) for ids in windows()]
    size = [STARTS[(n + 1) * N_CTX] - STARTS[n * N_CTX + start] for n in range(WINDOWS)]
    metric = found["perplexity/bits_per_byte"]
    assert metric.value == pytest.approx(sum(bits) / sum(size), rel=1e-6)
    assert metric.samples == pytest.approx([b / s for b, s in zip(bits, size, strict=True)], rel=1e-6)
    assert metric.weights == size
    assert metric.value == pytest.approx(np.average(metric.samples or [], weights=size)), (
        "as the judge takes it"
    )
    assert metric.link == "identity"
    assert metric.conditions["scored bytes"] == sum(size)


@pytest.mark.parametrize(("block", "sizes"), [(2, [2, 2, 2, 1]), (3, [4, 3]), (7, [7]), (100, [7])])
def test_windows_are_cut_into_blocks_that_the_judge_pairs(here: Here, block: int, sizes: list[int]) -> None:
    model = with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS, block=block)["perplexity"]
    assert sorted(metric.weights or []) == sorted(float(s) for s in sizes * WINDOWS)
    whole = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)["perplexity"]
    assert metric.value == pytest.approx(whole.value), "cutting changes no value"
    sums = np.array(metric.samples) * np.array(metric.weights)
    per_window = sums.reshape(WINDOWS, len(sizes)).sum(axis=1)
    assert per_window.tolist() == pytest.approx([-model.total(ids, 1) for ids in windows()], rel=1e-6)


def test_the_value_is_what_the_judge_makes_of_samples_and_weights(here: Here) -> None:
    with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)["perplexity"]
    mean = np.average(metric.samples or [], weights=metric.weights)
    assert metric.value == pytest.approx(math.exp(mean))


def test_windows_are_scored_one_at_a_time_and_fed_but_for_their_last_token(here: Here) -> None:
    model = with_text(here, bos=0)
    here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)
    assert [tree.ids for tree in model.trees] == [ids[:-1] for ids in windows(bos=0)]
    assert all(tree.is_chain for tree in model.trees)


def test_a_perplexity_beyond_any_number_is_an_error_that_says_so(here: Here) -> None:
    with_text(here).table *= 1000
    with pytest.raises(MeasurementError, match=r"log-likelihood is \d{4} nats per token.*broken weights"):
        here.measure(perplexity, text="t", n_ctx=N_CTX, windows=WINDOWS)


def test_llamacpps_protocol_scores_half_a_window_less_one() -> None:
    """llama-perplexity at n_ctx 512 counts 255 tokens of each window."""
    options = perplexity.Options(text="t", n_ctx=512, protocol="half")
    assert 512 - perplexity.first_scored(options) == 255


def test_fewer_windows_take_the_beginning_of_the_text(here: Here) -> None:
    model = with_text(here)
    metric = here.measure(perplexity, text="t", n_ctx=N_CTX, windows=2)["perplexity"]
    assert metric.value == pytest.approx(
        math.exp(-sum(model.total(w, 1) for w in windows()[:2]) / 14), rel=1e-6
    )


def test_what_the_metrics_need_of_the_workload() -> None:
    assert perplexity.needs(perplexity.Options(text="t", n_ctx=16, windows=4)) == Needs(texts={"t": 64})
    assert accuracy.needs(accuracy.Options(tasks=["a", "b"], items=5)) == Needs(tasks={"a": 5, "b": 5})
    assert accuracy.needs(accuracy.Options(tasks=["a"], items=5, fewshot=3)) == Needs(
        tasks={"a": 5}, fewshot=3
    )
    of_each = accuracy.Options(tasks=["a", "b"], items=5, items_of={"b": 9, "c": 7})
    assert accuracy.needs(of_each) == Needs(tasks={"a": 5, "b": 9})
    assert code.needs(code.Options(tasks=["humaneval"], items=3)) == Needs(programs={"humaneval": 3})
    assert decoding.needs(decoding.Options(text="t", context=9, tokens=4)) == Needs(texts={"t": 14})
    longer = decoding.Stretch(context=30, tokens=2)
    assert decoding.needs(decoding.Options(text="t", context=9, tokens=4, further=[longer])).texts == {
        "t": 33
    }
    assert tokenizer.needs(tokenizer.Options(text="t", characters=9)) == Needs(lines={"t": 9})


def encoded(tiny: TinyModel, path: Path, add_bos: bool, tokens: int) -> Text:
    from quantgate.supply.encoder import Encoder

    return Encoder(tiny.safetensors, add_bos).text("t", {"path": str(path), "tokens": tokens})


def test_a_beginning_of_sequence_token_comes_before_the_text_as_in_llamacpps_tool(
    tiny: TinyModel, tmp_path: Path
) -> None:
    """`common_tokenize(..., add_special)` puts it there once; windows are cut afterwards."""
    path = tmp_path / "text"
    path.write_text("The naïve egg does not care about your recipe. " * 4)
    plain, begun = (encoded(tiny, path, add_bos, 24) for add_bos in (False, True))
    assert begun.ids == [0, *plain.ids[:-1]]
    assert begun.bos == 0
    assert begun.starts == [0, *plain.starts[:-1]]
    assert begun.bytes_between(1, 24) == plain.bytes_between(0, 23)
    assert begun.hash != plain.hash


def test_line_ends_of_a_text_are_tokens_like_others(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "unix").write_bytes(b"The egg.\nThe dog.\nThe wheel.\n" * 3)
    (tmp_path / "windows").write_bytes(b"The egg.\r\nThe dog.\r\nThe wheel.\r\n" * 3)
    unix, windows = (encoded(tiny, tmp_path / name, False, 12) for name in ("unix", "windows"))
    assert unix.ids != windows.ids


# --- accuracy -------------------------------------------------------------------------------------

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


def test_multiple_choice_takes_the_likeliest_choice_and_the_likeliest_by_length(here: Here) -> None:
    continuations, gold = choice_task(here)
    found = here.measure(accuracy, tasks=["choose"], items=4)
    totals = [
        [here.backend.total([*c, *k], len(c)) for k in options]
        for c, options in zip(CONTEXTS, continuations, strict=True)
    ]
    plain = [float(int(np.argmax(t)) in g) for t, g in zip(totals, gold, strict=True)]
    normed = [
        float(int(np.argmax(np.array(t) / [1, 10, 19])) in g) for t, g in zip(totals, gold, strict=True)
    ]
    assert plain != normed, "or the test could not tell them apart"
    assert set(found) == {
        f"accuracy/{n}"
        for n in ("choose/acc", "choose/acc_norm", "choose/margin", "choose/margin_norm", "mean/acc")
    }
    for name, expected in (("acc", plain), ("acc_norm", normed)):
        metric = found[f"accuracy/choose/{name}"]
        assert metric.samples == expected
        assert metric.value == pytest.approx(np.mean(expected))
        assert metric.stderr == pytest.approx(np.std(expected, ddof=1) / 2)
        assert (metric.kind, metric.better, metric.unit, metric.weights) == (
            "paired",
            "higher",
            "fraction",
            None,
        )
        assert metric.conditions == {
            "source": "w1", "task": "choose", "task version": "1.0", "items": 4,
            "data": "d", "prompts": "p", "tokens": "k", "budget": 512, "scoring": "shared",
        }  # fmt: skip
    raw = found["accuracy/choose/acc"].raw["loglikelihoods"]
    assert [x for row in raw for x in row] == pytest.approx([x for row in totals for x in row], abs=1e-5)


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


def test_a_loglikelihood_task_asks_for_the_greedy_continuation_whole(here: Here) -> None:
    greedy_task(here)
    found = here.measure(accuracy, tasks=["last"], items=2)
    assert set(found) == {"accuracy/last/acc", "accuracy/last/margin", "accuracy/mean/acc"}
    assert found["accuracy/last/acc"].samples == [1.0, 0.0]
    assert found["accuracy/last/acc"].value == 0.5


def test_scoring_is_timed_by_task(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    here.options = {"accuracy": {"tasks": ["choose", "last"], "items": 2}}
    session = here.session()
    begin = time.perf_counter()
    accuracy.measure(session, [])
    assert session.scoring.keys() == {"choose", "last"}
    assert min(session.scoring.values()) > 0
    assert sum(session.scoring.values()) <= time.perf_counter() - begin


def test_only_the_tasks_that_cases_need_are_done(here: Here) -> None:
    greedy_task(here)
    options: dict[str, Any] = {"tasks": ["choose", "last", "other"], "items": 2}
    assert set(here.measure(accuracy, "last", **options)) == {"accuracy/last/acc", "accuracy/last/margin"}
    choice_task(here)
    greedy_task(here, "other")
    every = here.measure(accuracy, **options)
    assert {name.split("/")[1] for name in every} == {"choose", "last", "other", "mean"}
    assert set(here.measure(accuracy, "last", "mean", **options)) == set(every), "the mean needs them all"


def test_the_margin_is_what_the_right_choice_leads_by(here: Here) -> None:
    continuations, gold = choice_task(here)
    metric = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/margin"]
    expected = []
    for context, options, right in zip(CONTEXTS, continuations, gold, strict=True):
        totals = [here.backend.total([*context, *k], len(context)) for k in options]
        wrong = [t for n, t in enumerate(totals) if n not in right]
        expected.append(max(totals[n] for n in right) - max(wrong))
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.value == pytest.approx(np.mean(expected), abs=1e-5)
    assert (metric.kind, metric.better, metric.unit, metric.link) == ("paired", "higher", "nats", "identity")
    answers = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/acc"].samples
    assert [m > 0 for m in expected] == [bool(x) for x in answers or []], "positive where the answer is right"


def test_the_normalized_margin_is_by_character(here: Here) -> None:
    continuations, gold = choice_task(here)
    metric = here.measure(accuracy, tasks=["choose"], items=4)["accuracy/choose/margin_norm"]
    expected = []
    for context, options, right in zip(CONTEXTS, continuations, gold, strict=True):
        scores = [
            here.backend.total([*context, *k], len(context)) / (1 + 9 * n) for n, k in enumerate(options)
        ]
        expected.append(
            max(scores[n] for n in right) - max(t for n, t in enumerate(scores) if n not in right)
        )
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.unit == "nats/character"


def test_the_margin_of_a_single_continuation_is_its_loglikelihood(here: Here) -> None:
    greedy_task(here)
    found = here.measure(accuracy, tasks=["last"], items=2)
    totals = [row[0] for row in found["accuracy/last/acc"].raw["loglikelihoods"]]
    assert found["accuracy/last/margin"].samples == totals


def test_in_the_mean_each_task_counts_the_same(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    found = here.measure(accuracy, tasks=["choose", "last"], items=4)
    parts = [found[f"accuracy/{name}/acc"] for name in ("choose", "last")]
    mean = found["accuracy/mean/acc"]
    assert mean.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    assert mean.samples == [*(parts[0].samples or []), *(parts[1].samples or [])]
    assert mean.weights == [1.0] * 4 + [2.0] * 2
    assert mean.stderr == pytest.approx(math.hypot(*(p.stderr or 0.0 for p in parts)) / 2)
    assert set(mean.conditions) == {"choose", "last"}
    greedy_task(here, "choose")
    again = here.measure(accuracy, tasks=["choose", "last"], items=4)["accuracy/mean/acc"]
    assert again.conditions["last"] == mean.conditions["last"]
    assert again.conditions["choose"] != mean.conditions["choose"], "other items are not comparable"


def pair_task(here: Here, name: str) -> None:
    """Two items of two sentences each."""
    items = [
        Item(choices=[Choice(context=c, continuation=[n, 3], characters=9) for n in (1, 2)], gold=[0])
        for c in CONTEXTS[:2]
    ]
    found = task(name, "multiple_choice", ["pct_stereotype", "likelihood_diff"], items)
    here.write(f"task-{name}.json", found.model_copy(update={"results": "pair"}).model_dump_json())


def test_tasks_about_bias_are_better_low_and_part_of_no_mean(here: Here) -> None:
    greedy_task(here)
    pair_task(here, "pairs")
    found = here.measure(accuracy, tasks=["pairs", "last"], items=2)
    preferred, apart = (found[f"accuracy/pairs/{m}"] for m in ("pct_stereotype", "likelihood_diff"))
    totals = [[here.backend.total([*c, n, 3], len(c)) for n in (1, 2)] for c in CONTEXTS[:2]]
    assert preferred.samples == [float(more > less) for more, less in totals]
    assert apart.samples == pytest.approx([abs(more - less) for more, less in totals], abs=1e-5)
    assert (preferred.better, apart.better, apart.unit) == ("lower", "lower", "nats")
    assert "loglikelihoods" in preferred.raw
    assert found["accuracy/mean/acc"].samples == found["accuracy/last/acc"].samples
    assert not any("pairs/margin" in name for name in found)
    with pytest.raises(MeasurementError, match="none of the tasks has an accuracy"):
        here.measure(accuracy, tasks=["pairs"], items=2)
    assert here.measure(accuracy, "pairs", tasks=["pairs"], items=2).keys() == {
        "accuracy/pairs/pct_stereotype",
        "accuracy/pairs/likelihood_diff",
    }


def test_progress_of_accuracy_runs_over_all_tasks(here: Here) -> None:
    choice_task(here)
    greedy_task(here)
    here.measure(accuracy, tasks=["choose", "last"], items=2, budget=16)
    assert {phase for phase, _, _ in here.progress} == {"accuracy"}
    shares = [done / total for _, done, total in here.progress]
    assert shares == sorted(shares)
    assert 0.5 in shares
    assert shares[-1] == 1.0


# --- accuracy, held against lm-evaluation-harness -------------------------------------------------


def scored(loglikelihood: float, greedy: bool) -> Scored:
    return Scored(np.array([loglikelihood]), np.array([greedy]))


def assert_as_lm_eval(theirs: Any, document: Any, ours: Task, item: Item, source: random.Random) -> None:
    """Random log-likelihoods, coarse ones too, so that there are ties."""
    for steps in (2, 10_000):
        results = [(-source.randint(1, steps) / steps * 30, source.random() < 0.5) for _ in item.choices]
        expected = {
            k: float(v) for k, v in theirs.process_results(document, results).items() if k in ours.metrics
        }
        assert set(expected) == set(ours.metrics)
        assert accuracy.item_metrics(ours, item, [scored(*r) for r in results]) == expected


def in_memory(documents: list[dict[str, Any]], **config: Any) -> Any:
    """A task of lm-eval whose documents are these."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list(documents)})
    return ConfigurableTask(
        config={"task": "own", "custom_dataset": lambda **_: data, "test_split": "test", **config}
    )


def metric_list(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in names]


def test_items_of_multiple_choice_are_judged_as_lm_eval_does() -> None:
    source = random.Random(2)
    documents: list[dict[str, Any]] = [
        {"q": f"question {n}", "choices": ["x" * source.randint(1, 12) for _ in range(4)], "label": n % 4}
        for n in range(40)
    ]
    theirs = in_memory(
        documents, output_type="multiple_choice", doc_to_text="{{q}}", doc_to_choice="{{choices}}",
        doc_to_target="label", metric_list=metric_list("acc", "acc_norm"),
    )  # fmt: skip
    for document in documents:
        item = Item(
            choices=[Choice(context=[1], continuation=[1], characters=len(c)) for c in document["choices"]],
            gold=[document["label"]],
        )
        ours = task("own", "multiple_choice", ["acc", "acc_norm"], [item])
        assert_as_lm_eval(theirs, document, ours, item, source)


def test_items_of_loglikelihood_tasks_are_judged_as_lm_eval_does() -> None:
    documents = [{"text": "the last word"}, {"text": "another one"}]
    theirs = in_memory(
        documents, output_type="loglikelihood", doc_to_text="{{text.split(' ')[0]}}",
        doc_to_target="{{text.split(' ')[-1]}}", metric_list=metric_list("perplexity", "acc"),
    )  # fmt: skip
    item = Item(choices=[Choice(context=[1], continuation=[2], characters=4)], gold=[0])
    ours = task("own", "loglikelihood", ["acc"], [item])
    for greedy in (True, False):
        theirs_says = theirs.process_results(documents[0], [(-3.0, greedy)])
        assert accuracy.item_metrics(ours, item, [scored(-3.0, greedy)]) == {"acc": float(theirs_says["acc"])}
        assert theirs_says["acc"] == greedy


TASKS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "arc_easy": (
        "validation",
        lambda n: {
            "question": f"How many are {n}?",
            # Some items of ARC name their choices by number.
            "choices": {
                "text": [f"{n}", "many", "none", "it depends"],
                "label": list("ABCD" if n % 2 else "1234"),
            },
            "answerKey": "ABCD"[n % 4] if n % 2 else "1234"[n % 4],
        },
    ),
    "hellaswag": (
        "validation",
        lambda n: {
            "activity_label": "Baking",
            "ctx_a": f"A man takes {n} eggs.",
            "ctx_b": "he",
            "endings": ["breaks them. [substeps] Then", "eats", "[title] sells all of them", "waits a while"],
            "label": str(n % 4),
        },
    ),
    "piqa": (
        "validation",
        lambda n: {"goal": f"Boil {n} eggs", "sol1": "Use water.", "sol2": "Use a hat.", "label": n % 2},
    ),
    "winogrande": (
        "validation",
        lambda n: {
            "sentence": f"Ann gave Bo {n} eggs because _ was kind.",
            "option1": "Ann",
            "option2": "Bo",
            "answer": "12"[n % 2],
        },
    ),
    "lambada_openai": ("test", lambda n: {"text": f"He had {n} eggs and ate every single egg"}),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks_of_smoke_are_judged_as_lm_eval_does(name: str, tiny: TinyModel, tmp_path: Path) -> None:
    """From documents, through `make_task`, to the metrics: gold answers and lengths come from lm-eval's prompts."""
    import datasets
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import load_task, make_task

    split, document_of = TASKS[name]
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([document_of(n) for n in range(8)]).save_to_disk(tmp_path / "documents")
    spec = {"folder": str(tmp_path / "documents"), "split": split, "items": 8}
    ours = make_task(name, spec, Encoder(tiny.safetensors, None))
    theirs = load_task(name, spec)
    documents = list(theirs.eval_docs)
    assert len(ours.items) == len(documents) == 8
    source = random.Random(4)
    for item, document in zip(ours.items, documents, strict=True):
        for _ in range(5):
            assert_as_lm_eval(theirs, document, ours, item, source)


def prompts_of(name: str, tiny: TinyModel, folder: Path, fewshot: int) -> list[list[str]]:
    """The text that each choice of each item is scored as."""
    import datasets
    from quantgate.supply.encoder import Encoder
    from quantgate.supply.tasks import make_task

    split, document_of = TASKS[name]
    datasets.disable_progress_bars()
    datasets.Dataset.from_list([document_of(n) for n in range(6)]).save_to_disk(folder / "documents")
    spec = {"folder": str(folder / "documents"), "split": split, "items": 6, "fewshot": fewshot}
    encoder = Encoder(tiny.safetensors, None)
    found = make_task(name, spec, encoder)
    assert found.fewshot == fewshot
    return [
        [encoder.tokenizer.decode([*c.context, *c.continuation]) for c in item.choices]
        for item in found.items
    ]


def test_examples_stand_before_each_item_as_lm_eval_has_them(tiny: TinyModel, tmp_path: Path) -> None:
    """The first ones of the documents, with their right answers, but for the item itself."""

    def example(n: int, answer: str) -> str:
        return f"Question: How many are {n}?\nAnswer: {answer}\n\n"

    prompts = prompts_of("arc_easy", tiny, tmp_path, 2)
    assert (
        prompts[0][1] == example(1, "many") + example(2, "none") + "Question: How many are 0?\nAnswer: many"
    )
    assert prompts[1][0] == example(0, "0") + example(2, "none") + "Question: How many are 1?\nAnswer: 1"
    begin = example(0, "0") + example(1, "many")
    for number in (2, 3, 4, 5):
        texts = [
            f"{begin}Question: How many are {number}?\nAnswer: {a}"
            for a in (number, "many", "none", "it depends")
        ]
        assert prompts[number] == texts


def test_examples_of_a_task_whose_contexts_differ(tiny: TinyModel, tmp_path: Path) -> None:
    first, *_, last = prompts_of("winogrande", tiny, tmp_path, 2)
    one, two = ("Ann gave Bo 1 eggs because Bo was kind.\n\n", "Ann gave Bo 2 eggs because Ann was kind.\n\n")
    assert first == [f"{one}{two}Ann gave Bo 0 eggs because {who} was kind." for who in ("Ann", "Bo")]
    assert last[0].startswith("Ann gave Bo 0 eggs because Ann was kind.\n\nAnn gave Bo 1 eggs because Bo")


@pytest.mark.parametrize("name", TASKS)
def test_prompts_with_examples_are_those_of_lm_evals_first_n(
    name: str, tiny: TinyModel, tmp_path: Path
) -> None:
    """Against a task of lm-eval that was configured by hand, on the documents it says it evaluates."""
    import datasets
    from quantgate.supply.sources import task_file
    from quantgate.supply.tasks import build_task

    prompts = prompts_of(name, tiny, tmp_path, 3)
    split, _ = TASKS[name]
    data = datasets.DatasetDict({split: datasets.load_from_disk(tmp_path / "documents")})
    splits = {f"{s}_split": split if s == split else None for s in ("training", "validation", "test")}
    sampler = {"sampler": "first_n", "split": splits["test_split"]}
    changes = {**splits, "custom_dataset": lambda **_: data, "num_fewshot": 3, "fewshot_config": sampler}
    theirs = build_task(name, task_file(name), lambda config: config | changes)
    theirs.build_all_requests(rank=0, world_size=1)
    expected: list[list[str]] = [[] for _ in prompts]
    for request in theirs.instances:
        expected[request.doc_id].append("".join(request.args))
    assert prompts == expected


def test_more_examples_than_documents_are_refused(tiny: TinyModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"task .piqa.: no prompts with 6 examples: .*exceeds the 5"):
        prompts_of("piqa", tiny, tmp_path, 6)


def test_the_number_of_examples_is_a_condition(here: Here) -> None:
    greedy_task(here)
    plain = here.measure(accuracy, tasks=["last"], items=2)["accuracy/last/acc"].conditions
    file = here.folder / "task-last.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fewshot": 5}))
    with_examples = here.measure(accuracy, tasks=["last"], items=2)["accuracy/last/acc"].conditions
    assert with_examples == {**plain, "fewshot": 5}


# --- the budget -----------------------------------------------------------------------------------


def test_the_smallest_budget_that_is_nearly_the_fastest_is_taken() -> None:
    assert tuning.fastest({256: 100.0, 512: 200.0, 1024: 205.0}) == 512
    assert tuning.fastest({256: 100.0, 512: 200.0, 1024: 210.0}) == 1024
    assert tuning.fastest({256: 100.0, 512: 90.0, 1024: 80.0}) == 256


def test_a_budget_is_found_on_this_machine_once(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    choice_task(here)
    tried: list[int] = []
    score = scoring.score

    def counted(backend: Any, groups: Any, budget: int) -> Any:
        tried.append(budget)
        return score(backend, groups, budget)

    monkeypatch.setattr(tuning, "score", counted)
    options: dict[str, Any] = {"tasks": ["choose"], "items": 4, "budget": "auto"}
    found = here.measure(accuracy, **options)["accuracy/choose/acc"]
    assert found.conditions["budget"] in tuning.CANDIDATES, "the number is part of the key"
    tier = accuracy.Options.model_validate(options)
    assert accuracy.as_measured(tier, {"accuracy/choose/acc": found}).budget == found.conditions["budget"]
    assert accuracy.as_measured(tier, {"memory": found}) == tier
    assert tried == [tuning.CANDIDATES[0], *tuning.CANDIDATES], "the first is the warm-up"
    again = here.measure(accuracy, **options)["accuracy/choose/acc"]
    assert (again.raw, again.conditions) == (found.raw, found.conditions)
    assert len(tried) == 4, "taken from the cache"
    pinned = here.measure(accuracy, **{**options, "budget": 512})["accuracy/choose/acc"]
    assert pinned.samples == found.samples
    monkeypatch.setattr(tuning, "code_hash", lambda *code: "another")
    here.measure(accuracy, **options)
    assert len(tried) == 8, "another way of scoring is tried anew"


def test_a_budget_is_found_on_the_first_items_alone() -> None:
    groups = [[TokenSequence(tuple(range(11)), 1)] for _ in range(9)]
    assert len(tuning.first_tokens(groups, 25)) == 3
    assert len(tuning.first_tokens(groups, 1000)) == 9


# --- decoding -------------------------------------------------------------------------------------


def test_decoding_is_held_against_one_forward_pass(here: Here) -> None:
    model = with_text(here)
    metric = here.measure(decoding, text="t", context=5, tokens=4)["decoding/kl_mean"]
    assert metric.value == pytest.approx(0, abs=1e-6)
    assert len(metric.samples or []) == 4
    assert [call for call in model.calls if call[0] != "reserve"] == [("prefill", 5), *[("decode", 1)] * 4]
    assert model.trees[-1].ids == IDS[:9]
    assert metric.conditions.items() >= {"source": "w1", "text": "t", "context": "5", "decoded": "4"}.items()


def test_decoding_says_how_likely_the_text_is_in_all_contexts(here: Here) -> None:
    """What is wrong on both sides, as rotary positions beyond a window, is no divergence of one from the other."""
    model = with_text(here)
    found = here.measure(decoding, text="t", context=5, tokens=4, further=[{"context": 2, "tokens": 2}])
    metric = found["decoding/perplexity"]
    expected = [-model.logprob(IDS[n], IDS[n + 1]) for n in (5, 6, 7, 8, 2, 3)]
    assert metric.samples == pytest.approx(expected, abs=1e-5)
    assert metric.value == pytest.approx(math.exp(sum(expected) / 6), rel=1e-5)
    assert (metric.link, metric.conditions["context"], metric.conditions["decoded"]) == (
        "exp",
        "5, 2",
        "4, 2",
    )
    assert [call for call in model.calls if call[0] == "prefill"] == [("prefill", 5), ("prefill", 2)]
    assert len(found["decoding/kl_mean"].samples or []) == 6


def test_decoding_sees_a_leak_by_its_slope(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_text(here)
    options = {"text": "t", "context": 2, "tokens": 16}
    assert here.measure(decoding, **options)["decoding/growth"].value < 4000
    kept, decode = [], model.decode

    def leaking(ids: Sequence[int]) -> None:
        kept.append(np.ones(64 * 1024, np.uint8))
        decode(ids)

    monkeypatch.setattr(model, "decode", leaking)
    metric = here.measure(decoding, **options)["decoding/growth"]
    assert 40_000 < metric.value < 90_000
    assert (metric.kind, metric.unit, metric.better) == ("exact", "bytes/token", "lower")


def test_decoding_that_goes_astray_shows_as_divergence(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_text(here)
    shifted = np.roll(model.table, 1, axis=1)
    monkeypatch.setattr(model, "next_logits", lambda: shifted[model.last])
    metric = here.measure(decoding, text="t", context=5, tokens=4)["decoding/kl_mean"]
    expected = []
    for token in IDS[5:9]:
        p, q = (np.exp(row) / np.exp(row).sum() for row in (model.table[token], shifted[token]))
        expected.append(float((p * np.log(p / q)).sum()))
    assert metric.samples == pytest.approx(expected, rel=1e-4)
    assert metric.value > 0.1


def test_decoding_that_overflows_is_an_error(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_text(here), "next_logits", lambda: np.full(VOCABULARY, np.inf, np.float32))
    with pytest.raises(MeasurementError, match="not finite"):
        here.measure(decoding, text="t", context=5, tokens=4)


@pytest.mark.parametrize("backend", ["transformers", "llamacpp"])
def test_decoding_through_the_cache_is_one_forward_pass(backend: str, here: Here, tiny: TinyModel) -> None:
    import importlib

    module = importlib.import_module(f"quantgate.backends.runtime.{backend}")
    checkpoint = tiny.safetensors if backend == "transformers" else tiny.gguf
    with_text(here)
    here.backend = module.load(checkpoint, {"device": "cpu", "dtype": "float32"}, 1)
    metric = here.measure(decoding, text="t", context=12, tokens=8)["decoding/kl_mean"]
    assert abs(metric.value) < 1e-4
    without = here.backend.decode
    here.backend.decode = lambda ids: without([3])
    assert here.measure(decoding, text="t", context=12, tokens=8)["decoding/kl_mean"].value > 0.01


# --- throughput -----------------------------------------------------------------------------------


class Clock:
    """Time passes when work is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "made"),
    [(1.0, 7), (3.0, 4), (4.0, 3), (100.0, 1), (2.0, 5)],
)
def test_rounds_stop_by_number_or_time_but_there_is_one(clock: Clock, seconds: float, made: int) -> None:
    told: list[float] = []
    done: list[Any] = []

    def prepare() -> None:
        done.append("prepare")
        clock.now += 1000

    def work(first: int, tokens: int) -> None:
        done.append(tokens)
        clock.now += seconds if tokens == 8 else 50

    kind = throughput.Kind("case", work, tokens=8, warm_up=1, prepare=prepare)
    rounds = throughput._time(kind, throughput.Options(rounds=7, seconds=10.0), Turns(), told.append)
    assert rounds == [seconds] * made, "neither the warm-up nor the preparation is timed"
    assert done == ["prepare", 1, *["prepare", 8] * made]
    assert told == [(n + 1) / 7 for n in range(made)]


@pytest.mark.parametrize(("seconds", "made"), [(0.0625, 8), (0.125, 4), (0.25, 3), (4.0, 2)])
def test_short_rounds_go_on_until_they_have_taken_long_enough(
    clock: Clock, seconds: float, made: int
) -> None:
    def work(first: int, tokens: int) -> None:
        clock.now += seconds

    kind = throughput.Kind("case", work, tokens=8, warm_up=1)
    told: list[float] = []
    rounds = throughput._time(
        kind, throughput.Options(rounds=3, least=0.5, seconds=5.0), Turns(), told.append
    )
    assert len(rounds) == made
    assert told[-1] <= 1.0


class Timed(Bigrams):
    """Takes a second for a prompt and, for each token decoded, a quarter."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def prefill(self, ids: Sequence[int]) -> None:
        self._clock.now += len(ids) / 64
        super().prefill(ids)

    def decode(self, ids: Sequence[int]) -> None:
        self._clock.now += len(ids) / 4
        super().decode(ids)


OPTIONS: dict[str, Any] = {"prompt": 64, "decode": 8, "first_token": 16, "rounds": 3}


def test_throughput_is_tokens_by_the_median_round(clock: Clock, tmp_path: Path) -> None:
    here = Here(tmp_path, Timed(clock))
    found = here.measure(throughput, **OPTIONS)
    assert {name: m.value for name, m in found.items() if "load" not in name} == {
        "throughput/prefill": 64.0, "throughput/decode": 4.0, "throughput/time_to_first_token": 0.25,
    }  # fmt: skip
    units = {name.partition("/")[2]: (m.unit, m.better, m.samples) for name, m in found.items()}
    assert units["prefill"] == ("tokens/s", "higher", [1.0] * 3)
    assert units["decode"] == ("tokens/s", "higher", [2.0] * 3)
    assert units["time_to_first_token"] == ("s", "lower", [0.25] * 3)
    assert units["load"][:2] == ("s", "lower")
    assert len(units["load"][2] or []) == 1
    warm_ups = {
        f"throughput/{name}": tokens
        for name, tokens in {"prefill": 64, "decode": 1, "time_to_first_token": 16, "load": 0}.items()
    }  # as llama-bench: a whole prompt, one decoded token
    for name, metric in found.items():
        assert metric.kind == "rounds"
        governor = machine()["governor"]  # None where the kernel does not say
        assert metric.conditions == {
            "source": "w1", "threads": 2, **({"governor": governor} if governor else {}), "kernels": "by hand",
            "settings": "by heart", "prompt": 64, "decode": 8, "first_token": 16, "warm-up tokens": warm_ups[name],
        }  # fmt: skip
        assert metric.processes == [len(metric.samples or ())]
        (seen,) = metric.raw["disturbances"]
        assert 0 <= Disturbance.model_validate(seen).others <= 1


def test_one_slow_round_does_not_move_the_value(clock: Clock, tmp_path: Path) -> None:
    class Stumbles(Timed):
        def prefill(self, ids: Sequence[int]) -> None:
            clock.now += 30 if len(self.calls) == 2 else 0
            super().prefill(ids)

    found = Here(tmp_path, Stumbles(clock)).measure(throughput, "prefill", **OPTIONS, seconds=100.0)[
        "throughput/prefill"
    ]
    assert sorted(found.samples or []) == [1.0, 1.0, 31.0]
    assert found.value == 64.0


def test_decoding_starts_from_one_token_of_context(here: Here) -> None:
    here.measure(throughput, "decode", **OPTIONS)
    assert here.backend.calls[0] == ("reserve", 64, 1)
    warm_up = [("prefill", 1), ("decode", 1)]
    assert here.backend.calls[1:] == [*warm_up, *[("prefill", 1), ("decode", 8)] * 3]


class Generating(Timed):
    """Its library takes a second longer than a loop over `decode`."""

    def generate(self, ids: Sequence[int], count: int) -> None:
        self.calls.append(("generate", len(ids), count))
        self._clock.now += 1 + count / 4


def test_the_librarys_own_loop_is_a_timing_of_its_own(clock: Clock, tmp_path: Path) -> None:
    here = Here(tmp_path, Generating(clock))
    assert "throughput/decode/generate" not in here.measure(throughput, **OPTIONS), (
        "where the tier asks for it"
    )
    here.backend.calls.clear()
    found = here.measure(throughput, "decode", **OPTIONS, generate=True, seconds=100.0)
    assert {name: m.value for name, m in found.items()} == {
        "throughput/decode": 4.0, "throughput/decode/generate": 8 / 3,
    }  # fmt: skip
    loops = [call for call in here.backend.calls if call[0] == "generate"]
    assert loops == [("generate", 1, 1), *[("generate", 1, 8)] * 3]
    assert "throughput/decode/generate" not in here.measure(throughput, "prefill", **OPTIONS, generate=True)
    here.backend = Timed(clock)
    assert "throughput/decode/generate" not in here.measure(throughput, **OPTIONS, generate=True), (
        "it has none"
    )


def test_a_prompt_of_one_token_is_enough(here: Here) -> None:
    assert set(here.measure(throughput, prompt=1, decode=1, first_token=1)) == {
        f"throughput/{name}" for name in ("prefill", "decode", "time_to_first_token", "load")
    }


@pytest.mark.parametrize("part", ["prefill", "decode", "time_to_first_token", "load"])
def test_only_the_timings_that_cases_need_are_made(here: Here, part: str) -> None:
    assert list(here.measure(throughput, part, **OPTIONS)) == [f"throughput/{part}"]
    works = {call[0] for call in here.backend.calls} - {"reserve"}
    assert works == {"load": set(), "decode": {"prefill", "decode"}}.get(part, {"prefill"})


def test_prompts_are_the_same_every_time_and_within_the_vocabulary(here: Here) -> None:
    prompt = here.session().prompt(500)
    assert prompt == here.session().prompt(500)
    assert prompt[:20] == here.session().prompt(20)
    assert set(prompt) == set(range(VOCABULARY))


# --- memory and tokenizer -------------------------------------------------------------------------


def test_memory_has_sizes_exactly_and_the_peak_of_each_phase(here: Here) -> None:
    found = here.measure(memory, prompt=32, decode=4)
    exact = {name: m.value for name, m in found.items() if m.kind == "exact"}
    assert exact == {"memory/weight_bytes": 1000, "memory/bits_per_weight": 5.0, "memory/file_bytes": 1234}
    levels = {name.partition("/")[2] for name, m in found.items() if m.kind == "level"}
    assert levels == {
        f"peak_{p}" for p in ("load_anonymous", "prefill_anonymous", "decode_anonymous", "resident")
    }
    conditions = {"source": "w1", "prompt": 32, "decode": 4, "kernels": "by hand"}
    for metric in found.values():
        assert metric.conditions == ({"source": "w1"} if metric.kind == "exact" else conditions)
        assert metric.better == "lower"
        assert metric.value > 0
    calls = [call for call in here.backend.calls if call != "reset"]
    assert calls[:3] == ["weights", ("reserve", 36, 1), ("prefill", 32)]
    assert calls[3] == ("decode", 4)


def test_each_phase_has_its_own_peak(tmp_path: Path) -> None:
    class Hungry(Bigrams):
        def prefill(self, ids: Sequence[int]) -> None:
            hold_memory()
            super().prefill(ids)

    found = Here(tmp_path, Hungry()).measure(memory, prompt=32, decode=4)
    prefill, decode = (found[f"memory/peak_{phase}_anonymous"] for phase in ("prefill", "decode"))
    assert prefill.value - decode.value > 48 * MB
    assert prefill.raw["anonymous"] == prefill.samples == [prefill.value]
    assert found["memory/peak_resident"].samples == max(prefill.raw["resident"], decode.raw["resident"])


def test_the_peaks_of_an_accelerator_are_metrics_where_there_is_one(tmp_path: Path) -> None:
    class Accelerated(Bigrams):
        def device_peak_bytes(self) -> dict[str, int]:
            resets = self.calls.count("reset")
            return {"cuda_allocated": [100, 900, 500][resets], "cuda_reserved": 1000}

    found = Here(tmp_path, Accelerated()).measure(memory, prompt=32, decode=4)
    assert found["memory/peak_cuda_allocated"].value == 900
    assert found["memory/peak_cuda_reserved"].value == 1000
    assert found["memory/peak_load_anonymous"].raw["cuda_allocated"] == [100]


def resident() -> tuple[int, int]:
    """Anonymous and other resident bytes of this process, by psutil."""
    info = psutil.Process().memory_info()
    return info.rss - info.shared, info.shared


def test_an_allocation_counts_as_anonymous_memory(here: Here) -> None:
    session = here.session()
    anonymous, shared = resident()
    with session.memory_phase() as peak:
        hold_memory()
    assert 60 * MB < peak.anonymous - anonymous < 80 * MB
    assert peak.file - shared < 8 * MB
    assert peak.resident - anonymous - shared > 60 * MB
    with session.memory_phase() as later:
        pass
    assert peak.anonymous - later.anonymous > 48 * MB, "a phase does not inherit the peak of an earlier one"
    assert peak.resident - later.resident > 48 * MB


def test_a_mapped_file_counts_as_file_backed_memory(here: Here) -> None:
    """As llama.cpp maps its weights."""
    file = here.folder / "weights"
    with file.open("wb") as handle:
        handle.truncate(64 * MB)
    session = here.session()
    anonymous, shared = resident()
    with session.memory_phase() as peak, file.open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped:
            assert int(np.frombuffer(mapped, dtype=np.uint8)[::4096].sum()) == 0  # touches every page
            time.sleep(0.1)
    assert 60 * MB < peak.file - shared < 80 * MB
    assert peak.anonymous - anonymous < 8 * MB
    assert peak.resident - anonymous - shared > 60 * MB


def test_loading_is_timed_and_its_peak_taken(here: Here) -> None:
    session = here.session()
    anonymous, _ = resident()

    def load(checkpoint: Path, options: dict[str, Any], threads: int) -> Any:
        assert (checkpoint, options, threads) == (here.folder, {}, 2)
        hold_memory()
        return here.backend

    session.load(load)
    assert session.load_peak.anonymous - anonymous > 48 * MB
    assert 0 < session.load_seconds < 60


def test_an_error_in_a_phase_ends_the_sampling(here: Here) -> None:
    import threading

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), here.session().memory_phase():
        _ = 1 / 0
    assert threading.active_count() == before


def test_tokenizer_counts_the_lines_whose_ids_differ(here: Here) -> None:
    lines = [("ab", [97, 98]), ("cd", [99]), ("", []), ("ef", [102, 101]), ("gh", [103, 104])]
    here.write("lines.json", json.dumps(lines))
    found = here.measure(tokenizer, text="t")["tokenizer/mismatches"]
    assert (found.value, found.kind, found.better) == (2, "exact", "lower")
    assert found.raw == {"first mismatches": ["cd", "ef"]}
    assert found.conditions == {"source": "w1", "lines": 5}
    assert here.progress[-1] == ("tokenizer", 5, 5)
