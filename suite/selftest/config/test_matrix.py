"""matrix.toml: what the shipped file holds, what a user's own inherits, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.expression import Expression
from quantgate.backends.registry import backends
from quantgate.config.matrix import MATRIX, Matrix, Tier, selecting
from quantgate.errors import InputError
from quantgate.measure.groups import metric_groups
from quantgate.paths import IMPORT_ROOT
from quantgate.run.inputs import load_matrix

OWN = """
[models.mine]
license = "MIT"
gguf = { path = "mine.gguf" }

[tiers.smoke]
time_limit = 60
cells = ["mine/llamacpp/F16", "mine/llamacpp/Q4_K_M"]
[tiers.smoke.perplexity]
text = "boolq"
n_ctx = 256
"""
"""A complete file of a user: models and tiers."""

SMOKE = [
    *(
        "transformers/fp32",
        "bitsandbytes/int8",
        "bitsandbytes/nf4",
        "bitsandbytes/nf4-dq",
        "bitsandbytes/fp4",
    ),
    *(f"llamacpp/{s}" for s in ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")),
]
NIGHTLY = [
    "transformers/bf16",
    *(f"llamacpp/{s}" for s in ("Q4_1", "Q5_0", "Q5_1", "Q5_K_S", "Q4_K_S", "Q3_K_L", "Q3_K_S")),
    *(f"llamacpp/{s}" for s in ("IQ4_NL", "IQ4_XS", "IQ3_S")),
]
"""What issue 2 adds to smoke."""


def loaded(folder: Path, text: str = OWN) -> Matrix:
    file = folder / "matrix.toml"
    file.write_text(text)
    return load_matrix(file)


def given(tier: Tier) -> dict[str, dict[str, Any]]:
    """The options of its groups without defaults."""
    return {group: options.model_dump(exclude_unset=True) for group, options in tier.group_options.items()}


def refusal(folder: Path, text: str) -> str:
    """The message; each of its lines begins with the file's name."""
    with pytest.raises(InputError) as caught:
        loaded(folder, text)
    prefix = f"{folder / 'matrix.toml'}: "
    lines = str(caught.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return "\n".join(line.removeprefix(prefix) for line in lines)


@pytest.fixture(scope="module")
def shipped() -> Matrix:
    return load_matrix()


# --- the file that is shipped ---------------------------------------------------------------------


def test_smoke_has_the_cells_of_the_issue(shipped: Matrix) -> None:
    assert [c.id for c in shipped.cells("smoke")] == [f"smollm2-135m/{name}" for name in SMOKE]


def test_nightly_has_smoke_first_then_what_the_issue_adds(shipped: Matrix) -> None:
    cells = [c.id for c in shipped.cells("nightly")]
    assert cells[: len(SMOKE)] == [c.id for c in shipped.cells("smoke")]
    assert set(cells) >= {f"smollm2-135m/{name}" for name in NIGHTLY}
    assert len(cells) == len(set(cells))


def test_nightly_has_the_second_model_with_its_references(shipped: Matrix) -> None:
    second = [c for c in shipped.cells("nightly") if c.model == "gemma3-270m"]
    assert {c.backend for c in second} == {"transformers", "bitsandbytes", "llamacpp"}
    assert {c.reference for c in second} <= {c.id for c in second}


@pytest.mark.parametrize("tier", ["smoke", "nightly", "full"])
def test_every_cell_has_its_reference_in_its_tier(shipped: Matrix, tier: str) -> None:
    cells = {c.id: c for c in shipped.cells(tier)}
    for cell in cells.values():
        assert cell.reference in cells
        assert cells[cell.reference].scheme_options["device"] == cell.scheme_options["device"]
        assert cells[cell.reference].reference == cell.reference, "a reference is its own"


def test_full_adds_cuda_cells_of_every_backend(shipped: Matrix) -> None:
    cuda = {c.id: c for c in shipped.cells("full") if c.scheme_options["device"] == "cuda"}
    assert {i.partition("/")[2] for i in cuda} == {
        "transformers/cuda-fp16", "transformers/cuda-bf16",
        "transformers/cuda-torchao-int8", "transformers/cuda-torchao-fp8",
        "transformers/cuda-fp8", "transformers/cuda-eetq",
        "bitsandbytes/cuda-int8", "bitsandbytes/cuda-nf4", "bitsandbytes/cuda-fp4",
        "llamacpp/cuda-F16", "llamacpp/cuda-Q8_0", "llamacpp/cuda-Q4_K_M",
    }  # fmt: skip
    for cell in cuda.values():
        if cell.backend == "llamacpp":
            assert cell.scheme_options["n_gpu_layers"] == -1
        else:
            assert cell.scheme_options["dtype"] == ("float16" if cell.scheme == "cuda-fp16" else "bfloat16")
    assert len(shipped.cells("full")) == len(cuda) + len(shipped.cells("nightly"))


def test_no_cell_of_smoke_or_nightly_needs_a_gpu(shipped: Matrix) -> None:
    assert {c.scheme_options["device"] for c in shipped.cells("nightly")} == {"cpu"}


def test_the_schemes_are_what_their_names_say(shipped: Matrix) -> None:
    cells = {c.id: c for c in shipped.cells("nightly") if c.model == "smollm2-135m"}
    for cell in cells.values():
        if cell.backend == "llamacpp":
            weights, _, cache = cell.scheme.partition("-cache-")
            assert cell.scheme_options["ftype"] == weights
            assert f"{cell.bits:g}" in weights
            assert [cell.scheme_options.get(key, "") for key in ("type_k", "type_v")] == [cache, cache]
    double = cells["smollm2-135m/bitsandbytes/nf4-dq"].scheme_options
    assert double["bnb_4bit_use_double_quant"] is True
    assert double["bnb_4bit_quant_type"] == "nf4"
    assert "bnb_4bit_use_double_quant" not in cells["smollm2-135m/bitsandbytes/nf4"].scheme_options
    assert cells["smollm2-135m/bitsandbytes/fp4"].scheme_options["bnb_4bit_quant_type"] == "fp4"
    assert cells["smollm2-135m/bitsandbytes/int8"].scheme_options["load_in_8bit"] is True


@pytest.mark.parametrize("tier", ["smoke", "nightly", "full"])
def test_every_tier_measures_every_metric_of_the_issue(shipped: Matrix, tier: str) -> None:
    groups = {"perplexity", "accuracy", "memory", "throughput", "tokenizer"}
    assert set(shipped.tier(tier).group_options) >= groups
    assert set(metric_groups()) >= groups


def test_nightly_measures_more_than_smoke(shipped: Matrix) -> None:
    smoke, nightly = (
        {group: options.model_dump() for group, options in shipped.tier(t).group_options.items()}
        for t in ("smoke", "nightly")
    )
    assert set(smoke["accuracy"]["tasks"]) == {
        "arc_easy",
        "hellaswag",
        "piqa",
        "winogrande",
        "lambada_openai",
    }
    assert set(smoke["accuracy"]["tasks"]) < set(nightly["accuracy"]["tasks"])
    assert smoke["accuracy"]["items"] < nightly["accuracy"]["items"]
    assert smoke["perplexity"]["windows"] < nightly["perplexity"]["windows"]
    assert smoke["perplexity"]["n_ctx"] == nightly["perplexity"]["n_ctx"], "inherited"


# --- tiers that extend ----------------------------------------------------------------------------

EXTENDED = (
    OWN
    + """
[tiers.nightly]
extends = "smoke"
cells = ["mine/transformers/fp32", "mine/llamacpp/F16"]
[tiers.nightly.perplexity]
windows = 24
[tiers.nightly.memory]
prompt = 64
[tiers.full]
extends = "nightly"
time_limit = 600
"""
)


def test_extending_adds_cells_and_overrides_options_key_by_key(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, EXTENDED)
    assert [c.id for c in matrix.cells("nightly")] == [
        "mine/llamacpp/F16", "mine/llamacpp/Q4_K_M", "mine/transformers/fp32",
    ]  # fmt: skip
    nightly = matrix.tier("nightly")
    assert nightly.time_limit == 60
    assert given(nightly) == {
        "perplexity": {"text": "boolq", "n_ctx": 256, "windows": 24},
        "memory": {"prompt": 64},
    }
    assert given(matrix.tier("smoke")) == {"perplexity": {"text": "boolq", "n_ctx": 256}}


def test_extending_reaches_through_two_tiers(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, EXTENDED)
    assert matrix.cells("full") == matrix.cells("nightly")
    assert matrix.tier("full").time_limit == 600
    assert matrix.tier("full").group_options == matrix.tier("nightly").group_options


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        (
            'extends = "smoek"',
            "tiers.nightly.extends: no tier 'smoek'. Did you mean 'smoke'? Allowed: nightly, other, smoke",
        ),
        ('extends = "nightly"', "tiers.nightly.extends: goes round in a circle: nightly -> nightly"),
        ('extends = "other"', "tiers.nightly.extends: goes round in a circle: nightly -> other -> nightly"),
        (
            'extends = ["smoke"]',
            "tiers.nightly.extends: must be the name of one tier. Allowed: nightly, other, smoke",
        ),
        (
            'extends = "smoke"\ncells = "mine/*/*"',
            'tiers.nightly.cells: must be a list of ids or patterns: ["*/llamacpp/*"]',
        ),
    ],
)
def test_extends_that_lead_nowhere_are_refused(tmp_path: Path, extends: str, message: str) -> None:
    text = f'{OWN}\n[tiers.nightly]\n{extends}\n[tiers.other]\nextends = "nightly"\n'
    assert refusal(tmp_path, text) == message


