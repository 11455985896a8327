"""Simulated k-bit weights: code books, blocks, and bits are the paper's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bitsandbytes import functional
from hypothesis import given, settings
from hypothesis import strategies as st
from quantgate.backends.kbit import Options
from quantgate.backends.runtime.kbit import bits_of, codebook, quantile_codebook, quantized

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
    codes = quantile_codebook(torch.from_numpy(sample), bits)
    assert len(codes) == 2**bits
    assert np.allclose(codes.numpy(), np.array(values) / max(map(abs, values)), atol=1e-6)


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
    scheme, tensor = options(4, data_type, block=block), weights(12, 50)
    expected = by_hand(tensor, codebook(scheme, tensor), 600 if block == "tensor" else block)
    assert torch.allclose(quantized(tensor, scheme), expected, atol=1e-7)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("block", [64, 256])
def test_it_is_bitsandbytes_where_constants_have_16_bits(bits: int, block: int) -> None:
    tensor = weights(64, 64).half().float()  # the largest weight of a block is its constant
    scheme = options(bits, "dynamic", block=block)
    code = functional.create_dynamic_map(True, bits - 1, bits)
    theirs = functional.dequantize_blockwise(
        *functional.quantize_blockwise(tensor, code.clone(), blocksize=block)
    )
    differing = (quantized(tensor, scheme) - theirs).abs() > 1e-6 * tensor.abs().max()
    assert differing.float().mean() < 0.01, "but for weights in the middle between two entries"


def test_what_is_quantized_stays_so() -> None:
    once = quantized(weights(32, 64), options(5, block=64))
    assert torch.equal(quantized(once, options(5, block=64)), once)


def test_centering_subtracts_and_adds_the_mean() -> None:
    tensor = weights(64, 64) + 1.0
    plain, centered = (quantized(tensor, options(4, centered=c)) for c in (False, True))
    errors = [(result - tensor).square().mean() for result in (plain, centered)]
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
