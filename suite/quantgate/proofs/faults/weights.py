"""Faults of weights: they are not what the scheme says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantgate.proofs.faults.registry import (
    REPRODUCTION,
    edited,
    fault,
    layers_of,
    loaded,
    loading,
    middle,
    rewrite,
    wrap,
)

BYTES = "memory/weight_bytes"
TEXT = ("perplexity",)
"""What shows other weights best; accuracy would see the same, and takes longer."""
SIZE = ("perplexity", "memory")


@fault("weights of one layer scaled by 1.002", "transformers/fp32", REPRODUCTION, groups=TEXT)
def layer_scaled() -> None:
    @loaded
    def scale(backend: Any) -> None:
        layers = layers_of(backend)
        for weight in layers[len(layers) // 2].parameters():
            if weight.dim() == 2:
                weight.mul_(1.002)


@fault("the fp32 weights were once rounded to bf16", "transformers/fp32", REPRODUCTION, groups=TEXT)
def rounded_to_bf16() -> None:
    import torch

    @loaded
    def round_all(backend: Any) -> None:
        for weight in backend._model.parameters():
            weight.copy_(weight.to(torch.bfloat16))


@fault("tied embeddings stored twice", "transformers/fp32", BYTES, groups=SIZE)
def tied_embeddings_twice() -> None:
    import torch

    from quantgate.backends.runtime import transformers

    @wrap(transformers, "count")
    def count(original: Any, model: Any) -> Any:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
        return original(model)


@fault("one layer at 3 bits where 4 are claimed", "bitsandbytes/nf4", REPRODUCTION, groups=TEXT)
def layer_at_3_bits() -> None:
    @loaded
    def drop_a_bit(backend: Any) -> None:
        layers = layers_of(backend)
        for weight in layers[len(layers) // 2].parameters():
            if hasattr(weight, "quant_state"):
                # Two codes in a byte: every second entry of the code book is left, 0 and 1 among them.
                weight.data.bitwise_or_(0x11)


@fault("block size 256 where 64 is claimed", "bitsandbytes/nf4", REPRODUCTION, groups=SIZE)
def block_size_256() -> None:
    """The scale of 256 weights stands in for those of the four blocks of 64: as many bytes, and the same kernel."""
    import bitsandbytes

    @wrap(bitsandbytes.functional, "quantize_4bit")
    def quantize(original: Any, weight: Any, **keywords: Any) -> Any:
        codes, state = original(weight, **{**keywords, "blocksize": 256})
        state.absmax, state.blocksize = state.absmax.repeat_interleave(4), 64
        return codes, state


@fault("double quantization silently off", "bitsandbytes/nf4-dq", BYTES, groups=SIZE)
def double_quantization_off() -> None:
    loading(lambda path, options, threads: (path, {**options, "bnb_4bit_use_double_quant": False}, threads))


@fault("the code book of fp4 where nf4 is claimed", "bitsandbytes/nf4", "perplexity", groups=TEXT)
def code_book_of_fp4() -> None:
    loading(lambda path, options, threads: (path, {**options, "bnb_4bit_quant_type": "fp4"}, threads))


@fault("the model silently loaded in fp32", "bitsandbytes/int8", BYTES, REPRODUCTION, groups=SIZE)
def loaded_in_fp32() -> None:
    from quantgate.backends.runtime.bitsandbytes import BitsAndBytes

    @wrap(BitsAndBytes, "quantization")
    def quantization(original: Any, backend: Any, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        method, _ = original(backend, options)
        return method, {}


@fault("two neighbouring layers swapped", "llamacpp/Q8_0", "perplexity", groups=TEXT)
def layers_swapped() -> None:
    @edited
    def swap(tensors: Mapping[str, Any]) -> None:
        one = middle(tensors)
        for name, tensor in tensors.items():
            if name.startswith(f"blk.{one}."):
                other = tensors[name.replace(f"blk.{one}.", f"blk.{one - 1}.")].data
                tensor.data[...], other[...] = other.copy(), tensor.data.copy()


@fault("one attention head zeroed", "llamacpp/Q8_0", REPRODUCTION, groups=TEXT)
def head_zeroed() -> None:
    def without_first_head(weights: Any) -> Any:
        weights[:, :64] = 0  # columns of the output projection are what the heads give
        return weights

    edited(lambda tensors: rewrite(tensors[f"blk.{middle(tensors)}.attn_output.weight"], without_first_head))


@fault("outlier columns clipped", "llamacpp/Q8_0", REPRODUCTION, groups=TEXT)
def outlier_columns_clipped() -> None:
    import numpy as np

    def clipped(weights: Any) -> Any:
        """The hundredth of the columns with the largest weights loses all beyond the other columns' largest."""
        limit = np.quantile(np.abs(weights).max(axis=0), 0.99)
        return weights.clip(-limit, limit)

    @edited
    def clip(tensors: Mapping[str, Any]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("ffn_down.weight"):
                rewrite(tensor, clipped)


@fault("block scales kept in 8 bits where 16 are claimed", "llamacpp/Q4_0", REPRODUCTION, groups=TEXT)
def block_scales_in_8_bits() -> None:
    import gguf
    import numpy as np

    @edited
    def truncate(tensors: Mapping[str, Any]) -> None:
        for tensor in tensors.values():
            if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0:
                # A block is an fp16 scale and 16 bytes of codes; 2 bits of the scale's mantissa are left (e5m2).
                blocks = tensor.data.reshape(-1, 18)
                blocks[:, :2] = (blocks[:, :2].copy().view(np.uint16) & 0xFF00).view(np.uint8)


@fault("the gains of one norm lost (all 1)", "llamacpp/Q4_K_M", "perplexity", groups=TEXT)
def norm_gains_lost() -> None:
    @edited
    def reset(tensors: Mapping[str, Any]) -> None:
        tensors[f"blk.{middle(tensors)}.ffn_norm.weight"].data[...] = 1
