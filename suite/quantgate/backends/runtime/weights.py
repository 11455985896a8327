"""Count the bytes and the number of a loaded model's weights, in any tensors that a quantizer holds them in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

PLAIN = 2
"""Bytes of a float that is not quantized, at least."""


class Count(NamedTuple):
    """bytes: of all tensors. parameters: logical weights, packed ones counted one by one, shared ones once."""

    bytes: int
    parameters: int


def count(model: Any) -> Count:
    """Count the parameters of a model, and all that its quantized layers hold: scales, zero points, code books, in
    buffers too. A buffer outside of them (rotary frequencies) is no weight."""
    quantized = {id(module) for module in quantized_layers(model).values()}
    seen: set[int] = set()
    size = number = 0
    for module in model.modules():
        parameters = dict(module.named_parameters(recurse=False))
        held = [*parameters.values()]
        if id(module) in quantized:
            held += [*module.buffers(recurse=False), *leaves(getattr(module, "meta", None))]
            bias = parameters.get("bias")
            if "weight" not in parameters or id(parameters["weight"]) not in seen:
                number += in_and_out(module) + (bias.numel() if bias is not None else 0)
        for tensor in held:
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            size += sum(leaf.nbytes for leaf in leaves(tensor))
            number += 0 if id(module) in quantized else tensor.numel()
    return Count(size, number)


def quantized_layers(model: Any) -> dict[str, Any]:
    """Return the layers, by name, whose weights are not plain floats: in a tensor class of the quantizer's, in bytes,
    or packed under another name than `weight`."""
    return {
        name: module
        for name, module in model.named_modules()
        if in_and_out(module) and not _is_plain(module._parameters.get("weight"), in_and_out(module))
    }


def in_and_out(module: Any) -> int:
    """Return the number of weights of a linear layer, packed or not; 0: it is not a linear layer."""
    inputs, outputs = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return inputs * outputs if isinstance(inputs, int) and isinstance(outputs, int) else 0


def _is_plain(weight: Any, count: int) -> bool:
    """Return whether a layer's weight is a tensor of `count` plain floats; None: it has none of that name. What is
    packed may call itself floats, too (`bnb_4bit_quant_storage`), but fewer."""
    if not isinstance(weight, torch.Tensor) or is_traceable_wrapper_subclass(weight):
        return False
    return bool(weight.is_floating_point() and weight.element_size() >= PLAIN and weight.numel() >= count)


def numbers(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the plain tensors of a model's parameters that are numbers, with the parameter's name: of one that packs
    bits into floats, its constants alone."""
    packed = {f"{name}.weight" for name in quantized_layers(model)}
    for name, parameter in model.named_parameters():
        for leaf in leaves(parameter):
            if leaf is not parameter or name not in packed:
                yield name, leaf


def leaves(value: Any) -> Iterator[torch.Tensor]:
    """Yield the plain tensors that a value consists of: a tensor, what it packs and its constants, or those of a table
    or a list."""
    if is_traceable_wrapper_subclass(value):
        names, _ = value.__tensor_flatten__()
        yield from leaves([getattr(value, name) for name in names])
    elif isinstance(value, torch.Tensor):
        yield value
        state = getattr(value, "quant_state", None)
        if state is not None:  # bitsandbytes, 4 bits: absmax, code book, nested constants
            yield from leaves(state.as_dict())
        yield from leaves(getattr(value, "SCB", None))  # bitsandbytes, 8 bits
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from leaves(one)
