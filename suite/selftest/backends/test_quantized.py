"""Models that transformers quantizes, or that are quantized already: sizes as counted by hand, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as library
from quantgate.backends.runtime import bitsandbytes, transformers
from quantgate.errors import InputError, MeasurementError
from safetensors.torch import load_file, save_file

HERE: dict[str, Any] = {"bits": 8, "dtype": "float32", "device": "cpu"}
LAYERS, HIDDEN, INNER, VOCABULARY, VALUES = 2, 64, 128, 48, 32
SHAPES = [
    (HIDDEN, HIDDEN),
    (VALUES, HIDDEN),
    (VALUES, HIDDEN),
    (HIDDEN, HIDDEN),
]  # queries, keys, values, output
SHAPES += [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)]  # gate, up, down
LINEAR = LAYERS * sum(rows * columns for rows, columns in SHAPES)
ROWS = LAYERS * sum(rows for rows, _ in SHAPES)
OTHERS = VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN  # embeddings, which are the head too, and norms
COUNT = LAYERS * len(SHAPES)
IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])


def needs(module: str) -> pytest.MarkDecorator:
    top = module.split(".")[0]
    absent = importlib.util.find_spec(top) is None or importlib.util.find_spec(module) is None
    return pytest.mark.skipif(absent, reason=f"needs {module}")


TORCHAO, QUANTO, COMPRESSED = needs("torchao"), needs("optimum.quanto"), needs("compressed_tensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = library.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    folder = tmp_path_factory.mktemp("whole")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def torchao(quant_type: Any) -> dict[str, Any]:
    return {**HERE, "quantization": {"method": "torchao", "quant_type": quant_type}}


def quanto(weights: str) -> dict[str, Any]:
    return {**HERE, "quantization": {"method": "quanto", "weights": weights}}


GROUPS_OF_32 = {"type": "PerGroup", "group_size": 32}
INTX4 = {"type": "IntxWeightOnlyConfig", "weight_dtype": "torch.int4", "granularity": GROUPS_OF_32}
PER_ROW = LINEAR + 4 * ROWS
"""Bytes of weights in one byte each, with a scale in 4 bytes for each row."""


@pytest.mark.parametrize(
    ("options", "held", "near"),
    [
        # A zero point in one byte for each row, although it is 0.
        pytest.param(torchao("Int8WeightOnlyConfig"), PER_ROW + ROWS, 0.05, marks=TORCHAO),
        pytest.param(torchao("Int8DynamicActivationInt8WeightConfig"), PER_ROW + ROWS, 0.2, marks=TORCHAO),
        pytest.param(torchao("Float8WeightOnlyConfig"), PER_ROW, 0.3, marks=TORCHAO),
        # 4 bits in a byte each; by group of 32 a scale in 4 bytes and a zero point in one.
        pytest.param(torchao(INTX4), LINEAR + LINEAR // 32 * 5, 1.5, marks=TORCHAO),
        # A scale of inputs and one of outputs, which are not used.
        pytest.param(quanto("int8"), PER_ROW + COUNT * 8, 0.05, marks=QUANTO),
        pytest.param(quanto("float8"), PER_ROW + COUNT * 8, 0.3, marks=QUANTO),
    ],
    ids=["torchao int8", "torchao int8 a8", "torchao float8", "torchao int4", "quanto int8", "quanto float8"],
)
def test_sizes_are_those_counted_by_hand(
    whole: Path, options: dict[str, Any], held: int, near: float
) -> None:
    """near: how far logits may be from those of the whole model, in standard deviations of these."""
    quantized, plain = transformers.load(whole, options, 1), transformers.load(whole, HERE, 1)
    weights = quantized.weights()
    assert weights.bytes == held + 4 * OTHERS
    assert (weights.parameters, weights.linear) == (LINEAR + OTHERS, LINEAR)
    assert weights.quantized_share == 1.0
    assert not weights.simulated
    expected, actual = plain._model(IDS).logits, quantized._model(IDS).logits
    assert 0 < (actual - expected).std() < near * expected.std()
    assert quantized.weights() == weights, "also after a forward pass"


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({"load_in_8bit": True}, LINEAR + 4 * ROWS),
        # absmax by block of 64, and 16 values of the code book in each layer
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, LINEAR // 2 + LINEAR // 64 * 4 + COUNT * 64),
    ],
    ids=["int8", "nf4"],
)
def test_bitsandbytes_has_the_same_sizes_in_both_backends(
    whole: Path, options: dict[str, Any], held: int
) -> None:
    weights = bitsandbytes.load(whole, {**HERE, **options}, 1).weights()
    assert weights.bytes == held + 4 * OTHERS
    assert (weights.parameters, weights.quantized_share) == (LINEAR + OTHERS, 1.0)
    method = {"quantization": {"method": "bitsandbytes", **options}}
    assert transformers.load(whole, {**HERE, **method}, 1).weights() == weights


# --- quantized already ----------------------------------------------------------------------------


def compressed(
    whole: Path, folder: Path, bits: int = 4, group: int = 32
) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write a checkpoint in the format of compressed-tensors; return it and the weights that it stands for."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    shutil.copytree(whole, folder)
    stored, meant = {}, {}
    for name, weight in load_file(whole / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = meant[name] = weight
            continue
        groups = weight.view(weight.shape[0], -1, group)
        scale = groups.abs().amax(-1) / 7
        rounded = (groups / scale[..., None]).round().clamp(-8, 7)
        meant[name] = (rounded * scale[..., None]).view_as(weight)
        stem = name.removesuffix("weight")
        stored[f"{stem}weight_packed"] = pack_to_int32(rounded.view_as(weight).to(torch.int8), bits)
        stored[f"{stem}weight_scale"] = scale
        stored[f"{stem}weight_shape"] = torch.tensor(weight.shape)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
    configure(
        folder,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
            "ignore": ["lm_head"],
        },
    )
    return folder, meant


def configure(folder: Path, quantization: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": quantization}))


def as_is(method: str, **settings: Any) -> dict[str, Any]:
    return {**HERE, "as_is": True, "quantization": {"method": method, **settings}}


@COMPRESSED
def test_a_compressed_folder_is_loaded_as_it_is(whole: Path, tmp_path: Path) -> None:
    folder, meant = compressed(whole, tmp_path / "compressed")
    model = transformers.load(folder, as_is("compressed-tensors", format="pack-quantized"), 1)
    weights = model.weights()
    assert weights.bytes == LINEAR // 2 + LINEAR // 32 * 4 + COUNT * 16 + 4 * OTHERS
    assert (weights.parameters, weights.quantized_share) == (LINEAR + OTHERS, 1.0)
    assert weights.simulated
    plain = library.AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    plain.load_state_dict(meant, strict=False)
    assert torch.allclose(model._model(IDS).logits, plain(IDS).logits, atol=1e-5)
    assert model.weights() == weights, "also after the first pass, which makes floats of them"


@TORCHAO
def test_a_torchao_folder_is_loaded_as_it_is(whole: Path, tmp_path: Path) -> None:
    made = transformers.load(whole, torchao("Int8WeightOnlyConfig"), 1)
    made._model.save_pretrained(tmp_path / "torchao")
    options = as_is("torchao", quant_type="Int8WeightOnlyConfig")
    loaded = transformers.load(tmp_path / "torchao", options, 1)
    assert torch.equal(loaded._model(IDS).logits, made._model(IDS).logits)
    assert loaded.weights().bytes == made.weights().bytes
    with pytest.raises(InputError, match=r"quant_type: is .*Int8WeightOnlyConfig.*scheme says 'Float8Weight"):
        transformers.load(tmp_path / "torchao", as_is("torchao", quant_type="Float8WeightOnlyConfig"), 1)


@pytest.mark.parametrize(
    "options",
    [{"load_in_8bit": True}, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}],
    ids=["int8", "nf4"],
)
def test_a_bitsandbytes_folder_is_loaded_as_it_is_in_both_backends(
    whole: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    made = bitsandbytes.load(whole, {**HERE, **options}, 1)
    made._model.save_pretrained(tmp_path / "saved")
    for loaded in (
        bitsandbytes.load(tmp_path / "saved", {**HERE, "as_is": True, **options}, 1),
        transformers.load(tmp_path / "saved", as_is("bitsandbytes", **options), 1),
    ):
        assert torch.equal(loaded._model(IDS).logits, made._model(IDS).logits)
        assert loaded.weights().bytes == made.weights().bytes
        assert loaded.weights().quantized_share == 1.0


@COMPRESSED
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**HERE, "as_is": True}, r'does not say so: add quantization = \{ method = "compressed-tensors" \}'),
        (as_is("gptq"), r"quant_method: is 'compressed-tensors', and the scheme says 'gptq'"),
        (
            as_is("compressed-tensors", format="int-quantized"),
            r"format: is 'pack-quantized', and the scheme says 'int-quantized'",
        ),
        (HERE, r"already quantized \(compressed-tensors, 4 bits"),
        ({**HERE, "quantization": {"method": "quanto", "weights": "int8"}}, "already quantized"),
    ],
    ids=["unsaid", "other method", "other format", "floats", "quantized anew"],
)
def test_a_checkpoint_that_is_not_what_the_scheme_says_is_refused(
    whole: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    folder, _ = compressed(whole, tmp_path / "compressed")
    with pytest.raises(InputError, match=message):
        transformers.load(folder, options, 1)


def test_floats_are_not_a_quantized_checkpoint(whole: Path) -> None:
    with pytest.raises(InputError, match="is missing: the weights are not quantized"):
        transformers.load(whole, as_is("gptq"), 1)
    with pytest.raises(InputError, match="is missing: the weights are not quantized"):
        bitsandbytes.load(whole, {**HERE, "as_is": True, "load_in_8bit": True}, 1)
    assert transformers.load(whole, {**HERE, "as_is": True}, 1).weights().quantized_share == 1.0


@COMPRESSED
def test_a_tensor_that_is_missing_in_a_compressed_folder_is_named(whole: Path, tmp_path: Path) -> None:
    folder, _ = compressed(whole, tmp_path / "compressed")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight_scale"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(MeasurementError, match=r"layers\.1\.mlp\.up_proj\.weight_scale \(missing"):
        transformers.load(folder, as_is("compressed-tensors"), 1)


def test_eight_bit_floats_that_a_cpu_makes_floats_of_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "fp8")
    stored = {}
    for name, weight in load_file(whole / "model.safetensors").items():
        stored[name] = weight
        if name.endswith("proj.weight"):
            stored[name] = weight.to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = torch.ones(weight.shape[0] // 32, weight.shape[1] // 32)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    configure(folder, {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"})
    with pytest.raises(MeasurementError, match="made floats of these weights: it has no kernels of fp8"):
        transformers.load(folder, as_is("fp8"), 1)


@TORCHAO
def test_why_a_method_fails_is_said_in_one_sentence(whole: Path) -> None:
    per_group = {"type": "Int8WeightOnlyConfig", "granularity": {"type": "PerGroup", "group_size": 48}}
    with pytest.raises(MeasurementError, match="quantization by torchao fails: ") as caught:
        transformers.load(whole, torchao(per_group), 1)
    assert "\n" not in str(caught.value)
    with pytest.raises(MeasurementError, match=r"torchao does not accept .*no class Granule"):
        transformers.load(
            whole, torchao({"type": "Int8WeightOnlyConfig", "granularity": {"type": "Granule"}}), 1
        )
