"""Simulated k-bit weights: block-wise quantization as in Dettmers and Zettlemoyer, The case for 4-bit precision: k-bit
Inference Scaling Laws (2023), arXiv 2212.09720, whose sections and equations are named below.

The weights of the linear layers are quantized and dequantized when the model is loaded, and held as floats again: what
the model computes is that of a k-bit model, what memory and time it takes is not. Its size is what k bits would take.
All other weights (embeddings, head, norms), constants of blocks, means and outliers are rounded to 16 bits.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bitsandbytes import functional

from quantgate.backends.base import Weights
from quantgate.backends.kbit import EXPONENT_BITS, FOUR_BITS, Options
from quantgate.backends.runtime.linear import is_transposed, linear_weights
from quantgate.backends.runtime.transformers import Transformers
from quantgate.config.toml_input import validate
from quantgate.errors import InputError


def codebook(options: Options, tensor: torch.Tensor | None = None) -> torch.Tensor:
    """The values in [-1, 1], ascending, that a weight divided by its block's constant can take: at most 2**bits.

    int: symmetric, 2**bits - 1 values. float: sign, exponent, fraction, no NaN. dynamic: an exponent of base 10 whose
    length varies, then a linear fraction. These and the 4-bit types are bitsandbytes' own; its FP4 is a float of 2
    exponent bits but for the smallest value, which is a quarter. quantile: of `tensor`, see there.
    """
    bits = options.bits
    if options.data_type == "quantile":
        assert tensor is not None
        return quantile_codebook(tensor, bits)
    exponent = options.exponent_bits or EXPONENT_BITS[bits]
    make = {
        "int": partial(functional.create_linear_map, signed=True, total_bits=bits),
        "float": partial(
            functional.create_fp8_map,
            signed=True,
            exponent_bits=exponent,
            precision_bits=bits - 1 - exponent,
            total_bits=bits,
        ),
        "dynamic": partial(
            functional.create_dynamic_map, signed=True, max_exponent_bits=bits - 1, total_bits=bits
        ),
        **{name: partial(functional.get_4bit_type, name, device="cpu") for name in FOUR_BITS},
    }[str(options.data_type)]
    values = make()
    values[values.abs() < 1e-7] = 0  # what linspace makes of the middle
    return torch.unique(values)  # maps of less than 8 bits are filled up to 256 entries with zeros


def quantile_codebook(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    """Quantile quantization (equation 6): q_i = (Q(i / (2**k + 1)) + Q((i + 1) / (2**k + 1))) / 2, where Q is the
    quantile function of the tensor's weights, and an additional 0; divided by the largest magnitude.

    i runs from 1 to 2**k - 1. The paper's text begins at 0: that would make 2**k + 1 values, one more than k bits tell
    apart, and one of them from Q(0), the smallest weight of all, where its mirror image is left out.
    """
    levels = np.arange(1, 2**bits + 1) / (2**bits + 1)
    edges = np.quantile(tensor.detach().float().cpu().numpy(), levels)
    values = np.sort(np.append((edges[:-1] + edges[1:]) / 2, 0.0))
    return torch.from_numpy((values / max(np.abs(values).max(), 1e-30)).astype(np.float32))


def quantized(tensor: torch.Tensor, options: Options, dimensions: torch.Tensor | None = None) -> torch.Tensor:
    """`tensor` [any shape, float32] after block-wise quantization (equation 1): for each weight
    the entry of the code book nearest to weight / constant, times the constant of its block, which has 16 bits.

    bitsandbytes' `quantize_blockwise` does the same with constants of 32 bits, which the paper's bits do not count.
    dimensions: of the last axis; weights there keep 16 bits, and are part of no constant, mean or code book.
    """
    rest = torch.ones(tensor.shape[-1], dtype=torch.bool, device=tensor.device)
    if dimensions is not None:
        rest[dimensions] = False
    mean = (
        _in_16_bits(tensor[..., rest].mean()) if options.centered else torch.zeros((), device=tensor.device)
    )
    shifted = torch.where(rest, tensor - mean, 0.0)
    code = codebook(options, shifted[..., rest]).to(tensor.device)
    flat = shifted.flatten()
    size = _block_size(options, flat.numel())
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % size)).view(-1, size)
    constants = _in_16_bits(blocks.abs().amax(dim=1, keepdim=True))
    nearest = torch.bucketize(blocks / constants.clamp_min(1e-30), (code[:-1] + code[1:]) / 2)
    rounded = (code[nearest] * constants).flatten()[: flat.numel()].view_as(tensor) + mean
    return torch.where(rest, rounded, _in_16_bits(tensor))


def bits_of(weights: int, outliers: int, options: Options) -> int:
    """Bits that a tensor takes: k a weight and 16 a block (section 2.3), 16 - k more for each of the `outliers` weights
    (section 5.2), 16 for the mean of a centered one. Code books are not counted, as in the paper."""
    blocks = math.ceil(weights / _block_size(options, weights))
    return options.bits * weights + 16 * blocks + (16 - options.bits) * outliers + 16 * options.centered


class KBit(Transformers):
    """A model of transformers with simulated k-bit weights in its linear layers."""

    def __init__(self, checkpoint: Path, options: dict[str, Any], threads: int) -> None:
        scheme = validate(Options, options, Path("kbit scheme"))
        super().__init__(checkpoint, options, threads)
        linear = linear_weights(self._model) if scheme.data_type else {}
        kept = {
            name: outlier_dimensions(self._model, name.removesuffix(".weight"), scheme.outliers)
            for name in linear
        }
        self._bits = 0
        for name, parameter in linear.items():
            turned = is_transposed(self._model, name)
            weight = parameter.data.T if turned else parameter.data  # blocks run along the inputs
            rounded = quantized(weight, scheme, kept[name])
            parameter.data = rounded.T.contiguous() if turned else rounded
            outliers = len(kept[name]) * (weight.numel() // weight.shape[-1])
            self._bits += bits_of(weight.numel(), outliers, scheme)
        done = {id(parameter) for parameter in linear.values()}
        for parameter in self._model.parameters():
            if id(parameter) not in done:
                parameter.data = _in_16_bits(parameter.data)
                self._bits += 16 * parameter.numel()

    def weights(self) -> Weights:
        held = super().weights()
        return replace(held, bytes=-(-self._bits // 8), simulated=True, in_scheme=held.linear)


def outlier_dimensions(model: Any, name: str, share: float) -> torch.Tensor:
    """The input dimensions of a linear layer that proxy quantization keeps in 16 bits (equation 2), ascending: the
    `share` of them that is fed by the hidden units whose weights have the largest standard deviation.

    Raises InputError where the layers before `name` are not known: they are in models built like Llama.
    """
    if not share:
        return torch.zeros(0, dtype=torch.long)
    spread = _spread_of_inputs(model, name)
    count = round(share * len(spread))
    return torch.topk(spread, count).indices.sort().values


def _spread_of_inputs(model: Any, name: str) -> torch.Tensor:
    """Standard deviation of the weights of the hidden unit before each input of a layer [in_features]. Those before an
    attention or feed-forward part are the outputs of the last layer that has written to the residual stream."""
    try:
        _, _, number, _, kind = name.split(".")
        layers = model.model.layers
        layer = layers[int(number)]
        if kind in ("q_proj", "k_proj", "v_proj"):
            if number == "0":
                return model.get_input_embeddings().weight.std(dim=0)
            return layers[int(number) - 1].mlp.down_proj.weight.std(dim=1)
        if kind == "o_proj":  # its inputs are values; heads that share a value share its hidden units
            values = layer.self_attn.v_proj.weight.std(dim=1).view(-1, layer.self_attn.head_dim)
            groups = layer.self_attn.num_key_value_groups
            return values.repeat_interleave(groups, dim=0).flatten()
        before = {
            "gate_proj": layer.self_attn.o_proj,
            "up_proj": layer.self_attn.o_proj,
            "down_proj": layer.mlp.up_proj,
        }
        return before[kind].weight.std(dim=1)
    except (ValueError, AttributeError, KeyError):
        raise InputError(
            f"outliers: which layer feeds {name} is known of models built like Llama only; leave `outliers` out"
        ) from None


def _block_size(options: Options, weights: int) -> int:
    return weights if options.block == "tensor" else options.block


def _in_16_bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().to(tensor.dtype)


load = KBit
