"""Calibration sets and importance matrices."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from quantgate.backends.base import ShowsInputs
from quantgate.backends.runtime.transformers import Transformers
from quantgate.errors import AssetError, InputError
from quantgate.supply.calibration import make_mean_squares, make_sequences
from quantgate.supply.checkpoints import quantize_gguf
from quantgate.supply.imatrix import gguf_names, importance_matrix

from selftest.tiny import TEXT, TinyModel


def quiet(phase: str, done: float, total: float) -> None:
    pass


# --- sequences ------------------------------------------------------------------------------------


@pytest.fixture
def sequences(tiny: TinyModel, tmp_path: Path) -> Path:
    """The beginning of the tiny model's text, 4 rows of 16 tokens."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    output = tmp_path / "made" / "sequences.json"
    make_sequences(
        output,
        report=quiet,
        tokenizer=str(tiny.safetensors),
        add_bos=None,
        name="mine",
        text={"path": str(text)},
        tokens=64,
        length=16,
    )
    return output


def test_a_set_is_rows_of_the_text_in_order(tiny: TinyModel, sequences: Path) -> None:
    import transformers

    rows = json.loads(sequences.read_bytes())
    assert [len(row) for row in rows] == [16] * 4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.safetensors)
    assert TEXT.startswith(tokenizer.decode([token for row in rows for token in row]))


def test_a_text_that_is_too_short_is_refused(tiny: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("short")
    with pytest.raises(InputError, match=r"text 'mine' .*has \d+ tokens, the tier needs 64"):
        make_sequences(
            tmp_path / "out.json",
            report=quiet,
            tokenizer=str(tiny.safetensors),
            add_bos=None,
            name="mine",
            text={"path": str(tmp_path / "text.txt")},
            tokens=64,
            length=16,
        )


# --- activations ------------------------------------------------------------------------------------


@pytest.fixture
def squares(tiny: TinyModel, sequences: Path, tmp_path: Path) -> Path:
    output = tmp_path / "squares.safetensors"
    make_mean_squares(
        output, report=quiet, safetensors=str(tiny.safetensors), sequences=str(sequences), threads=1
    )
    return output


def test_mean_squares_are_those_of_the_inputs(tiny: TinyModel, sequences: Path, squares: Path) -> None:
    import torch
    from safetensors.numpy import load_file

    model = Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)._model
    means = load_file(squares)
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    assert sorted(means) == sorted(layers)
    ids = torch.tensor(json.loads(sequences.read_bytes()))
    first = model.model.layers[0]
    inputs = first.input_layernorm(model.model.embed_tokens(ids)).flatten(0, 1)
    expected = inputs.square().mean(dim=0).numpy()
    assert np.allclose(means["model.layers.0.self_attn.q_proj"], expected, rtol=1e-5)
    assert means["model.layers.0.mlp.down_proj"].shape == (first.mlp.down_proj.in_features,)


def test_looking_leaves_the_model_as_it_was(tiny: TinyModel) -> None:
    model = Transformers(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    assert isinstance(model, ShowsInputs)
    seen: list[str] = []
    model.inputs([1, 2, 3], lambda name, inputs: seen.append(f"{name} {len(inputs)}"))
    assert seen
    assert all(line.endswith(" 3") for line in seen)
    assert not any(m._forward_pre_hooks for m in model._model.modules())


def weighted_error(path: Path, tensor: str, true: np.ndarray, weights: np.ndarray) -> float:
    """Of the first layer's feed-forward part, by importance."""
    (stored,) = (t for t in gguf.GGUFReader(path).tensors if t.name == tensor)
    values = gguf.quants.dequantize(stored.data, stored.tensor_type).reshape(true.shape)
    return float((np.square(values - true) @ weights).sum())


def test_an_importance_matrix_makes_the_weighted_error_smaller(
    tiny: TinyModel, squares: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    layer, tensor = "model.layers.0.mlp.down_proj", "blk.0.ffn_down.weight"
    weights = load_file(squares)[layer]
    true = load_file(tiny.safetensors / "model.safetensors")[f"{layer}.weight"]
    errors = {}
    for name, given in {"plain": None, "weighed": str(squares)}.items():
        made = tmp_path / f"{name}.gguf"
        quantize_gguf(made, report=quiet, gguf=str(tiny.gguf), ftype="Q4_0", threads=1, mean_squares=given)
        errors[name] = weighted_error(made, tensor, true, weights)
    assert errors["weighed"] < 0.98 * errors["plain"]


def test_the_matrix_ends_and_names_the_tensors(tiny: TinyModel, squares: Path) -> None:
    from safetensors.numpy import load_file

    matrix = importance_matrix(tiny.gguf, squares)
    *entries, last = matrix.entries
    assert last.name is None
    by_name = {entry.name.decode(): entry for entry in entries}
    there = {t.name: t for t in gguf.GGUFReader(tiny.gguf).tensors}
    assert all(by_name[name].size == there[name].shape[0] for name in by_name)
    entry = by_name["blk.0.attn_q.weight"]
    values = np.ctypeslib.as_array(entry.data, (entry.size,))
    assert np.array_equal(values, load_file(squares)["model.layers.0.self_attn.q_proj"])


def test_layers_of_another_model_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(AssetError, match=r"has no tensor for model.layers.9.mlp.up_proj"):
        gguf_names(tiny.gguf, ["model.layers.9.mlp.up_proj"])
