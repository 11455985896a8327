"""Scores through prefix trees are those of one sequence at a time, by real models."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence, plan
from quantgate.measure.scoring import score

if TYPE_CHECKING:
    from pathlib import Path

    from quantgate.backends.base import Backend

    from selftest.tiny import TinyModel


def questions(vocabulary: int) -> list[list[TokenSequence]]:
    """Items as accuracy has them: shared contexts, a continuation of one token, one that begins another, two
    that are the same, contexts that begin alike; and one long sequence."""
    source = random.Random(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(1, vocabulary) for _ in range(count))

    context, other = tokens(12), tokens(7)
    end = tokens(5)
    return [
        [
            TokenSequence(context + end, 12),
            TokenSequence(context + end[:2], 12),
            TokenSequence(context + tokens(1), 12),
        ],
        [TokenSequence(context[:6] + tokens(4), 6), TokenSequence(context[:6] + end, 6)],
        [TokenSequence(other + end, 7), TokenSequence(other + end, 7), TokenSequence((end[0], *other), 1)],
        [TokenSequence(tokens(40), 1)],
    ]


def questions_with_examples(vocabulary: int) -> list[list[TokenSequence]]:
    """Two subjects, whose items begin with the examples of theirs."""
    source = random.Random(2)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(1, vocabulary) for _ in range(count))

    items = []
    for examples in (tokens(64), tokens(48)):
        for _ in range(6):
            context = examples + tokens(source.randint(1, 9))
            items.append([TokenSequence(context + tokens(n), len(context)) for n in (1, 3, 5)])
    return items


def assert_equal_to_one_at_a_time(
    backend: Backend, items: list[list[TokenSequence]], tolerance: float
) -> None:
    alone = [[score(backend, [[s]], 512)[0][0] for s in group] for group in items]
    spread = np.std([x for group in alone for s in group for x in s.logprobs])
    assert spread > 100 * tolerance, "the model tells tokens apart, or this would prove nothing"
    for budget in (512, 30, 1):
        together = score(backend, items, budget)
        for group, expected in zip(together, alone, strict=True):
            for a, b in zip(group, expected, strict=True):
                np.testing.assert_allclose(a.logprobs, b.logprobs, atol=tolerance)


@pytest.fixture(scope="module")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with random weights, large enough that attention matters."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("random-llama")
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("items_of", [questions, questions_with_examples], ids=["plain", "examples kept"])
def test_a_tree_through_transformers_is_each_sequence_alone(random_llama: Path, items_of: Any) -> None:
    from quantgate.backends.runtime.transformers import load

    backend = load(random_llama, {"device": "cpu", "dtype": "float32"}, 1)
    assert_equal_to_one_at_a_time(backend, items_of(300), 1e-4)


@pytest.mark.parametrize(
    ("items_of", "within"),
    [(questions, 1e-2), (questions_with_examples, 1.5e-2)],
    ids=["plain", "examples kept"],
)
def test_a_tree_through_llamacpp_is_each_sequence_alone(
    tiny: TinyModel, items_of: Any, within: float
) -> None:
    """llama.cpp's cache holds half-precision numbers, in both ways of scoring: up to 6e-3 nats, by processor."""
    from quantgate.backends.runtime.llamacpp import load

    backend = load(tiny.gguf, {"device": "cpu"}, 1)
    assert_equal_to_one_at_a_time(backend, items_of(512), within)


def test_examples_are_kept_in_these_tests() -> None:
    pasts = [tree.past for tree in plan(questions_with_examples(300), 30)]
    assert set(pasts) == {0, 64, 48}
    assert pasts.count(0) == 2


@pytest.mark.parametrize("kind", ["Gemma3TextConfig", "MistralConfig"])
def test_windowed_attention_is_the_models_own(kind: str, tmp_path: Path) -> None:
    """One has layers with and without a window, of the other all have one."""
    import torch
    import transformers
    from quantgate.backends.runtime.transformers import load

    config = getattr(transformers, kind)(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, initializer_range=0.2, sliding_window=20,
        **({"layer_types": ["sliding_attention", "full_attention"]} if kind.startswith("Gemma") else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    backend = load(tmp_path, {"device": "cpu", "dtype": "float32"}, 1)
    assert_equal_to_one_at_a_time(backend, questions_with_examples(300), 1e-4)


def test_transformers_and_llamacpp_agree_on_the_same_weights(tiny: TinyModel) -> None:
    from quantgate.backends.runtime import llamacpp, transformers

    items = questions(512)
    ours = score(transformers.load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1), items, 512)
    theirs = score(llamacpp.load(tiny.gguf, {"device": "cpu"}, 1), items, 512)
    for a, b in zip((s for g in ours for s in g), (s for g in theirs for s in g), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-2)
