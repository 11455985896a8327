"""Make transformers' quantization configuration from a scheme's options, and check that a checkpoint agrees."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from quantgate.backends.methods import configuration_of
from quantgate.backends.runtime.weights import quantized_layers
from quantgate.checkpoint.checks import describe, quantization_of
from quantgate.errors import InputError, MeasurementError, in_one_line

MEMBER = re.compile(r"([A-Z]\w*)\.([A-Z]\w*)")
"""What stands for a member of an enumeration of torchao: `MappingType.ASYMMETRIC`."""


def configuration(quantization: Mapping[str, Any]) -> Any:
    """Return an instance of the method's configuration class. Raises MeasurementError for what it does not accept."""
    settings = {key: value for key, value in quantization.items() if key != "method"}
    method = quantization["method"]
    if (options := configuration_of(method)) is not None:  # a whole number may stand for one with a point
        settings = options.model_validate(settings).model_dump(exclude_unset=True)
    if method == "bitsandbytes":
        method += "_4bit" if settings.get("load_in_4bit") else "_8bit"
    try:
        if method == "torchao":
            quant_type = settings["quant_type"]
            table = {"type": quant_type} if isinstance(quant_type, str) else quant_type
            settings["quant_type"] = _torchao(table)
        return AUTO_QUANTIZATION_CONFIG_MAPPING[method](**settings)
    except Exception as error:  # whatever a library raises of its options
        raise MeasurementError(
            f"quantization: {method} does not accept {settings}: {in_one_line(error)}"
        ) from error


def _torchao(value: Any) -> Any:
    """Return what a value in TOML stands for: a table with `type` for an object of that class of torchao, such as
    `{ type = "PerGroup", group_size = 32 }`; `torch.int4` for a number format; `MappingType.ASYMMETRIC` for itself."""
    if isinstance(value, Mapping):
        made = {key: _torchao(one) for key, one in value.items() if key != "type"}
        return _of_torchao(value["type"])(**made) if "type" in value else made
    if isinstance(value, list):
        return [_torchao(one) for one in value]
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    if isinstance(value, str) and (member := MEMBER.fullmatch(value)):
        return getattr(_of_torchao(member[1]), member[2])
    return value


def _of_torchao(name: str) -> Any:
    """Return a class of the modules that torchao reads configurations of checkpoints from."""
    from torchao.core.config import ALLOWED_AO_MODULES

    for module in sorted(ALLOWED_AO_MODULES):
        if (cls := getattr(importlib.import_module(module), name, None)) is not None:
            return cls
    raise ValueError(f"torchao has no class {name}")


def check_as_is(checkpoint: Path, quantization: Mapping[str, Any]) -> str:
    """Return the method by which a checkpoint that is loaded as it is is quantized; empty: none. Raises InputError
    where the scheme does not say so, or says something else."""
    stored = quantization_of(checkpoint)
    where = f"{checkpoint}/config.json: quantization_config"
    if not quantization:
        if not stored:
            return ""
        raise InputError(
            f"{where}: these weights are quantized ({describe(stored)}), and the scheme does not say so: add "
            f'quantization = {{ method = "{stored.get("quant_method")}" }} to it'
        )
    method = str(quantization["method"])
    if not stored:
        raise InputError(
            f"{where}: is missing: the weights are not quantized, and the scheme has as_is = true and method = "
            f'"{method}": name a quantized checkpoint, or leave as_is out'
        )
    for key, value in {"quant_method": method, **quantization}.items():
        has = _plain(stored.get(key))
        if key != "method" and not _agrees(value, has):
            raise InputError(
                f"{where}.{key}: is {has!r}, and the scheme says {value!r}: name another checkpoint, or correct the "
                "scheme"
            )
    return method


def check_quantized(model: Any, checkpoint: Path, method: str, *, as_is: bool) -> None:
    """Raise MeasurementError where a model that should be quantized has been loaded as floats."""
    if quantized_layers(model):
        return
    if as_is:
        raise MeasurementError(
            f"{checkpoint}: transformers has made floats of these weights: it has no kernels of {method} for this "
            "device; run the cell on a GPU"
        )
    raise MeasurementError(
        f"{checkpoint}: {method} has quantized no layer of {type(model).__name__}: its layers may be of a type or "
        "shape that these options do not fit"
    )


def _plain(stored: Any) -> Any:
    """Return what torchao stored of an object as a scheme writes it; anything else as it is."""
    if isinstance(stored, dict) and set(stored) == {"default"}:
        return _plain(stored["default"])
    if isinstance(stored, dict) and "_type" in stored:
        data = stored["_data"]
        if isinstance(data, dict):
            return {"type": stored["_type"], **{key: _plain(value) for key, value in data.items()}}
        return f"torch.{data}" if stored["_type"] == "torch.dtype" else f"{stored['_type']}.{data}"
    return stored


def _agrees(stated: Any, stored: Any) -> bool:
    """Return whether all that a scheme states is stored, table by table."""
    if isinstance(stored, dict) and "type" in stored and isinstance(stated, str):
        return bool(stated == stored["type"])
    if isinstance(stated, Mapping) and isinstance(stored, dict):
        return all(key in stored and _agrees(value, stored[key]) for key, value in stated.items())
    return bool(stated == stored)
