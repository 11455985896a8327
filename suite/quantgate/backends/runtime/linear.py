"""Which weights of a model are those of linear layers, what quantization is about; and what goes into these layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.pytorch_utils import Conv1D

LINEAR = (torch.nn.Linear, Conv1D)


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers by name, in order, without the head."""
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, LINEAR) and m is not head}


@contextmanager
def showing_inputs(model: Any, look: Callable[[str, NDArray[np.float32]], None]) -> Iterator[None]:
    """Call `look` with the name and the inputs, [tokens, features], of each linear layer that runs in the block."""

    def hook(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        # Some models hand their layers the tokens without the axis of the batch.
        return lambda _, inputs: look(name, inputs[0].flatten(0, -2).float().cpu().numpy())

    hooks = [m.register_forward_pre_hook(hook(n)) for n, m in linear_layers(model).items()]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def linear_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """Return the weights of all linear layers but the head, by name, in order.

    They are those of `Linear` and its subclasses, of GPT-2's `Conv1D`, whose weight is transposed, and those of all
    experts of a mixture in one tensor. A weight that is shared counts once.

    Not among them: embeddings (of tokens and positions), the head, convolutions, norms, biases, the few rows of a
    router that is no linear layer of its own.
    """
    head = model.get_output_embeddings()
    weights: dict[str, torch.nn.Parameter] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        if module is head or isinstance(module, (torch.nn.Embedding, torch.nn.modules.conv._ConvNd)):
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen and _is_linear(module, key, parameter):
                seen.add(id(parameter))
                weights[f"{module_name}.{key}"] = parameter
    return weights


def is_transposed(model: Any, name: str) -> bool:
    """Return whether a weight has its inputs before its outputs."""
    return isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D)


def _is_linear(module: Any, key: str, parameter: torch.nn.Parameter) -> bool:
    if isinstance(module, LINEAR):
        return key == "weight"
    if "bias" in key:
        return False
    experts = "expert" in type(module).__name__.lower() and "router" not in type(module).__name__.lower()
    stacked = parameter.ndim == 3 and min(parameter.shape[1:]) > 1
    return stacked or (experts and parameter.ndim == 2)