def test_a_time_limit_that_no_tier_of_the_chain_gives_is_missing(tmp_path: Path) -> None:
    text = EXTENDED.replace("time_limit = 60\n", "").replace("time_limit = 600\n", "")
    expected = [f"tiers.{name}.time_limit: is missing; add it" for name in ("smoke", "nightly", "full")]
    assert refusal(tmp_path, text).splitlines() == expected


# --- a user's own file ----------------------------------------------------------------------------


def test_a_users_file_inherits_backends_and_schemes(tmp_path: Path, shipped: Matrix) -> None:
    matrix = loaded(tmp_path)
    assert matrix.backends == shipped.backends
    assert list(matrix.models) == ["mine"], "but neither models"
    assert list(matrix.tiers) == ["smoke"], "nor tiers"
    cell = matrix.cells("smoke")[1]
    assert (cell.checkpoint, cell.reference, cell.bits) == ("gguf", "mine/llamacpp/F16", 4)
    assert cell.scheme_options == {"bits": 4, "device": "cpu", "ftype": "Q4_K_M"}


def test_a_users_scheme_is_added_or_overrides_key_by_key(tmp_path: Path, shipped: Matrix) -> None:
    more = """
[backends.llamacpp.schemes.Q4_K_M]
device = "cuda"
n_gpu_layers = 12
[backends.llamacpp.schemes.TQ1_0]
bits = 2
ftype = "TQ1_0"
"""
    schemes = loaded(tmp_path, OWN + more).backends["llamacpp"].schemes
    assert schemes["Q4_K_M"].scheme_options == {
        "bits": 4,
        "device": "cuda",
        "ftype": "Q4_K_M",
        "n_gpu_layers": 12,
    }
    assert schemes["Q4_K_M"].bits == 4
    assert schemes["TQ1_0"].scheme_options["ftype"] == "TQ1_0"
    assert set(schemes) == {*shipped.backends["llamacpp"].schemes, "TQ1_0"}


