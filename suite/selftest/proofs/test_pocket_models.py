"""The pocket models and the ready-made files in git are what their plan and their commands make."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantgate.backends.tree import TokenSequence
from quantgate.files import sha256_of
from quantgate.measure.scoring import score
from quantgate.paths import FIXTURES
from quantgate.proofs.pocket.plan import config_of, load_plan
from quantgate.proofs.pocket.ready import make_ready
from quantgate.supply.checkpoints import quantize_gguf
from quantgate.supply.gguf import gguf_from_safetensors
from quantgate.supply.lines import HARD_LINES

from selftest.tiny import TEXT

MODELS = [FIXTURES / "models" / name for name in load_plan().sizes]
LLAMAS = [folder for folder in MODELS if load_plan().sizes[folder.name].architecture == "llama"]
SHAPE = [
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings",
]  # fmt: skip
PLAIN = {"device": "cpu", "dtype": "float32"}


def parameters(name: str) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    plan = load_plan()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(plan, plan.sizes[name]))
    return sum(p.numel() for p in model.parameters())


def test_sizes_span_thirty_times() -> None:
    counts = [parameters(folder.name) for folder in LLAMAS]
    assert len(counts) >= 4
    assert counts == sorted(counts)
    assert counts[-1] >= 30 * counts[0]
    assert counts[-1] < 20e6


def test_weights_have_16_bits_and_fit_into_git() -> None:
    from safetensors import safe_open

    for folder in MODELS:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    assert sum(f.stat().st_size for folder in MODELS for f in folder.rglob("*")) < 32e6


def test_the_models_are_those_of_the_plan() -> None:
    from transformers import AutoConfig

    plan = load_plan()
    for folder in MODELS:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        planned = config_of(plan, plan.sizes[folder.name])
        assert {k: getattr(config, k) for k in SHAPE} == {k: getattr(planned, k) for k in SHAPE}


def losses(backend: Any) -> np.ndarray[Any, Any]:
    """Of each token of a text that is in no package, nats."""
    ids = backend.tokenize(TEXT)
    windows = [[TokenSequence(tuple(ids[i : i + 256]), 1)] for i in range(0, 512, 256)]
    return -np.concatenate([scored.logprobs for (scored,) in score(backend, windows, 256)])


def test_the_largest_is_better_than_the_smallest() -> None:
    from quantgate.backends.runtime import transformers

    values = [losses(transformers.load(folder, PLAIN, 1)).mean() for folder in (LLAMAS[0], LLAMAS[-1])]
    assert values[1] < values[0]
    assert values[0] < np.log(load_plan().vocabulary) - 1.5, "even the smallest has learned something"


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_llamacpp_and_transformers_agree(folder: Path, converter: str, tmp_path: Path) -> None:
    from quantgate.backends.runtime import llamacpp, transformers

    gguf_from_safetensors(
        tmp_path / "m.gguf", report=lambda *_: None, safetensors=str(folder), converter=converter
    )
    backends = transformers.load(folder, PLAIN, 1), llamacpp.load(tmp_path / "m.gguf", PLAIN, 1)
    for line in [*HARD_LINES, TEXT]:
        ids, others = (backend.tokenize(line) for backend in backends)
        assert ids == others
    first, second = (losses(backend) for backend in backends)
    assert np.abs(first - second).mean() < 1e-3


def test_a_ready_made_file_is_what_its_command_makes(converter: str, tmp_path: Path) -> None:
    """To the byte where it was made; elsewhere activations, and with them some weights, are rounded otherwise."""
    name, ftype, text = "qwen3-pocket", "Q4_K_M", "wikipedia"
    assert load_plan().sizes[name].gguf[ftype] == text
    shutil.copytree(FIXTURES / "models" / name, tmp_path / name)
    lines: list[str] = []
    size = load_plan().sizes[name].model_copy(update={"gguf": {ftype: text}})
    make_ready(name, size, tmp_path, 1, lines.append)
    made, kept = (root / "gguf" / f"{name}-{ftype}.gguf" for root in (tmp_path, FIXTURES / "models"))
    assert lines == [f"{made}: {made.stat().st_size:,} bytes, SHA-256 {sha256_of(made)}"]
    ours, theirs = (np.fromfile(file, np.uint8) for file in (made, kept))
    assert len(ours) == len(theirs)
    assert (ours == theirs).mean() > 0.95
    # Without the importance matrix, one byte in six is another.
    plain = tmp_path / "plain.gguf"
    gguf_from_safetensors(
        tmp_path / "m.gguf", report=lambda *_: None, safetensors=str(tmp_path / name), converter=converter
    )
    quantize_gguf(plain, report=lambda *_: None, gguf=str(tmp_path / "m.gguf"), ftype=ftype, threads=1)
    assert (np.fromfile(plain, np.uint8) == theirs).mean() < 0.9
