"""llmcompressor itself, where its environment is in the cache: what it leaves is loaded and computes what it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from quantgate.backends.llmcompressor import Options as Recipe
from quantgate.backends.tree import TokenSequence, build_tree
from quantgate.jobs import Preparation
from quantgate.machine.environment import Environment
from quantgate.processes.isolate import Assignment, run_together, write_job
from quantgate.processes.server import Server
from quantgate.supply.compress import _weights, most_sensitive
from quantgate.supply.derived import requirements
from quantgate.supply.environments import layer

from selftest.tiny import TinyModel

pytest.importorskip("compressed_tensors")

OPTIONS = {"bits": 4, "dtype": "float32", "device": "cpu"}
IDS = tuple(range(3, 40))


def test_the_layers_that_lose_most_are_found() -> None:
    source = torch.Generator().manual_seed(0)
    plain = torch.randn(32, 64, generator=source)
    spiky = plain.clone()
    spiky[:, 0] = 40.0  # stretches the range of each group
    layers = {n: torch.nn.Linear(64, 32, bias=False) for n in ("plain", "spiky", "unused")}
    for name, weight in {"plain": plain, "spiky": spiky, "unused": spiky}.items():
        layers[name].weight.data = weight
    inputs = {"plain": torch.ones(64), "spiky": torch.ones(64), "unused": torch.ones(64)}
    inputs["spiky"][0] = 0.0  # the spike itself is never used: all that is left is the damage
    inputs["unused"][1:] = 0.0  # nothing but the spike is used, which is exact
    recipe = Recipe.model_validate(
        {**OPTIONS, "method": "rtn", "group": 64, "high": 1 / 3, "calibration": "any"}
    )
    assert most_sensitive(layers, inputs, recipe) == ["spiky"]
    two = recipe.model_copy(update={"high": 0.67})
    assert most_sensitive(layers, inputs, two) == ["spiky", "plain"]


def not_built(text: str) -> None:
    pytest.skip(f"no environment of llmcompressor is in the cache, and none is built here: {text}")


@pytest.fixture(scope="module")
def quantizer() -> Iterator[Server]:
    """In llmcompressor's own environment, as outside of tests."""
    with Server(Environment(str(layer(requirements(), not_built))).worker, threads=1) as server:
        yield server


def made(
    quantizer: Server, tiny: TinyModel, folder: Path, squares: Path | None = None, **options: Any
) -> Any:
    """A model of the backend, quantized by a recipe."""
    from quantgate.backends.runtime.llmcompressor import load

    rows = np.random.default_rng(0).integers(0, 512, (4, 32)).tolist()
    sequences = folder / "sequences.json"
    sequences.write_text(json.dumps(rows))
    arguments = {
        "safetensors": str(tiny.safetensors),
        "recipe": Recipe.model_validate({**OPTIONS, **options}).model_dump(),
        "threads": 1,
        "sequences": str(sequences) if "calibration" in options and options["method"] != "rtn" else None,
        "mean_squares": str(squares) if squares else None,
    }
    job = Preparation(
        title="quantize",
        maker="quantgate.supply.compress:compress",
        arguments=arguments,
        output=folder / "made",
    )
    log = folder / "log"
    file = write_job(job.model_dump_json(), log)
    run_together([Assignment(quantizer, file, log, modules=["llmcompressor"])], timeout=600)
    return load(job.output, {"device": "cpu", "dtype": "float32"}, 1)


def logits(model: Any) -> NDArray[np.float32]:
    """As the suite scores: of every token."""
    model.reserve(len(IDS), 1)
    tree = build_tree([TokenSequence(IDS, 1)])
    rows: NDArray[np.float32] = model.logits(tree).copy()
    return rows


@pytest.fixture
def rounded(tiny: TinyModel, tmp_path: Path) -> Path:
    """A checkpoint in the format of compressed-tensors, as llmcompressor leaves it, made without it: 4 bits in groups
    of 64, to nearest."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM

    recipe = Recipe.model_validate({**OPTIONS, "method": "rtn", "group": 64})
    model = AutoModelForCausalLM.from_pretrained(tiny.safetensors, dtype=torch.float32)
    scheme = QuantizationScheme(targets=["Linear"], weights=_weights(recipe, 4))
    config = QuantizationConfig(
        config_groups={"all": scheme}, ignore=["lm_head"], quantization_status=QuantizationStatus.FROZEN
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            groups = module.weight.detach().unflatten(1, (-1, 64))
            scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
            module.weight_scale.data = scale
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(tmp_path / "rounded")
    compressor.update_config(tmp_path / "rounded")
    return tmp_path / "rounded"


def test_what_is_compressed_is_scored_as_it_is(tiny: TinyModel, rounded: Path) -> None:
    """Without llmcompressor: what is loaded is rounded to nearest, in groups of 64."""
    from quantgate.backends.runtime import llmcompressor, transformers

    here = {"device": "cpu", "dtype": "float32"}
    whole, model = transformers.load(tiny.safetensors, here, 1), llmcompressor.load(rounded, here, 1)
    assert model.weights().bytes < whole.weights().bytes
    for name, module in whole._model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            groups = module.weight.detach().unflatten(1, (-1, 64))
            scale = groups.abs().amax(-1, keepdim=True) / 7.5
            module.weight.data = ((groups / scale).round().clamp(-8, 7) * scale).flatten(1)
    np.testing.assert_allclose(logits(model), logits(whole), atol=1e-4)
    np.testing.assert_array_equal(logits(model), logits(model))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rtn", {"group": 32}),
        ("gptq", {"group": 32, "calibration": "any"}),
        ("awq", {"group": 32, "calibration": "any"}),
        ("smoothquant", {"bits": 8, "activations": 8, "calibration": "any"}),
    ],
)
def test_a_quantized_model_is_near_its_source_and_smaller(
    quantizer: Server, tiny: TinyModel, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    from quantgate.backends.runtime.transformers import load

    whole = load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    model = made(quantizer, tiny, tmp_path, method=method, **options)
    weights = model.weights()
    assert weights.simulated
    assert weights.parameters == whole.weights().parameters
    assert weights.bytes < whole.weights().bytes
    difference = np.abs(logits(model) - logits(whole)).max()
    assert 0 < difference < 0.5 * np.abs(logits(whole)).max()
    assert model.weights() == weights, "what it takes does not change once it runs"


def test_the_most_sensitive_layers_have_more_bits(quantizer: Server, tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.transformers import load
    from safetensors.torch import load_file, save_file

    whole = load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    layers = {
        n: m for n, m in whole._model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    }
    squares = tmp_path / "squares.safetensors"
    save_file({name: torch.ones(layer.in_features) for name, layer in layers.items()}, squares)
    options = {"method": "rtn", "group": 32, "high": 0.25, "calibration": "any"}
    chosen = most_sensitive(layers, load_file(squares), Recipe.model_validate({**OPTIONS, **options}))
    made(quantizer, tiny, tmp_path, squares, **options)
    config = json.loads((tmp_path / "made" / "config.json").read_bytes())["quantization_config"]
    groups = config["config_groups"].values()
    bits = {name: group["weights"]["num_bits"] for group in groups for name in group["targets"]}
    assert bits == {name: 8 if name in chosen else 4 for name in layers}