def test_a_users_grid_stands_beside_those_of_the_shipped_file(tmp_path: Path, shipped: Matrix) -> None:
    grid = '[[backends.kbit.grid]]\nname = "own{bits}"\ndtype = "float32"\ndata_type = "int"\nbits = [3, 4]\n'
    kbit = loaded(tmp_path, OWN + grid).backends["kbit"].schemes
    assert kbit.keys() == {*shipped.backends["kbit"].schemes, "own3", "own4"}
    assert kbit["int4-b64"] == shipped.backends["kbit"].schemes["int4-b64"]


def test_a_users_scheme_overrides_one_that_a_grid_of_the_shipped_file_makes(
    tmp_path: Path, shipped: Matrix
) -> None:
    scheme = "[backends.kbit.schemes.int4-b64]\nblock = 32\n"
    own, theirs = (m.backends["kbit"].schemes for m in (loaded(tmp_path, OWN + scheme), shipped))
    assert own.keys() == theirs.keys()
    assert own["int4-b64"].model_dump() == {**theirs["int4-b64"].model_dump(), "block": 32}


def test_the_shipped_file_named_outright_is_the_shipped_file(shipped: Matrix) -> None:
    assert load_matrix(MATRIX) == shipped


def test_a_pattern_stands_for_its_cells_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = OWN.replace('"mine/llamacpp/F16"', '"*/bitsandbytes/nf4*", "*/llamacpp/Q5_?"')
    assert [c.id for c in loaded(tmp_path, text).cells("smoke")] == [
        "mine/bitsandbytes/nf4", "mine/bitsandbytes/nf4-dq",
        "mine/llamacpp/Q5_1", "mine/llamacpp/Q5_0", "mine/llamacpp/Q4_K_M",
    ]  # fmt: skip


