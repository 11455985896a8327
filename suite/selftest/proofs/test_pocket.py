"""The pocket models: text without what is held out, and training that may be interrupted."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError
from quantgate.backends.tree import TokenSequence
from quantgate.errors import AssetError, InputError
from quantgate.measure.scoring import score
from quantgate.proofs.pocket.__main__ import main
from quantgate.proofs.pocket.bpe import train_tokenizer
from quantgate.proofs.pocket.corpus import Tokens, disjoint, encode, read_documents
from quantgate.proofs.pocket.plan import Part, Plan, load_plan

from selftest.tiny import TEXT

if TYPE_CHECKING:
    from quantgate.proofs.pocket.train import Trainer

# --- text -----------------------------------------------------------------------------------------


def lines(path: Path, *values: Any) -> Path:
    text = "".join(json.dumps(v) + "\n" for v in values)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def part(*keys: str) -> Part:
    return Part(asset="a", file="f", text=list(keys), licence="x")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_documents_are_found_by_their_keys(tmp_path: Path, name: str) -> None:
    long = "A paragraph of more than forty characters, as most are."
    file = lines(
        tmp_path / name,
        {"doc": {"text": [[long, "Heading"], [f" {long} Again. "]]}},
        {"doc": {"text": "short"}},
    )
    assert list(read_documents(file, part("doc", "text"))) == [f"{long}\n{long} Again."]


def test_a_line_without_text_is_an_error(tmp_path: Path) -> None:
    file = lines(tmp_path / "a.jsonl", {"text": TEXT}, {"other": TEXT})
    with pytest.raises(AssetError, match=r"a.jsonl: line 2 has no text"):
        list(read_documents(file, part("text")))


def test_what_shares_a_run_of_words_with_the_held_out_text_is_left_out() -> None:
    held = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen. The end."
    thirteen = "Before: TWO, three four five six seven eight nine ten eleven twelve thirteen fourteen"
    twelve = "Before: two three four five six seven eight nine ten eleven twelve thirteen, after"
    assert disjoint([thirteen, twelve, "Nothing of it."], held) == [twelve, "Nothing of it."]


# --- training -------------------------------------------------------------------------------------

SMALL = {
    "seed": 1,
    "vocabulary": 300,
    "context": 32,
    "training": {
        "tokens": 32 * 2 * 12,
        "batch": 2,
        "warmup": 0.2,
        "betas": [0.9, 0.98],
        "weight_decay": 0.1,
        "clip": 1.0,
        "bfloat16": False,
    },
    "sizes": {
        "small": {
            "hidden": 32,
            "feed_forward": 64,
            "layers": 1,
            "heads": 2,
            "key_value_heads": 1,
            "rate": 1e-2,
        },
        "other": {
            "architecture": "qwen3",
            "hidden": 32,
            "feed_forward": 32,
            "layers": 1,
            "heads": 2,
            "key_value_heads": 1,
            "head": 32,
            "rate": 1e-2,
            "context": 64,
        },
    },
    "corpus": {},
    "heldout": {"text": "boolq", "tokens": 64},
}


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    tokenizer = train_tokenizer(TEXT.splitlines(), 300)
    ids = encode(tokenizer, TEXT.split("\n\n"))
    return Tokens(tokenizer, ids, ids[:64])


def trainer(tokens: Tokens, file: Path, name: str = "small", **changes: Any) -> Trainer:
    from quantgate.proofs.pocket.train import Trainer

    return Trainer(Plan.model_validate({**SMALL, **changes}), name, tokens, file)


def state(one: Trainer) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in one.model.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(bool((a[name] == b[name]).all()) for name in a)


def test_interrupted_training_ends_where_uninterrupted_does(tokens: Tokens, tmp_path: Path) -> None:
    import torch

    lines: list[str] = []
    whole = trainer(tokens, tmp_path / "whole")
    before = whole.heldout_loss()
    whole.advance(12, lines.append)
    assert whole.heldout_loss() < before - 0.5
    assert lines[-1].startswith("step 12/12: training loss ")
    first = trainer(tokens, tmp_path / "parts")
    with torch.no_grad():  # as a process in which a backend has measured
        first.advance(5, lines.append)
    assert not same(state(first), state(whole))
    second = trainer(tokens, tmp_path / "parts")
    assert second.step == 5
    second.advance(12, lines.append)
    assert same(state(second), state(whole))


def test_another_architecture_takes_as_many_tokens_a_step_in_sequences_of_its_own_length(
    tokens: Tokens, tmp_path: Path
) -> None:
    one = trainer(tokens, tmp_path / "x", "other")
    before = one.heldout_loss()
    assert one._batch().shape == (1, 64)
    one.advance(12, lambda text: None)
    assert one.heldout_loss() < before - 0.5
    config, layer = one.model.config, one.model.model.layers[0].self_attn
    assert (config.model_type, config.max_position_embeddings, config.head_dim) == ("qwen3", 64, 32)
    assert layer.q_proj.weight.shape == (64, 32), "heads are wider than they would be by default"
    assert layer.q_norm.weight.shape == (32,)


def test_a_context_that_does_not_divide_the_tokens_of_a_step_is_refused() -> None:
    sizes: Any = SMALL["sizes"]
    with pytest.raises(ValidationError, match=r"sizes.other.context has to divide the 64 tokens of a step"):
        Plan.model_validate({**SMALL, "sizes": {"other": {**sizes["other"], "context": 48}}})


def test_the_seed_decides(tokens: Tokens, tmp_path: Path) -> None:
    states = [state(trainer(tokens, tmp_path / "x", seed=seed)) for seed in (1, 1, 2)]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_each_pass_takes_every_sequence_once_in_its_own_order(tokens: Tokens, tmp_path: Path) -> None:
    eight = replace(tokens, train=tokens.train[: 8 * 32 + 5])
    one = trainer(eight, tmp_path / "x")
    rows: list[tuple[int, ...]] = []
    for one.step in range(8):  # two passes of four batches
        rows.extend(tuple(row) for row in one._batch())
    assert len(set(rows[:8])) == 8
    assert sorted(rows[:8]) == sorted(rows[8:])
    assert rows[:8] != rows[8:]


def test_the_rate_rises_and_falls() -> None:
    plan = Plan.model_validate(SMALL | {"training": {**SMALL["training"], "tokens": 32 * 2 * 100}})  # type: ignore[dict-item]
    rates = [plan.rate(step, 1.0) for step in range(plan.steps + 1)]
    assert plan.steps == 100
    assert rates.index(max(rates)) == 20
    assert all(a < b for a, b in pairwise(rates[:21]))
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[-1] == pytest.approx(0.1)


def test_what_is_exported_is_what_was_trained_in_16_bits(tokens: Tokens, tmp_path: Path) -> None:
    from quantgate.backends.runtime import transformers

    one = trainer(tokens, tmp_path / "x")
    one.advance(3, lambda text: None)
    one.export(tmp_path / "out")
    one.advance(6, lambda text: None)
    one.export(tmp_path / "out")
    assert sorted(f.suffix for f in (tmp_path / "out").iterdir() if "token" not in f.name) == [
        ".json", ".json", ".safetensors",
    ]  # fmt: skip
    backend = transformers.load(tmp_path / "out", {"device": "cpu", "dtype": "float32"}, 1)
    for name, tensor in backend._model.state_dict().items():
        assert (tensor == one.model.state_dict()[name]).all()
        assert (tensor == tensor.bfloat16().float()).all()
    windows = [[TokenSequence(tuple(map(int, tokens.heldout[i : i + 32])), 1)] for i in (0, 32)]
    loss = -np.mean([scored.logprobs for (scored,) in score(backend, windows, 32)])
    assert loss == pytest.approx(one.heldout_loss(), abs=1e-5)


def test_an_unknown_key_of_the_plan_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pocket.toml"
    file.write_text("seeds = 1\n")
    with pytest.raises(InputError, match=r"seeds: unknown key. Did you mean 'seed'"):
        load_plan(file)


def test_an_unknown_size_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "quantgate.proofs.pocket.__main__.load_tokens", lambda *_: pytest.fail("a text was read")
    )
    assert main(["--size", "pocket-3m", "--size", "pocket-4m"]) == 4
    message = capsys.readouterr().err
    assert "--size pocket-4m: Did you mean 'pocket-" in message
    assert f"Allowed: {', '.join(sorted(load_plan().sizes))}" in message
