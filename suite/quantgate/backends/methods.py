"""The quantization methods of transformers: what each needs, and which options its configuration takes.

The options are read from the source of the installed packages: the parent process imports no library that computes.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from quantgate.checkpoint.checks import quantization_bits
from quantgate.config.sentences import MISSING, WrongValueError, allowed, mistakes, plainly
from quantgate.machine.builds import BUILD, build_of, package_folder


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


def check_options(method: str, options: Mapping[str, Any], *, as_is: bool, bits: float | None) -> None:
    """Raise WrongValueError for what is wrong with a method's options.

    as_is: the checkpoint is quantized already, and its configuration must agree with `options`. bits: nominal ones of
    the scheme; None: as the checkpoint says.
    """
    if method not in METHODS:
        raise WrongValueError(
            "quantization.method", f"cannot be {plainly(method)}. {allowed(method, METHODS)}"
        )
    if not as_is and not METHODS[method].quantizes:
        problem = f"{method} loads quantized checkpoints and makes none: add as_is = true to the scheme"
        raise WrongValueError("quantization.method", problem)
    _check(configuration_of(method), options, "quantization", required=not as_is)
    stated = {"quant_method": method, **options}
    if method == "torchao" and "quant_type" in options:
        quant_type = options["quant_type"]
        table = quant_type if isinstance(quant_type, Mapping) else {"type": quant_type}
        _check_torchao(table)
        stated["quant_type"] = {**_formats(str(table.get("type"))), **table}
    made = quantization_bits(stated)
    if made is not None and bits is not None and made != bits:
        raise WrongValueError(
            "quantization", f"these options make {made} bits, and the scheme says bits = {bits:g}"
        )


@functools.cache
def libraries_of(method: str) -> dict[str, str]:
    """Return the versions and builds of the packages that a method needs, as the environment names them."""
    libraries: dict[str, str] = {}
    for module, requirement in METHODS.get(method, Method()).needs.items():
        # Most distributions have the name of their module; of the others, pip is given it.
        for name in sorted({re.sub("[._]", "-", one) for one in (module, requirement)}):
            with suppress(metadata.PackageNotFoundError):
                libraries[name] = metadata.version(name)
                if (build := build_of(name, module.partition(".")[0])) is not None:
                    libraries[f"{BUILD}{name}"] = build
    return libraries


def _check(model: type[BaseModel] | None, options: Mapping[str, Any], where: str, *, required: bool) -> None:
    """Raise WrongValueError for an option that is unknown, missing or of a wrong type.

    model: None: there is no source to check with. required: whether options without a default must be given.
    """
    if model is None:
        return
    try:
        model.model_validate(options)
    except ValidationError as error:
        for mistake in mistakes(error, model):
            if required or mistake.sentence != MISSING:
                raise WrongValueError(f"{where}.{mistake.key}", mistake.sentence) from None


def _check_torchao(table: Mapping[str, Any]) -> None:
    where, configurations = "quantization.quant_type", _torchao_configurations()
    if not configurations:
        return  # torchao is not installed: the cell is skipped
    if "type" not in table:
        raise WrongValueError(f"{where}.type", f"{MISSING}. {allowed('', configurations)}")
    name = table["type"]
    if not isinstance(name, str) or name not in configurations:
        raise WrongValueError(where, f"cannot be {plainly(name)}. {allowed(str(name), configurations)}")
    options = {key: value for key, value in table.items() if key != "type"}
    _check(configurations[name], options, where, required=True)


def _formats(configuration: str) -> dict[str, str]:
    """Return the number formats (`torch.int8`) that a class of torchao's configurations has by default, by option."""
    node = _classes("torchao", "quantization/quant_api.py").get(configuration)
    formats = {}
    for line in node.body if node else ():
        match line:
            case ast.AnnAssign(ast.Name(key), value=ast.Attribute(ast.Name("torch"), str(name))):
                formats[key] = f"torch.{name}"
    return formats


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
    names, values = function.args.args[1:], function.args.defaults
    defaults: list[ast.expr | None] = [*[None] * (len(names) - len(values)), *values]
    return {
        a.arg: (_type(a.annotation or _type_name(default)), ... if default is None else None)
        for a, default in zip(names, defaults, strict=True)
    }


def _type_name(default: ast.expr | None) -> ast.expr | None:
    """Return the type of an argument that has a default and no annotation."""
    value = default.value if isinstance(default, ast.Constant) else None
    return None if value is None else ast.Name(type(value).__name__)


def _type(annotation: ast.expr | None) -> Any:
    """Return the type that an annotation names, if it is one that TOML can give; Any otherwise."""
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return None
    if isinstance(annotation, ast.BinOp):
        left, right = _type(annotation.left), _type(annotation.right)
        return Any if Any in (left, right) else left | right
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Optional":
        inner = _type(annotation.slice)
        return Any if inner is Any else inner | None
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
    folder = package_folder(package)
    if folder is None or not (path := folder / file).is_file():
        return ast.Module([], [])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings
        return ast.parse(path.read_bytes())