def test_a_cell_named_twice_is_measured_once(tmp_path: Path) -> None:
    text = OWN.replace('"mine/llamacpp/F16"', '"mine/llamacpp/F16", "mine/*/F16"')
    assert [c.scheme for c in loaded(tmp_path, text).cells("smoke")] == ["F16", "Q4_K_M"]


# --- cells ----------------------------------------------------------------------------------------


def test_the_marks_of_a_cell_are_what_a_person_selects_by(shipped: Matrix) -> None:
    cell = shipped.cell("smollm2-135m/llamacpp/Q4_K_M")
    assert cell.marks == ["smollm2-135m", "llamacpp", "Q4_K_M", "bits4"]
    assert cell.id == "smollm2-135m/llamacpp/Q4_K_M"


@pytest.mark.parametrize("tier", ["smoke", "nightly", "papers", "papers-calibration"])
def test_a_cell_is_selected_without_those_whose_names_contain_its_own(shipped: Matrix, tier: str) -> None:
    cells = shipped.cells(tier)
    for cell in cells:
        chosen = Expression.compile(selecting(cell.id))
        known = {c.id: set(c.marks) for c in cells}
        assert [
            one
            for one, marks in known.items()
            if chosen.evaluate(lambda name, /, marks=marks, **_: name in marks)
        ] == [cell.id]


def test_half_bits_keep_their_half(tmp_path: Path) -> None:
    text = OWN + '[backends.llamacpp.schemes.TQ1_0]\nbits = 1.5\nftype = "TQ1_0"\n'
    assert "bits1.5" in loaded(tmp_path, text).cell("mine/llamacpp/TQ1_0").marks


def test_the_reference_is_the_backends_or_the_schemes_own(shipped: Matrix) -> None:
    reference = {
        c.id.partition("/")[2]: c.reference for c in shipped.cells("full") if c.model == "smollm2-135m"
    }
    assert reference["transformers/fp32"] == "smollm2-135m/transformers/fp32"
    assert reference["bitsandbytes/nf4"] == "smollm2-135m/transformers/fp32"
    assert reference["llamacpp/Q2_K"] == "smollm2-135m/llamacpp/F16"
    assert reference["bitsandbytes/cuda-nf4"] == "smollm2-135m/transformers/cuda-bf16"
    assert reference["llamacpp/cuda-Q8_0"] == "smollm2-135m/llamacpp/cuda-F16"


