"""Quantization methods of transformers: their options are checked without importing any of them."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import pytest
from pydantic import ValidationError
from quantgate.backends.methods import METHODS, configuration_of, libraries_of
from quantgate.backends.spec import not_installed
from quantgate.backends.transformers import BACKEND, Options
from quantgate.checkpoint.checks import quantization_bits
from quantgate.machine.builds import builds

NEEDS_TORCHAO = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
STORED = {
    "_type": "IntxWeightOnlyConfig",
    "_data": {"weight_dtype": {"_type": "torch.dtype", "_data": "int4"}},
}
"""What torchao writes of a configuration whose name has no bits."""
INT8 = "Int8WeightOnlyConfig"


def scheme(quantization: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"bits": 8, "dtype": "float32", "quantization": quantization, **more}


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"method": "torchoa"}, "no method 'torchoa'. Did you mean 'torchao'?"),
        ({"method": "torchao"}, "quant_type: is missing; add it"),
        ({"method": "quanto", "activation": "int8"}, "unknown key. Did you mean 'activations'?"),
        ({"method": "quanto", "weights": "int4"}, "these options make 4 bits, and bits = 8"),
        ({"method": "gptq"}, "bits: is missing; add it"),
        ({"method": "gptq", "bits": 8, "group_size": "64"}, "group_size: Input should be a valid integer"),
        ({"method": "awq"}, "awq loads quantized checkpoints and makes none: add as_is = true"),
        ({"method": "bitsandbytes", "load_in_8bits": True}, "Did you mean 'load_in_8bit'?"),
        ({"method": "awq", "zero_points": True, "bits": 8}, "awq loads quantized checkpoints"),
        pytest.param(
            {"method": "torchao", "quant_type": "Int8WeightOnly"},
            f"Did you mean '{INT8}'?",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": {"type": INT8, "granularty": 3}},
            "quant_type: granularty: unknown key. Did you mean 'granularity'?",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": "Int4WeightOnlyConfig"}, "make 4 bits", marks=NEEDS_TORCHAO
        ),
    ],
)
def test_options_that_a_method_does_not_take_are_refused(quantization: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Options.model_validate(scheme(quantization))
    assert f"quantization: {message}" in str(refused.value) or message in str(refused.value)


def test_what_a_checkpoint_decides_may_be_left_out() -> None:
    assert Options.model_validate(scheme({"method": "gptq"}, as_is=True)).quantization
    with pytest.raises(ValidationError, match="Did you mean 'zero_point'"):
        Options.model_validate(scheme({"method": "awq", "zero_points": True}, as_is=True))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_options_are_those_of_the_configuration_class(method: str) -> None:
    """Read from its source, they are what Python itself says of the class."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    name = {"bitsandbytes": "bitsandbytes_4bit"}.get(method, method)
    arguments = inspect.signature(AUTO_QUANTIZATION_CONFIG_MAPPING[name].__init__).parameters
    named = {key for key, one in arguments.items() if one.kind is one.POSITIONAL_OR_KEYWORD and key != "self"}
    read = configuration_of(method)
    assert read is not None
    inherited = configuration_of("gptq") if method == "awq" else None
    assert set(read.model_fields) == named | set(inherited.model_fields if inherited else ())


@pytest.mark.parametrize(
    ("method", "options", "bits"),
    [
        ("torchao", {"quant_type": "Int8DynamicActivationInt8WeightConfig"}, 8),
        ("torchao", {"quant_type": "Float8DynamicActivationInt4WeightConfig"}, 4),
        ("torchao", {"quant_type": {"type": "IntxWeightOnlyConfig", "weight_dtype": "torch.int3"}}, 3),
        ("torchao", {"quant_type": {"type": "FqnToConfig"}}, None),
        ("torchao", {"quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_data": {}}}}, 8),
        ("torchao", {"quant_type": {"default": STORED}}, 4),
        ("quanto", {"weights": "float8"}, 8),
        ("hqq", {"nbits": 3}, 3),
        ("gptq", {"bits": 4}, 4),
        ("bitsandbytes", {"load_in_4bit": True}, 4),
        ("compressed-tensors", {}, None),
    ],
)
def test_bits_that_the_options_make(method: str, options: dict[str, Any], bits: int | None) -> None:
    assert quantization_bits({"quant_method": method, **options}) == bits


def test_a_cell_that_cannot_run_here_says_why() -> None:
    assert BACKEND.missing(scheme({"method": "fp8"})) == 'fp8 needs a GPU, and the scheme says device = "cpu"'
    assert not BACKEND.missing(scheme({"method": "fp8"}, device="cuda"))
    assert not BACKEND.missing({"bits": 32, "dtype": "float32"})


def test_a_module_of_a_package_is_looked_for_without_importing_it() -> None:
    assert not not_installed({"quantgate.backends.spec": "quantgate", "json": "json"})
    says = not_installed({"quantgate.no_such_module": "some-package"})
    assert says == "quantgate.no_such_module is not installed: pip install some-package"
    assert not_installed({"no_such_package.module": "other"}).endswith("pip install other")


def test_weights_that_become_floats_have_no_timings_of_their_own() -> None:
    compressed = scheme({"method": "compressed-tensors"}, as_is=True)
    assert "timings" not in BACKEND.can(compressed)
    assert "timings" in BACKEND.can(scheme({"method": "quanto"}))
    assert BACKEND.can({"bits": 32, "dtype": "float32"}) == BACKEND.capabilities


def test_the_libraries_of_a_method_are_told_by_version_and_build() -> None:
    """Of those that only some schemes need, too: an edited one is measured anew."""
    quantization = {"method": "bitsandbytes", "load_in_8bit": True}
    libraries = BACKEND.further_libraries(scheme(quantization))
    assert libraries == libraries_of("bitsandbytes")
    assert libraries.keys() == {"bitsandbytes", "build of bitsandbytes"}
    assert libraries["build of bitsandbytes"] == builds()["build of bitsandbytes"]


@NEEDS_TORCHAO
def test_the_build_of_torchao_is_told() -> None:
    assert libraries_of("torchao").keys() == {"torchao", "build of torchao"}
