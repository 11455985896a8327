"""The quantization methods of transformers: what each needs, and which options its configuration takes.

The options are read from the source of the installed packages: the parent process imports no library that computes.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from quantgate.checkpoint.checks import quantization_bits
from quantgate.config.toml_input import allowed
from quantgate.machine.builds import BUILD, build_of


@dataclass(frozen=True)
class Method:
    """needs: by module that must be importable, the arguments of `pip install` that bring it. cuda: it computes on a
    GPU alone. quantizes: it can quantize while a model is loaded; otherwise a checkpoint must be quantized already.
    decompresses: the weights become floats in the first forward pass, so that speed and memory are not those of the
    method."""

    needs: Mapping[str, str] = field(default_factory=dict)
    cuda: bool = False
    quantizes: bool = True
    decompresses: bool = False


METHODS = {
    "aqlm": Method({"aqlm": "'aqlm[cpu,gpu]'"}, quantizes=False),
    "auto-round": Method({"auto_round": "auto-round"}, quantizes=False),
    "awq": Method({"gptqmodel": "gptqmodel"}, quantizes=False),
    "bitnet": Method(quantizes=False),
    "bitsandbytes": Method({"bitsandbytes": "bitsandbytes"}),
    "compressed-tensors": Method(
        {"compressed_tensors": "'quantgate[calibrated]'"}, quantizes=False, decompresses=True
    ),
    "eetq": Method({"kernels": "kernels"}, cuda=True),
    "fbgemm_fp8": Method({"fbgemm_gpu": "fbgemm-gpu"}, cuda=True),
    "fp8": Method(cuda=True),
    "fp_quant": Method({"fp_quant": "fp_quant"}, cuda=True),
    "gptq": Method({"optimum": "optimum", "gptqmodel": "gptqmodel"}),
    "higgs": Method({"flute": "flute-kernel"}, cuda=True),
    "hqq": Method({"hqq": "hqq"}),
    "mxfp4": Method({"kernels": "kernels"}, cuda=True),
    "mxfp8": Method(cuda=True, quantizes=False),
    "nvfp4": Method({"kernels": "kernels"}, cuda=True),
    "quanto": Method({"optimum.quanto": "'quantgate[quantizers]'"}),
    "quark": Method({"quark": "amd-quark"}, quantizes=False),
    "sinq": Method({"sinq": "sinq"}),
    "spqr": Method({"spqr_quant": "'spqr_quant[gpu]'"}, cuda=True, quantizes=False),
    "torchao": Method({"torchao": "'quantgate[quantizers]'"}),
    "vptq": Method({"vptq": "vptq"}, cuda=True, quantizes=False),
}
"""By the name that transformers gives them (`quant_method` of a checkpoint's configuration)."""

_TYPES: dict[str, Any] = {one.__name__: one for one in (int, str, bool, float, list, dict)} | {"tuple": list}
"""Types of options that TOML can give, by the names of their annotations."""


def problem_with(method: str, options: Mapping[str, Any], *, as_is: bool, bits: float | None) -> str:
    """Say what is wrong with a method's options; empty: nothing is. as_is: the checkpoint is quantized already, and its
    configuration must agree with `options`. bits: nominal ones of the scheme; None: as the checkpoint says."""
    if method not in METHODS:
        return f"no method {method!r}. {allowed(method, METHODS)}"
    if not as_is and not METHODS[method].quantizes:
        return f"{method} loads quantized checkpoints and makes none: add as_is = true"
    if problem := _wrong(configuration_of(method), options, required=not as_is):
        return problem
    if method == "torchao" and "quant_type" in options:
        quant_type = options["quant_type"]
        table = quant_type if isinstance(quant_type, Mapping) else {"type": quant_type}
        if problem := _problem_with_torchao(table):
            return f"quant_type: {problem}"
    made = quantization_bits({"quant_method": method, **options})
    if made is not None and bits is not None and made != bits:
        return f"these options make {made} bits, and bits = {bits:g}"
    return ""


@functools.cache
def libraries_of(method: str) -> dict[str, str]:
    """Return the versions and builds of the packages that a method needs, as the environment names them."""
    libraries: dict[str, str] = {}
    for module in METHODS.get(method, Method()).needs:
        name = module.replace(".", "-").replace("_", "-")
        with suppress(metadata.PackageNotFoundError):
            libraries[name] = metadata.version(name)
            if (build := build_of(name, module.partition(".")[0])) is not None:
                libraries[f"{BUILD}{name}"] = build
    return libraries


def _wrong(model: type[BaseModel] | None, options: Mapping[str, Any], *, required: bool) -> str:
    """Say which option is unknown, missing or of a wrong type; empty: none is, or there is no source to check with."""
    if model is None:
        return ""
    try:
        model.model_validate(options)
    except ValidationError as error:
        for one in error.errors():
            key = ".".join(map(str, one["loc"]))
            if one["type"] == "extra_forbidden":
                return f"{key}: unknown key. {allowed(key, model.model_fields)}"
            if one["type"] != "missing":
                return f"{key}: {one['msg']} (got {one['input']!r})"
            if required:
                return f"{key}: is missing; add it"
    return ""


def _problem_with_torchao(table: Mapping[str, Any]) -> str:
    configurations = _torchao_configurations()
    if not configurations:
        return ""
    name = table.get("type")
    if not isinstance(name, str) or name not in configurations:
        return f"no configuration {name!r} in torchao.quantization. {allowed(str(name), configurations)}"
    return _wrong(configurations[name], {k: v for k, v in table.items() if k != "type"}, required=True)


@functools.cache
def configuration_of(method: str) -> type[BaseModel] | None:
    """Return the options of a method's configuration class in the installed transformers, as a model that refuses
    others; None: its source is not where it is expected, and loading checks them."""
    classes = _classes("transformers", "utils/quantization_config.py")
    name = _class_names().get({"bitsandbytes": "bitsandbytes_4bit"}.get(method, method))
    if name not in classes:
        return None
    arguments: dict[str, tuple[Any, Any]] = {}
    while name in classes:
        init = next(
            (n for n in classes[name].body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None
        )
        if init is not None:
            arguments = _arguments(init) | arguments
            if init.args.kwarg is None:
                break
        name = next((base.id for base in classes[name].bases if isinstance(base, ast.Name)), "")
    return _model(method, arguments)


@functools.cache
def _class_names() -> dict[str, str]:
    """Return the name of each method's configuration class."""
    names = {}
    for node in _tree("transformers", "quantizers/auto.py").body:
        match node:
            case ast.Assign([ast.Name("AUTO_QUANTIZATION_CONFIG_MAPPING")], ast.Dict(keys, values)):
                for pair in zip(keys, values, strict=True):
                    match pair:
                        case ast.Constant(str(method)), ast.Name(name):
                            names[method] = name
    return names


@functools.cache
def _torchao_configurations() -> dict[str, type[BaseModel]]:
    """Return the options of torchao's configurations by class."""
    configurations = {}
    for name, node in _classes("torchao", "quantization/quant_api.py").items():
        if any(isinstance(base, ast.Name) and base.id == "AOBaseConfig" for base in node.bases):
            fields = {
                line.target.id: (_type(line.annotation), None if line.value is not None else ...)
                for line in node.body
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
            }
            configurations[name] = _model(name, fields)
    return configurations


def _arguments(function: ast.FunctionDef) -> dict[str, tuple[Any, Any]]:
    """Return an `__init__`'s arguments but self: type, and `...` where a value must be given."""
    names = function.args.args[1:]
    optional = len(names) - len(function.args.defaults)
    return {
        a.arg: (_type(a.annotation), ... if number < optional else None) for number, a in enumerate(names)
    }


def _type(annotation: ast.expr | None) -> Any:
    """Return the type that an annotation names, if it is one that TOML can give; Any otherwise."""
    if isinstance(annotation, ast.BinOp):
        return _type(annotation.left) | None if _type(annotation.left) is not Any else Any
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return _TYPES.get(annotation.id, Any) if isinstance(annotation, ast.Name) else Any


def _model(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    settings = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    model: type[BaseModel] = create_model(name, __config__=settings, **dict(fields))  # type: ignore[call-overload]
    return model


def _classes(package: str, file: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(package, file).body if isinstance(node, ast.ClassDef)}


@functools.cache
def _tree(package: str, file: str) -> ast.Module:
    """Parse a file of an installed package, which is not imported; empty where there is none."""
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / file).is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in strings
                return ast.parse(path.read_bytes())
    return ast.Module([], [])
