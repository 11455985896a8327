"""How much of a model's linear layers a scheme holds in its precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as library
from quantgate.backends.kbit import Options as KBitOptions
from quantgate.backends.runtime import bitsandbytes, kbit, llamacpp, transformers
from quantgate.backends.runtime.gguf import linear_tensors
from quantgate.backends.runtime.linear import linear_weights
from quantgate.supply.checkpoints import quantize_gguf

from selftest.backends.test_loading import HERE, INT4, LLAMA, NF4, gpt2, saved
from selftest.tiny import TinyModel


def falcon() -> Any:
    return library.FalconConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, alibi=False, num_kv_heads=4
    )


def mixtral() -> Any:
    return library.MixtralConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2)


def phimoe() -> Any:
    return library.PhimoeConfig(**LLAMA, num_local_experts=4, num_experts_per_tok=2)


ATTENTION = 2 * (2 * 64 * 64 + 2 * 64 * 32)
EXPERTS = 2 * 4 * 3 * 64 * 128


@pytest.mark.parametrize(
    ("config", "linear", "nf4"),
    [
        (library.LlamaConfig(**LLAMA), ATTENTION + 2 * 3 * 64 * 128, 1.0),
        (gpt2(), 2 * 12 * 64 * 64, 1.0),
        (mixtral(), ATTENTION + EXPERTS, ATTENTION / (ATTENTION + EXPERTS)),
        (phimoe(), ATTENTION + EXPERTS, ATTENTION / (ATTENTION + EXPERTS)),
        (falcon(), None, 0.0),
    ],
    ids=["llama", "gpt2", "mixtral", "phimoe", "falcon"],
)
def test_the_share_of_linear_weights_that_the_scheme_holds(
    tmp_path: Path, config: Any, linear: int | None, nf4: float
) -> None:
    folder = saved(tmp_path / "model", config)
    shares = {}
    for name, backend, options in (
        ("fp32", transformers, HERE),
        ("nf4", bitsandbytes, NF4),
        ("int4", kbit, INT4),
        ("fp16", kbit, {**HERE, "bits": 16}),
    ):
        weights = backend.load(folder, options, 1).weights()
        shares[name] = weights.quantized_share
        if linear is not None:
            assert weights.linear == pytest.approx(linear, rel=0.02)  # routers, where they are layers
    assert (shares["fp32"], shares["int4"], shares["fp16"]) == (1.0, 1.0, 1.0)
    assert shares["nf4"] == pytest.approx(nf4, rel=0.03)


@pytest.mark.parametrize("config", [gpt2(), mixtral(), falcon()], ids=["Conv1D", "experts", "FalconLinear"])
def test_simulated_bits_are_in_every_kind_of_linear_layer(tmp_path: Path, config: Any) -> None:
    folder = saved(tmp_path / "model", config)
    whole, rounded = transformers.load(folder, HERE, 1), kbit.load(folder, INT4, 1)
    for name, weight in linear_weights(whole._model).items():
        other = linear_weights(rounded._model)[name]
        assert other.shape == weight.shape
        assert not torch.equal(other, weight)
        assert torch.corrcoef(torch.stack([other.flatten(), weight.flatten()]))[0, 1] > 0.98
    bits = rounded.weights().bits_per_weight
    assert 4 < bits < 0.6 * 16


def test_blocks_of_a_transposed_weight_run_along_its_inputs(tmp_path: Path) -> None:
    """As in a layer that holds the same weight the other way round."""
    rounded = kbit.load(saved(tmp_path / "model", gpt2()), INT4, 1)
    whole = transformers.load(tmp_path / "model", HERE, 1)
    name = "transformer.h.0.mlp.c_fc.weight"
    plain, quantized = (linear_weights(b._model)[name] for b in (whole, rounded))
    options = KBitOptions(**INT4)
    assert torch.equal(quantized, kbit.quantized(plain.T, options).T)


@pytest.mark.parametrize("ftype", ["F16", "Q8_0", "Q4_K_M", "Q2_K"])
def test_the_share_of_a_gguf_is_that_of_its_types(tiny: TinyModel, tmp_path: Path, ftype: str) -> None:
    file = tmp_path / f"{ftype}.gguf"
    quantize_gguf(file, report=lambda *_: None, gguf=str(tiny.gguf), ftype=ftype, threads=1)
    weights = llamacpp.load(file, {"device": "cpu", "ftype": ftype}, 1).weights()
    plain = transformers.load(tiny.safetensors, HERE, 1).weights()
    assert weights.linear == plain.linear
    assert weights.quantized_share == 1.0


def test_a_gguf_of_another_type_than_its_scheme_holds_nothing_of_it(tiny: TinyModel) -> None:
    assert {tensor.type for tensor in linear_tensors(tiny.gguf)} == {"F32"}
    weights = llamacpp.load(tiny.gguf, {"device": "cpu", "ftype": "Q4_K_M"}, 1).weights()
    assert weights.quantized_share == 0.0
