"""The handshake between the two ways of scoring, on sixteen architectures: whichever is taken, scores, perplexity and
decoding are those of a plain forward pass of each sequence alone."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from quantgate.backends.base import Rounding
from quantgate.backends.tree import Ids, TokenSequence, TokenTree, build_tree
from quantgate.errors import MeasurementError
from quantgate.measure.scoring import score
from quantgate.measure.way import CUTS, Handshake, check_causal, handshake, probe_of

if TYPE_CHECKING:
    from pathlib import Path

    from quantgate.backends.base import Backend

VOCABULARY = 300
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TWO: dict[str, Any] = {"num_key_value_heads": 2}
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8}
OLD: dict[str, Any] = {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
LONG: dict[str, Any] = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 40, "factor": 4.0,
    "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
}  # fmt: skip

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (configuration, the way that is right, what differs from SMALL)
    "llama": ("Llama", "shared", {**SMALL, **TWO}),
    "dynamic scaling": (
        "Llama",
        "plain",
        {**SMALL, **TWO, "max_position_embeddings": 40, "rope_parameters": DYNAMIC},
    ),
    "longrope": (
        "Phi3",
        "plain",
        {
            **SMALL,
            **TWO,
            "max_position_embeddings": 160,
            "original_max_position_embeddings": 40,
            "rope_parameters": LONG,
        },
    ),
    "windows": ("Mistral", "shared", {**SMALL, **TWO, "sliding_window": 24}),
    "gemma 2": ("Gemma2", "shared", {**SMALL, **TWO, "head_dim": 8, "sliding_window": 24}),
    "sinks": (
        "GptOss",
        "shared",
        {
            **SMALL,
            **TWO,
            "head_dim": 8,
            "sliding_window": 24,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "chunks": (
        "Llama4Text",
        "plain",
        {
            **SMALL,
            **TWO,
            "head_dim": 8,
            "attention_chunk_size": 24,
            "num_local_experts": 2,
            "intermediate_size_mlp": 64,
        },
    ),
    "gpt-2": ("GPT2", "shared", {**OLD, "n_embd": 32, "n_positions": 256}),
    "gpt-j": ("GPTJ", "shared", {**OLD, "n_embd": 32, "n_positions": 256, "rotary_dim": 4}),
    "bloom": ("Bloom", "plain", {**OLD, "hidden_size": 32}),
    "mpt": (
        "Mpt",
        "plain",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 2, "initializer_range": 0.2},
    ),
    "experts": ("Mixtral", "shared", {**SMALL, **TWO, "num_local_experts": 2}),
    "mamba": (
        "Mamba",
        "plain",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "initializer_range": 0.2,
        },
    ),
    "rwkv": ("Rwkv", "plain", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2}),
    "convolutions": ("Lfm2", "plain", {**SMALL, **TWO, "layer_types": ["conv", "full_attention"]}),
    "hybrid": ("Bamba", "plain", {**SMALL, **TWO, **MAMBA, "attn_layer_indices": [1]}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def made(folder: Path, name: str) -> Any:
    """The model, saved below `folder`, with weights that tell tokens and positions apart."""
    import torch
    import transformers

    kind, _, options = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**options)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.std() < 0.1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder / name)
    return model


def questions() -> list[list[TokenSequence]]:
    """Items with and without examples that they share; the longest has 80 tokens."""
    source = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(3, VOCABULARY) for _ in range(count))

    examples = tokens(48)
    contexts = [tokens(20), tokens(9), *(examples + tokens(n) for n in (5, 24, 11))]
    return [[TokenSequence(c + tokens(n), len(c)) for n in (1, 4, 8)] for c in contexts]


def alone(model: Any, ids: tuple[int, ...], start: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log-probabilities of the tokens from `start` on, by a forward pass as anybody would do it."""
    import torch

    for module in model.modules():  # as in a new model: see quantgate.backends.runtime.rotary
        if getattr(module, "rope_type", None) == "dynamic":
            module.register_buffer("inv_freq", module.original_inv_freq, persistent=False)
            module.max_seq_len_cached = module.original_max_seq_len
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    scored = logprobs[start - 1 : -1].gather(1, torch.tensor(ids[start:])[:, None])[:, 0]
    return np.asarray(scored)