def test_keys_that_only_the_backend_knows_reach_it(tmp_path: Path) -> None:
    text = (
        OWN
        + '[backends.transformers.schemes]\nbf16 = { reference = "transformers/bf16" }\n'
        + '[backends.bitsandbytes.schemes.mixed]\nbits = 8\ndtype = "float32"\nload_in_8bit = true\n'
        + 'reference = "transformers/bf16"\nllm_int8_threshold = 4.5\n'
    )
    cell = loaded(tmp_path, text).cell("mine/bitsandbytes/mixed")
    assert cell.scheme_options == {
        "bits": 8,
        "device": "cpu",
        "dtype": "float32",
        "load_in_8bit": True,
        "llm_int8_threshold": 4.5,
    }, "the reference is the suite's own"
    assert cell.reference == "mine/transformers/bf16"


# --- refused --------------------------------------------------------------------------------------


def test_an_unknown_tier_names_those_of_the_file(tmp_path: Path) -> None:
    matrix = loaded(tmp_path, EXTENDED)
    with pytest.raises(InputError) as caught:
        matrix.tier("nigthly")
    assert str(caught.value) == (
        f"{tmp_path / 'matrix.toml'}: no tier 'nigthly'. Did you mean 'nightly'? Allowed: full, nightly, smoke"
    )


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("mien/llamacpp/F16", "names no model of this file: 'mien'. Did you mean 'mine'? Allowed: mine"),
        (
            "mine/lama.cpp/F16",
            "names no backend: 'lama.cpp'. Did you mean 'llamacpp'? "
            "Allowed: bitsandbytes, kbit, llamacpp, llmcompressor, transformers",
        ),
        (
            "mine/bitsandbytes/nf3",
            "names no scheme of bitsandbytes: 'nf3'. Did you mean 'nf4'? "
            "Allowed: cuda-fp4, cuda-int8, cuda-nf4, fp4, int8, nf4, nf4-dq",
        ),
        (
            "mine/bitsandbytes/Q4_K_M",
            "names no scheme of bitsandbytes: 'Q4_K_M'. Allowed: cuda-fp4, cuda-int8, cuda-nf4, fp4, int8, nf4, nf4-dq",
        ),
        ("mine/llamacpp", "is not of the form model/backend/scheme."),
        ("other/*/*", "names no model of this file: 'other'. Allowed: mine"),
    ],
)
def test_an_unknown_part_of_a_cell_is_named_with_what_is_allowed(
    tmp_path: Path, pattern: str, message: str
) -> None:
    text = OWN.replace("mine/llamacpp/Q4_K_M", pattern)
    assert refusal(tmp_path, text) == f"tiers.smoke.cells: {pattern!r} {message}"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "[tiers.smoke.perplexty]\ntext = 'x'",
            "tiers.smoke.perplexty: unknown key. Did you mean 'perplexity'? Allowed: {allowed}",
        ),
        (
            "[tiers.smoke.accuracy]\ntasks = ['piqa']\nitem = 4",
            "tiers.smoke.accuracy.item: unknown key. Did you mean 'items'? "
            "Allowed: budget, fewshot, items, items_of, tasks",
        ),
        (
            "[tiers.smoke.accuracy]\ntasks = []",
            "tiers.smoke.accuracy.tasks: List should have at least 1 item after validation, not 0 (got [])",
        ),
        ("[tiers.smoke.accuracy]\nitems = 4", "tiers.smoke.accuracy.tasks: is missing; add it"),
        (
            "[tiers.smoke.tokenizer]\ntext = 'x'\ncharacters = 0",
            "tiers.smoke.tokenizer.characters: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            "[tiers.other]\ntime_limit = 0\ncells = []",
            "tiers.other.time_limit: Input should be greater than 0 (got 0)",
        ),
        (
            "[tiers.other]\ntime_limt = 3\ncells = []",
            "tiers.other.time_limt: unknown key. Did you mean 'time_limit'? Allowed: cells, extends, time_limit",
        ),
    ],
)
def test_a_wrong_key_of_a_tier_is_named_with_what_is_allowed(tmp_path: Path, more: str, message: str) -> None:
    allowed = ", ".join(sorted([*metric_groups(), "cells", "extends", "time_limit"]))
    assert refusal(tmp_path, f"{OWN}\n{more}\n") == message.format(allowed=allowed)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[model.other]", "model: unknown key. Did you mean 'models'? Allowed: backends, models, tiers"),
        ("[path]", "path: unknown key. Allowed: backends, models, tiers"),
        (
            "[models.a]\nlicense = 'MIT'\npath = 'x'",
            "models.a.path: unknown key. Allowed: add_bos, checkpoints, gguf, license, weights",
        ),
        ("[models.a]\nlicense = 'MIT'", "models.a: Value error, give weights, gguf or both"),
        ("[models.a]\ngguf = { path = 'x' }", "models.a.license: is missing; add it"),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { pth = 'x' }",
            "models.a.weights.pth: unknown key. Did you mean 'path'? Allowed: asset, file, hub, path, revision",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { file = 'x' }",
            "models.a.weights: Value error, give exactly one of asset, hub, path",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { path = 'x', asset = 'y' }",
            "models.a.weights: Value error, give exactly one of asset, hub, path",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { hub = 'o/m' }",
            "models.a.weights: Value error, a hub source needs as revision the 40 hexadecimal digits of a commit",
        ),
        (
            "[models.a]\nlicense = 'MIT'\nweights = { hub = 'o/m', revision = 'v1.0' }",
            "models.a.weights: Value error, a hub source needs as revision the 40 hexadecimal digits of a commit, "
            "since a branch or tag may move unseen: `git ls-remote https://huggingface.co/o/m v1.0` prints them",
        ),
        (
            "[models.'a/b']\nlicense = 'MIT'\ngguf = { path = 'x' }",
            "models: 'a/b': cannot be part of a file name; use letters, digits and",
        ),
        (
            "[models.'..']\nlicense = 'MIT'\ngguf = { path = 'x' }",
            "models: '..': cannot be part of a file name",
        ),
        ("[tiers.'a/b']\nextends = 'smoke'", "tiers: 'a/b': cannot be part of a file name"),
        (
            "[backends.llamacpp.schemes.'Q4/2']\nbits = 4",
            "backends.llamacpp.schemes: 'Q4/2': cannot be part of a file name",
        ),
        (
            "[backends.llama_cpp.schemes]\nQ = { bits = 4 }",
            "backends.llama_cpp: no such backend. Did you mean 'llamacpp'? Allowed: bitsandbytes,",
        ),
        (
            "[backends.llamacpp]\nschema = 1",
            "backends.llamacpp.schema: unknown key. Did you mean 'schemes'? Allowed: checkpoint, ",
        ),
        (
            "[backends.llamacpp]\ncheckpoint = 'onnx'",
            "backends.llamacpp.checkpoint: Input should be 'safetensors', 'gguf' or 'compressed' (got 'onnx')",
        ),
        (
            "[backends.llamacpp.schemes.X]\nftype = 'X'",
            "backends.llamacpp.schemes.X.bits: is missing; add it",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 0",
            "backends.llamacpp.schemes.X.bits: Input should be greater than 0 (got 0)",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 4\ndevice = 'gpu'",
            "backends.llamacpp.schemes.X.device: Input should be 'cpu' or 'cuda' (got 'gpu')",
        ),
        (
            "[backends.llamacpp.schemes.X]\nbits = 4\nreference = 'llamacpp/F61'",
            "backends.llamacpp.schemes.X.reference: no backend/scheme 'llamacpp/F61'. "
            "Did you mean 'llamacpp/F16'? Allowed: bitsandbytes/",
        ),
        (
            "[backends.bitsandbytes]\nreference = 'transformers/bf16'",
            "backends.bitsandbytes.reference: 'transformers/bf16' is no reference, since "
            "backends.transformers.reference holds it against 'transformers/fp32': name 'transformers/fp32' here, or "
            "make it a reference of its own, with backends.transformers.schemes.bf16.reference = 'transformers/bf16'",
        ),
        (
            "[backends.llamacpp.schemes]\nF16 = { reference = 'llamacpp/Q8_0' }\nQ8_0 = { reference = 'llamacpp/F16' }",
            "backends.llamacpp.reference: 'llamacpp/F16' is no reference, since "
            "backends.llamacpp.schemes.F16.reference holds it against 'llamacpp/Q8_0'",
        ),
        (
            "[backends.llamacpp.schemes]\n'Q4_0.2' = { bits = 4, ftype = 'Q4_0' }",
            "backends.llamacpp.schemes.Q4_0.2: its files would be those of a process of the scheme 'Q4_0'",
        ),
        (
            "[backends.llamacpp.schemes]\n'Q4_0.x' = { bits = 4, ftype = 'Q4_0' }\n"
            "'Q4_0.x.part' = { bits = 4, ftype = 'Q4_0' }",
            "backends.llamacpp.schemes.Q4_0.x.part: its files would be those of a process of the scheme 'Q4_0.x'",
        ),
        (
            "[backends.bitsandbytes]\nreference = 'fp32'",
            "backends.bitsandbytes.reference: no backend/scheme 'fp32'.",
        ),
    ],
)
def test_a_wrong_model_backend_or_scheme_is_named_with_what_is_allowed(
    tmp_path: Path, more: str, message: str
) -> None:
    assert refusal(tmp_path, f"{OWN}\n{more}\n").startswith(message)


