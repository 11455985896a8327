"""Simulated k-bit weights: code books, blocks, bits and outliers are the paper's; models lose what they should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from bitsandbytes import functional
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.backends.kbit import Options
from quantgate.backends.runtime import bitsandbytes, kbit, transformers
from quantgate.backends.runtime.kbit import (
    bits_of,
    codebook,
    outlier_dimensions,
    quantile_codebook,
    quantized,
)
from quantgate.backends.runtime.linear import linear_layers
from quantgate.backends.tree import TokenSequence
from quantgate.errors import InputError
from quantgate.measure.scoring import score

from selftest.tiny import TEXT, TinyModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from selftest.conftest import Project

BITS = range(3, 9)
PLAIN = {"device": "cpu", "dtype": "float32"}


def options(bits: float = 4, data_type: str | None = "int", **more: Any) -> Options:
    return Options.model_validate({**PLAIN, "bits": bits, "data_type": data_type, **more})


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02


# --- code books -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
def test_int_is_symmetric_and_uniform(bits: int) -> None:
    largest = 2 ** (bits - 1) - 1
    expected = torch.arange(-largest, largest + 1) / largest
    assert torch.allclose(codebook(options(bits)), expected, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_float_is_bitsandbytes_with_the_exponent_of_the_paper(bits: int) -> None:
    exponent = 2 if bits == 3 else 3
    theirs = functional.create_fp8_map(True, exponent, bits - 1 - exponent, bits)
    assert torch.equal(codebook(options(bits, "float")), theirs.unique())


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_4_bit_types_are_bitsandbytes(name: str) -> None:
    theirs = functional.get_4bit_type(name, device="cpu")
    assert torch.equal(codebook(options(4, name)), theirs.unique())


def test_float_of_two_exponent_bits_is_fp4_but_for_the_smallest() -> None:
    ours, fp4 = codebook(options(4, "float", exponent_bits=2)), codebook(options(4, "fp4"))
    smallest = fp4.abs() == fp4[fp4 > 0].min()
    assert torch.allclose(torch.where(smallest, 4 * fp4, fp4), ours, atol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_dynamic_is_bitsandbytes(bits: int) -> None:
    theirs = functional.create_dynamic_map(True, bits - 1, bits)
    assert torch.equal(codebook(options(bits, "dynamic")), theirs.unique())
    if bits == 8:
        assert torch.equal(theirs, functional.create_dynamic_map()), "their default type"


@pytest.mark.parametrize("bits", BITS)
def test_quantile_is_equation_6(bits: int) -> None:
    sample = np.random.default_rng(1).normal(size=4001)
    ordered, n = np.sort(sample), 2**bits + 1

    def quantile(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        return float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))

    values = sorted([(quantile(i / n) + quantile((i + 1) / n)) / 2 for i in range(1, 2**bits)] + [0.0])
    found = quantile_codebook(torch.from_numpy(sample), bits)
    assert len(found) == 2**bits
    assert np.allclose(found.numpy(), np.array(values) / max(map(abs, values)), atol=1e-6)


@pytest.mark.parametrize("data_type", ["int", "float", "dynamic", "quantile"])
@pytest.mark.parametrize("bits", BITS)
def test_a_code_book_fits_its_bits(data_type: str, bits: int) -> None:
    code = codebook(options(bits, data_type), weights(1000))
    assert len(code) <= 2**bits
    assert code.abs().max() == 1
    assert (code == 0).any()
    assert (code.diff() > 0).all()


# --- blocks ---------------------------------------------------------------------------------------


def by_hand(tensor: torch.Tensor, code: torch.Tensor, block: int) -> torch.Tensor:
    """Equation 1, weight by weight."""
    flat = tensor.flatten().tolist()
    out = []
    for begin in range(0, len(flat), block):
        part = flat[begin : begin + block]
        constant = float(np.float16(max(map(abs, part))))
        out += [constant * min(code.tolist(), key=lambda c, w=w: abs(c - w / constant)) for w in part]  # type: ignore[misc]
    return torch.tensor(out).view_as(tensor)


@pytest.mark.parametrize("data_type", ["int", "float", "dynamic", "quantile"])
@pytest.mark.parametrize("block", [64, 100, "tensor"])
def test_weights_become_the_nearest_entries(data_type: str, block: Any) -> None:
    own, tensor = options(4, data_type, block=block), weights(12, 50)
    expected = by_hand(tensor, codebook(own, tensor), 600 if block == "tensor" else block)
    assert torch.allclose(quantized(tensor, own), expected, atol=1e-7)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("block", [64, 256])
def test_it_is_bitsandbytes_where_constants_have_16_bits(bits: int, block: int) -> None:
    tensor = weights(64, 64).half().float()  # the largest weight of a block is its constant
    own = options(bits, "dynamic", block=block)
    code = functional.create_dynamic_map(True, bits - 1, bits)
    theirs = functional.dequantize_blockwise(
        *functional.quantize_blockwise(tensor, code.clone(), blocksize=block)
    )
    differing = (quantized(tensor, own) - theirs).abs() > 1e-6 * tensor.abs().max()
    assert differing.float().mean() < 0.01, "but for weights in the middle between two entries"


def test_what_is_quantized_stays_so() -> None:
    once = quantized(weights(32, 64), options(5, block=64))
    assert torch.equal(quantized(once, options(5, block=64)), once)


def test_centering_subtracts_and_adds_the_mean() -> None:
    tensor = weights(64, 64) + 1.0
    plain, centered = (quantized(tensor, options(4, centered=c)) for c in (False, True))
    errors = [(found - tensor).square().mean() for found in (plain, centered)]
    assert errors[1] < errors[0] / 100
    around_zero = tensor - tensor.mean().half().float()
    assert torch.allclose(
        centered - tensor.mean().half().float(), quantized(around_zero, options(4)), atol=1e-6
    )


def test_a_block_of_zeros_stays_zero() -> None:
    assert not quantized(torch.zeros(4, 64), options(3, "quantile")).any()


# --- bits -----------------------------------------------------------------------------------------


@given(st.integers(3, 8), st.sampled_from([64, 128, 256, 1024]), st.integers(1, 50), st.integers(0, 50))
@settings(deadline=None)
def test_bits_are_those_of_the_formula(bits: int, block: int, rows: int, percent: int) -> None:
    weights = rows * block * 100
    outliers = weights * percent // 100
    expected = weights * (bits + 16 / block + percent / 100 * (16 - bits))
    assert bits_of(weights, outliers, options(bits, block=block)) == pytest.approx(expected, abs=1e-3)
    assert isinstance(bits_of(weights, outliers, options(bits, block=block)), int)


def test_bits_of_odd_ends() -> None:
    assert bits_of(65, 0, options(3, block=64)) == 3 * 65 + 2 * 16, "a part of a block has a constant too"
    assert bits_of(1000, 0, options(3, block="tensor")) == 3 * 1000 + 16
    assert bits_of(64, 0, options(3, centered=True)) == 3 * 64 + 16 + 16


# --- a model --------------------------------------------------------------------------------------


def logprobs(backend: Any) -> np.ndarray[Any, Any]:
    ids = backend.tokenize(TEXT)
    windows = [[TokenSequence(tuple(ids[i : i + 128]), 1)] for i in range(0, 512, 128)]
    return np.concatenate([scored.logprobs for (scored,) in score(backend, windows, 128)])


def loaded(tiny: TinyModel, **more: Any) -> Any:
    return kbit.load(tiny.safetensors, {**PLAIN, **more}, 1)


def test_bits_of_a_model_are_those_of_its_weights(tiny: TinyModel) -> None:
    own = loaded(tiny, bits=3, data_type="int", block=64)
    plain = transformers.load(tiny.safetensors, PLAIN, 1)
    linear = sum(m.weight.numel() for m in linear_layers(plain._model).values())
    size = own.weights()
    assert linear == 2 * (256 * (256 + 128 + 128 + 256) + 3 * 256 * 512)
    assert 8 * size.bytes == linear * (3 + 16 / 64) + 16 * (size.parameters - linear)
    assert size.parameters == plain.weights().parameters
    assert size.simulated


def test_everything_else_has_16_bits(tiny: TinyModel) -> None:
    own = loaded(tiny, bits=16)
    assert own.weights().bits_per_weight == 16
    for parameter in own._model.parameters():
        assert torch.equal(parameter, parameter.half().float())
    plain = logprobs(transformers.load(tiny.safetensors, PLAIN, 1))
    assert 0 < np.abs(logprobs(own) - plain).max() < 0.05


@pytest.mark.parametrize("data_type", ["int", "quantile"])
def test_fewer_bits_lose_more(tiny: TinyModel, data_type: str) -> None:
    losses = [-logprobs(loaded(tiny, bits=bits, data_type=data_type)).mean() for bits in (3, 4, 6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[2] > 0.1


def test_nf4_is_that_of_bitsandbytes(tiny: TinyModel) -> None:
    real = {**PLAIN, "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    theirs = logprobs(bitsandbytes.load(tiny.safetensors, real, 1))
    ours = logprobs(loaded(tiny, bits=4, data_type="nf4", block=64))
    plain = logprobs(transformers.load(tiny.safetensors, PLAIN, 1))
    assert np.abs(ours - theirs).mean() < 0.2 * np.abs(plain - theirs).mean()


# --- outliers -------------------------------------------------------------------------------------

FEEDS: dict[str, Callable[[Any], torch.Tensor]] = {
    "model.layers.0.self_attn.q_proj": lambda m: m.embed_tokens.weight.std(0),
    "model.layers.1.self_attn.v_proj": lambda m: m.layers[0].mlp.down_proj.weight.std(1),
    "model.layers.1.mlp.gate_proj": lambda m: m.layers[1].self_attn.o_proj.weight.std(1),
    "model.layers.1.mlp.up_proj": lambda m: m.layers[1].self_attn.o_proj.weight.std(1),
    "model.layers.0.mlp.down_proj": lambda m: m.layers[0].mlp.up_proj.weight.std(1),
}


@pytest.mark.parametrize("name", FEEDS)
def test_outliers_are_fed_by_the_widest_hidden_units(tiny: TinyModel, name: str) -> None:
    model = transformers.load(tiny.safetensors, PLAIN, 1)._model
    found = outlier_dimensions(model, name, 0.02)
    spread = FEEDS[name](model.model)
    assert len(found) == round(0.02 * len(spread))
    rest = np.delete(np.arange(len(spread)), found.numpy())
    assert spread[found].min() >= spread[rest].max()


def test_values_feed_the_heads_that_share_them(tiny: TinyModel) -> None:
    model = transformers.load(tiny.safetensors, PLAIN, 1)._model
    layer = model.model.layers[0].self_attn
    layer.v_proj.weight.data[64 + 5] *= 100  # of the second of two value heads, which heads 2 and 3 read
    found = outlier_dimensions(model, "model.layers.0.self_attn.o_proj", 2 / 256)
    assert found.tolist() == [2 * 64 + 5, 3 * 64 + 5]


def test_outliers_keep_16_bits_and_leave_their_blocks(tiny: TinyModel) -> None:
    tensor = weights(8, 64)
    tensor[:, 7] = 10.0
    found = quantized(tensor, options(4, block=64), torch.tensor([7]))
    assert (found[:, 7] == 10).all()
    without = torch.cat([tensor[:, :7], torch.zeros(8, 1), tensor[:, 8:]], dim=1)
    rest = torch.arange(64) != 7
    assert torch.equal(found[:, rest], quantized(without, options(4, block=64))[:, rest])
    assert (
        loaded(tiny, bits=4, data_type="int", outliers=0.02).weights().bytes
        > loaded(tiny, bits=4, data_type="int").weights().bytes
    )


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"bits": 4}, "without a data_type, weights have 16 bits"),
        ({"bits": 9, "data_type": "int"}, "the int type has 2 or 3 or 4 or 5 or 6 or 7 or 8 bits"),
        ({"bits": 3, "data_type": "nf4"}, "the nf4 type has 4 bits"),
        ({"bits": 4, "data_type": "int", "block": 0}, "a block has at least one weight"),
        ({"bits": 4, "data_type": "int", "exponent_bits": 2}, "only the float type has exponent_bits"),
        ({"bits": 4, "data_type": "float", "exponent_bits": 4}, "4 bits leave 1 to 3 exponent_bits"),
        (
            {"bits": 4, "data_type": "int", "blocks": 64},
            "kbit scheme: blocks: unknown key. Did you mean 'block'?",
        ),
        ({"bits": 4, "data_type": "int4"}, "kbit scheme: data_type: Input should be 'int', 'float'"),
    ],
)
def test_what_a_scheme_may_not_say(tiny: TinyModel, scheme: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tiny, **scheme)
    assert message in str(caught.value)


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_claims_neither_memory_nor_speed(project: Project) -> None:
    project.matrix["tiers"]["timed"]["cells"] = ["tiny/transformers/fp32", "tiny/kbit/int4-b64"]
    project.matrix["tiers"]["smoke"]["cells"] = []
    result = project.run("--tier", "timed", "-k", "kbit and not (accuracy or divergence or decoding)")
    assert result.status == 0, result.output
    cell = "tiny/kbit/int4-b64"
    assert not [c for c in result.cases if "prefill" in c or "decode" in c]
    found = project.measurement(cell, "timed").metrics
    memory = {n: m for n, m in found.items() if n.startswith("memory/")}
    assert set(memory) == {"memory/weight_bytes", "memory/bits_per_weight", "memory/quantized_share"}
    assert all(m.conditions["simulated"] is True for m in memory.values())
    assert memory["memory/bits_per_weight"].value < 9
    assert f"perplexity[{cell}]" in result.cases
