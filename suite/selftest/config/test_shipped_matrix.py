"""fixtures/matrix.toml: its tiers, cells and references, and that backends, metric groups and cases go with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from quantgate.backends.spec import backends
from quantgate.checkpoint.nominal import file_type
from quantgate.config.matrix import MATRIX, Matrix, selecting
from quantgate.files import sha256_of
from quantgate.measure.groups import metric_groups
from quantgate.run.inputs import load_matrix

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


def test_nightly_has_another_architecture_and_ready_made_files_of_it(shipped: Matrix) -> None:
    cells = [c for c in shipped.cells("nightly") if c.model == "qwen3-pocket"]
    assert {c.reference for c in cells} == {
        f"qwen3-pocket/{c}" for c in ("transformers/fp32", "llamacpp/F16")
    }
    ready = {c.scheme: c.as_is for c in cells if c.as_is}
    assert len(ready) == 2
    for scheme, checkpoint in ready.items():
        file = checkpoint.beside(shipped.path)
        assert file is not None
        assert (file_type(file), sha256_of(file)) == (scheme, checkpoint.sha256)


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
        "transformers/cuda-fp16", "transformers/cuda-bf16", "transformers/cuda-torchao-int8",
        "transformers/cuda-torchao-fp8", "transformers/cuda-fp8", "transformers/cuda-eetq",
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


def test_the_shipped_file_named_outright_is_the_shipped_file(shipped: Matrix) -> None:
    assert load_matrix(MATRIX) == shipped


def test_the_marks_of_a_cell_are_what_a_person_selects_by(shipped: Matrix) -> None:
    cell = shipped.cell("smollm2-135m/llamacpp/Q4_K_M")
    assert cell.marks == ["smollm2-135m", "llamacpp", "Q4_K_M", "bits4"]
    assert cell.id == "smollm2-135m/llamacpp/Q4_K_M"


@pytest.mark.parametrize("tier", ["smoke", "nightly", "papers", "papers-calibration"])
def test_a_cell_is_selected_without_those_whose_names_contain_its_own(shipped: Matrix, tier: str) -> None:
    cells = shipped.cells(tier)
    marks_of = {c.id: set(c.marks) for c in cells}
    for cell in cells:
        chosen = Expression.compile(selecting(cell.id))
        assert [
            one
            for one, marks in marks_of.items()
            if chosen.evaluate(lambda name, /, marks=marks, **_: name in marks)
        ] == [cell.id]


def test_the_reference_is_the_backends_or_the_schemes_own(shipped: Matrix) -> None:
    reference = {
        c.id.partition("/")[2]: c.reference for c in shipped.cells("full") if c.model == "smollm2-135m"
    }
    assert reference["transformers/fp32"] == "smollm2-135m/transformers/fp32"
    assert reference["bitsandbytes/nf4"] == "smollm2-135m/transformers/fp32"
    assert reference["llamacpp/Q2_K"] == "smollm2-135m/llamacpp/F16"
    assert reference["bitsandbytes/cuda-nf4"] == "smollm2-135m/transformers/cuda-bf16"
    assert reference["llamacpp/cuda-Q8_0"] == "smollm2-135m/llamacpp/cuda-F16"


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


def test_every_group_of_the_shipped_file_has_cases(shipped: Matrix) -> None:
    root = Path(__file__).parents[2]
    for tier in shipped.tiers.values():
        for group in tier.group_options:
            assert (root / f"test_{group}.py").exists()