def test_divergence_from_a_reference_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    text = f"{OWN}[tiers.smoke.divergence]\ntext = 'boolq'\n"
    assert "divergence" in loaded(tmp_path, text).tier("smoke").group_options
    said = refusal(tmp_path, text.replace("mine/llamacpp/F16", "mine/llamacpp/Q8_0"))
    assert said == (
        "tiers.smoke.cells: mine/llamacpp/Q8_0 is held against mine/llamacpp/F16, which is not among them: "
        "add it, or leave out tiers.smoke.divergence"
    )


@pytest.mark.parametrize("key", ["models", "backends", "tiers"])
def test_what_should_be_tables_is_said_to_be(tmp_path: Path, key: str) -> None:
    assert refusal(tmp_path, f"{key} = 3\n") == f"{key}: must be tables: [{key}.NAME] ..."


def test_an_empty_file_misses_its_models(tmp_path: Path) -> None:
    assert refusal(tmp_path, "") == "models: is missing; add it"


def test_malformed_toml_is_named_with_line_and_column(tmp_path: Path) -> None:
    said = refusal(tmp_path, OWN + "cells = [\n")
    assert said.startswith("is not valid TOML: ")
    line = len(OWN.splitlines()) + 2
    assert f"line {line}" in said or "end of document" in said
    assert "line 2, column 9" in refusal(tmp_path, "\nmodels  3\n")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_matrix(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"cannot be read: .*directory"):
        load_matrix(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe[")
    with pytest.raises(InputError, match=r"binary\.toml: cannot be read: .*utf-8"):
        load_matrix(tmp_path / "binary.toml")


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = "[models.a]\nlicense = 'MIT'\n[models.b]\nlicence = 'MIT'\ngguf = { path = 'x' }\n"
    assert refusal(tmp_path, text).splitlines()[:2] == [
        "models.a: Value error, give weights, gguf or both (got {'license': 'MIT'})",
        "models.b.license: is missing; add it",
    ]


# --- what there is --------------------------------------------------------------------------------


def test_backends_and_metric_groups_are_the_files_that_there_are() -> None:
    assert {"transformers", "bitsandbytes", "llamacpp"} <= set(backends())
    suite = Path(__file__).parents[2]
    assert set(backends()) == {f.stem for f in (suite / "quantgate/backends").glob("[!_]*.py")} - {
        "base",
        "methods",
        "registry",
        "spec",
        "tree",
    }
    assert set(metric_groups()) == {f.stem for f in (suite / "quantgate/measure/metrics").glob("[!_]*.py")}


def test_every_group_of_the_shipped_file_has_cases() -> None:
    root = Path(__file__).parents[2]
    for tier in load_matrix().tiers.values():
        for group in tier.group_options:
            assert (root / f"test_{group}.py").exists()


# --- options of schemes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_4bits = true",
            "Did you mean 'load_in_4bit'?",
        ),
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_4bit = true\nbnb_4bit_quanttype = 'nf4'",
            "Did you mean 'bnb_4bit_quant_type'?",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\nn_gpu_layer = -1",
            "Did you mean 'n_gpu_layers'?",
        ),
        (
            "transformers.schemes.mine]\nbits = 32\ndtype = 'float32'\nrefrence = 'a/b'",
            "Did you mean 'reference'?",
        ),
        ("llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_X'", "mine.ftype: Input should be 'F32', 'F16'"),
        (
            "llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\nn_gpu_layers = '3'",
            "mine.n_gpu_layers: Input should be",
        ),
        ("llamacpp.schemes.mine]\nbits = 4\nftype = 'Q4_0'\ndevice = 'cuda'", "give n_gpu_layers"),
        ("llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\nimatrix = 'code'", "leave imatrix out"),
        (
            "llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\ntype_k = 'Q8_0'",
            "'q4_0' or 'iq4_nl' (got 'Q8_0'). Did you mean 'q8_0'?",
        ),
        (
            "llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\ntype_v = 'q8_0'\nflash_attn = false",
            'type_v = "q8_0" needs flash attention in llama.cpp: remove flash_attn = false',
        ),
        ("llamacpp.schemes.mine]\nbits = 16\nftype = 'F16'\nn_ubatch = 0", "mine.n_ubatch: Input should be"),
        ("transformers.schemes.mine]\nbits = 32", "mine.dtype: is missing; add it"),
        ("bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'", "give either load_in_8bit = true or"),
        (
            "bitsandbytes.schemes.mine]\nbits = 4\ndtype = 'float32'\nload_in_8bit = true",
            "makes 8 bits, and bits = 4",
        ),
        (
            "bitsandbytes.schemes.mine]\nbits = 8\ndtype = 'float32'\nload_in_8bit = true\nbnb_4bit_quant_type = 'nf4'",
            "bnb_4bit_quant_type does nothing with load_in_8bit",
        ),
        ("kbit.schemes.mine]\nbits = 5\ndtype = 'float32'\ndata_type = 'nf4'", "the nf4 type has 4 bits"),
        (
            "kbit.schemes.mine]\nbits = 4\ndtype = 'float32'\ndata_type = 'integer'",
            "mine.data_type: Input should be",
        ),
        (
            "llmcompressor.schemes.mine]\nbits = 4\ndtype = 'float32'\nmethod = 'gptq'",
            "needs a `calibration`",
        ),
    ],
)
def test_options_that_a_backend_does_not_take_are_refused(tmp_path: Path, scheme: str, message: str) -> None:
    refused = refusal(tmp_path, f"{OWN}\n[backends.{scheme}\n")
    assert refused.startswith(f"backends.{scheme.partition(']')[0]}")
    assert message in refused


def test_backends_are_read_without_the_libraries_that_compute() -> None:
    code = "import sys; from quantgate.run.inputs import load_matrix; load_matrix(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=IMPORT_ROOT
    )
    assert not {"torch", "transformers", "bitsandbytes", "llama_cpp"} & {*done.stdout.split()}


def test_a_backend_whose_library_is_not_installed_says_how_it_is() -> None:
    spec = replace(backends()["llmcompressor"], libraries={"json": "json", "no_such_module": "some-package"})
    assert spec.missing() == "no_such_module is not installed: pip install some-package"
    assert not replace(spec, libraries={"json": "json"}).missing()
