"""Quantization methods of transformers: their options are checked without importing any of them."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from quantgate.backends.methods import METHODS, configuration_of, libraries_of
from quantgate.backends.spec import not_installed
from quantgate.backends.transformers import BACKEND, Options
from quantgate.checkpoint.checks import quantization_bits
from quantgate.config.toml_input import validate
from quantgate.errors import InputError
from quantgate.machine.builds import builds
from quantgate.paths import IMPORT_ROOT

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
        ({"method": "torchoa"}, ".method: cannot be 'torchoa'. Did you mean 'torchao'? Allowed: aqlm, "),
        ({"method": "torchao"}, ".quant_type: is missing; add it"),
        ({"method": "quanto", "activation": "int8"}, ".activation: unknown key. Did you mean 'activations'?"),
        ({"method": "quanto", "weights": 8}, ".weights: must be text in quotes, not 8"),
        (
            {"method": "quanto", "weights": "int4"},
            ": these options make 4 bits, and the scheme says bits = 8",
        ),
        ({"method": "gptq"}, ".bits: is missing; add it"),
        (
            {"method": "gptq", "bits": 8, "group_size": "64"},
            ".group_size: must be a whole number, not the text",
        ),
        ({"method": "gptq", "bits": 8, "dataset": 4}, ".dataset: must be a list or text in quotes, not 4"),
        (
            {"method": "awq"},
            ".method: awq loads quantized checkpoints and makes none: add as_is = true to the",
        ),
        ({"method": "bitsandbytes", "load_in_8bits": True}, "Did you mean 'load_in_8bit'?"),
        (
            {"method": "bitsandbytes", "load_in_8bit": "yes"},
            ".load_in_8bit: must be true or false, not the text",
        ),
        pytest.param(
            {"method": "torchao", "quant_type": "Int8WeightOnly"},
            f".quant_type: cannot be 'Int8WeightOnly'. Did you mean '{INT8}'?",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": {"type": INT8, "granularty": 3}},
            ".quant_type.granularty: unknown key. Did you mean 'granularity'?",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": {"type": INT8, "group_size": "3"}},
            ".quant_type.group_size: must be a whole number, not the text '3'",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": {"group_size": 3}},
            ".quant_type.type: is missing; add it. Allowed: ",
            marks=NEEDS_TORCHAO,
        ),
        pytest.param(
            {"method": "torchao", "quant_type": "Int4WeightOnlyConfig"}, "make 4 bits", marks=NEEDS_TORCHAO
        ),
    ],
)
def test_options_that_a_method_does_not_take_are_refused(quantization: dict[str, Any], message: str) -> None:
    assert message in refusal(scheme(quantization))


@NEEDS_TORCHAO
@pytest.mark.parametrize(
    "quant_type", ["IntxWeightOnlyConfig", {"type": "Int8DynamicActivationIntxWeightConfig"}]
)
def test_bits_that_the_options_leave_to_the_library_are_its_default(quant_type: Any) -> None:
    four = scheme({"method": "torchao", "quant_type": quant_type}, bits=4)
    assert "these options make 8 bits, and the scheme says bits = 4" in refusal(four)
    formats = {"type": quant_type} if isinstance(quant_type, str) else quant_type
    quantization = {"method": "torchao", "quant_type": {**formats, "weight_dtype": "torch.int4"}}
    assert Options.model_validate(scheme(quantization, bits=4)).quantization


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_misspelt_option_of_any_method_is_refused_with_the_nearest(method: str) -> None:
    """Here the first option whose name is long enough to be recognized."""
    model = configuration_of(method)
    assert model is not None
    option = next(
        (name for name in model.model_fields if len(name) > 5), next(iter(model.model_fields), None)
    )
    if option is None:
        assert ".bitz: unknown key. There are none" in refusal(
            scheme({"method": method, "bitz": 1}, as_is=True)
        )
        return
    misspelt = f"{option[:-1]}_{option[-1]}"
    message = refusal(scheme({"method": method, misspelt.upper(): 1}, as_is=True))
    assert message.startswith(f".{misspelt.upper()}: unknown key. Did you mean '{option}'? Allowed: ")


def refusal(options: dict[str, Any]) -> str:
    """The message without the file and the key of the quantization."""
    with pytest.raises(InputError) as refused:
        validate(Options, options, Path("m.toml"), "schemes.x")
    begin = "m.toml: schemes.x.quantization"
    assert str(refused.value).startswith(begin)
    return str(refused.value).removeprefix(begin)


def test_what_a_checkpoint_decides_may_be_left_out() -> None:
    assert Options.model_validate(scheme({"method": "gptq"}, as_is=True)).quantization


def test_an_option_may_be_of_any_type_that_its_annotation_names() -> None:
    for dataset in ("c4", ["a text"]):
        assert Options.model_validate(scheme({"method": "gptq", "bits": 8, "dataset": dataset})).quantization


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


def test_a_folder_that_has_the_name_of_a_module_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_such_package").mkdir()
    assert not_installed({"no_such_package": "some-package"}).endswith("pip install some-package")
    (tmp_path / "no_such_package" / "module.py").touch()
    assert not not_installed({"no_such_package.module": "some-package"})


def test_weights_that_become_floats_have_no_timings_of_their_own() -> None:
    compressed = scheme({"method": "compressed-tensors"}, as_is=True)
    assert "timings" not in BACKEND.can(compressed)
    assert "timings" in BACKEND.can(scheme({"method": "quanto"}))
    assert BACKEND.can({"bits": 32, "dtype": "float32"}) >= BACKEND.capabilities


def test_the_libraries_of_a_method_are_told_by_version_and_build() -> None:
    """Of those that only some schemes need, too: an edited one is measured anew."""
    quantization = {"method": "bitsandbytes", "load_in_8bit": True}
    libraries = BACKEND.parsed(scheme(quantization)).further_libraries()
    assert libraries == libraries_of("bitsandbytes")
    assert libraries.keys() == {"bitsandbytes", "build of bitsandbytes"}
    assert libraries["build of bitsandbytes"] == builds()["build of bitsandbytes"]


@pytest.mark.parametrize(("method", "name"), [("higgs", "flute-kernel"), ("quark", "amd-quark")])
def test_a_distribution_of_another_name_than_its_module_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    folder = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    libraries_of.cache_clear()
    try:
        assert libraries_of(method) == {name: "1.2"}
    finally:
        libraries_of.cache_clear()


@NEEDS_TORCHAO
def test_the_build_of_torchao_is_told() -> None:
    assert libraries_of("torchao").keys() == {"torchao", "build of torchao"}


def test_the_table_of_methods_goes_with_what_the_code_says_of_them() -> None:
    """Each method is in one row; those that quantize nothing, or need a GPU, are not said to do it here."""
    readme = (IMPORT_ROOT / "quantgate" / "backends" / "README.md").read_text()
    rows = re.findall(r"^\| ([^|]+)" + r" \| ([^|]+)" * 5 + r" \|$", readme, re.MULTILINE)
    listed = {}
    for methods, *columns in rows:
        for name in re.findall(r"[\w-]+", methods.partition(":")[0]):
            if name in METHODS:
                assert name not in listed
                listed[name] = columns
    assert listed.keys() == METHODS.keys()
    for name, (_, quantizes, cpu, _, _) in listed.items():
        method = METHODS[name]
        assert cpu.startswith("no:") == method.cuda, name
        if not method.quantizes:
            assert re.match(rf"no$|by the backend|.*; {name}: no$", quantizes), name
        if method.decompresses:
            assert "no timings" in cpu