@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_a_plain_forward_pass(folder: Path, name: str) -> None:
    from quantgate.backends.runtime.transformers import load

    model = made(folder, name)
    backend = load(folder / name, {"device": "cpu", "dtype": "float32"}, 1)
    items = questions()
    settled = handshake(backend, probe_of(backend, items))
    assert settled.way == KINDS[name][1], settled
    for group, results in zip(items, score(backend, items, 128, way=settled.way), strict=True):
        for item, result in zip(group, results, strict=True):
            np.testing.assert_allclose(
                result.logprobs, alone(model, item.ids, item.start), atol=1e-3 / len(result)
            )
    if name == "dynamic scaling":
        return  # keys in the cache were turned by other frequencies, in the library itself
    text = items[-2][2].ids
    backend.reserve(len(text), 1)
    backend.prefill(text[:40])
    for number, token in enumerate(text[40:-1], 41):
        backend.decode([token])
        logits = backend.next_logits().astype(float)
        logprob = logits[text[number]] - np.logaddexp.reduce(logits)
        assert logprob == pytest.approx(alone(model, text[: number + 1], number)[0], abs=1e-3)


ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": SMALL,
    "XLNet": {**SMALL, "d_model": 32, "d_inner": 64, "n_layer": 2, "n_head": 4},
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_model_that_sees_what_follows_is_refused(folder: Path, kind: str) -> None:
    import torch
    import transformers
    from quantgate.backends.runtime.transformers import load

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**ENCODERS[kind])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder / kind)
    backend = load(folder / kind, {"device": "cpu", "dtype": "float32"}, 1)
    with pytest.raises(MeasurementError, match="the model is not causal"):
        handshake(backend, probe_of(backend, questions()))
    session: Any = SimpleNamespace(backend=backend, causal=False)
    for length in (8, 40):
        with pytest.raises(MeasurementError, match=r"changes by .* nats with the tokens that follow"):
            check_causal(session, range(3, 3 + length))


def test_a_causal_model_is_asked_once(folder: Path) -> None:
    session: Any = SimpleNamespace(backend=of_llama(folder), causal=False)
    check_causal(session, range(3, 40))
    assert session.causal
    session.backend = None
    check_causal(session, range(3, 40))


def of_llama(folder: Path) -> Backend:
    from quantgate.backends.runtime.transformers import load

    if not (folder / "llama").exists():
        made(folder, "llama")
    backend: Backend = load(folder / "llama", {"device": "cpu", "dtype": "float32"}, 1)
    return backend


def agreed(folder: Path) -> Handshake:
    backend = of_llama(folder)
    return handshake(backend, probe_of(backend, questions()))


def test_beginnings_are_scored_only_where_they_decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def agreement(rounding: Rounding, moved: float) -> tuple[Handshake, int]:
        """What is agreed where the shared way moves all logits, and how many passes measured rounding."""
        backend: Any = of_llama(folder)
        passes: list[Ids] = []
        compute = backend.logits

        def logits(tree: TokenTree) -> Any:
            passes.append(tuple(tree.ids))
            return compute(tree) * (1 + moved * (tree.sequences > 1))

        backend.logits = logits
        monkeypatch.setattr(type(backend), "rounding", rounding)
        probe = probe_of(backend, questions())
        result = handshake(backend, probe)
        return result, sum(passes.count(s.ids[:-1]) for s in (probe.whole, *probe.cuts))

    result, computed = agreement(Rounding(1e-3, 10.0), 0.0)
    assert (result.way, computed) == ("shared", 0)
    result, computed = agreement(Rounding(1e-3, 10.0), 0.1)
    assert (result.way, computed) == ("plain", 1 + len(CUTS))
    result, computed = agreement(Rounding(1e-3, 1e-3), 0.1)
    assert (result.way, result.limit, computed) == ("plain", 1e-3, 0)


def test_a_mask_that_shows_a_neighbour_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agreed(folder).way == "shared"
    monkeypatch.setattr(TokenTree, "mask", lambda tree: np.tri(len(tree.ids), tree.length, tree.past, bool))
    result = agreed(folder)
    assert result.way == "plain"
    assert result.difference is not None
    assert result.difference > 0.01
    assert "nats a token, more than rounding" in result.reason


def test_positions_that_are_off_by_one_in_a_branch_are_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantgate.measure import way

    def shifted(*arguments: Any) -> TokenTree:
        tree = build_tree(*arguments)
        branch = next((n for n, parent in enumerate(tree.parents) if parent not in (n - 1, -1)), None)
        if branch is not None:
            tree.positions[branch:] = [position + 1 for position in tree.positions[branch:]]
        return tree

    monkeypatch.setattr(way, "build_tree", shifted)
    assert agreed(folder).way == "plain"


def test_a_cache_that_is_not_cut_back_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantgate.backends.runtime.transformers import Transformers

    keep = Transformers._keep

    def kept(backend: Transformers, tree: TokenTree) -> None:
        if not tree.past:
            keep(backend, tree)

    monkeypatch.setattr(Transformers, "_keep", kept)
    result = agreed(folder)
    assert result.way == "plain"
    assert result.difference is None
    assert result.reason.startswith("the shared way failed (RuntimeError: ")
