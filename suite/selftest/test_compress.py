"""llmcompressor itself, where it is installed: what it leaves is loaded and computes what it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.prepare.compress import compress, most_sensitive
from suite.prepare.recipe import Recipe
from suite.selftest.tiny import TinyModel

pytest.importorskip("compressed_tensors")

OPTIONS = {"bits": 4, "dtype": "float32", "device": "cpu"}
IDS = list(range(3, 40))


def quiet(phase: str, done: float, total: float) -> None:
    pass


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


def made(tiny: TinyModel, folder: Path, name: str, **options: Any) -> Any:
    """A model of the backend, quantized by a recipe."""
    from suite.backends.llmcompressor import load

    rows = np.random.default_rng(0).integers(0, 512, (4, 32)).tolist()
    sequences = folder / "sequences.json"
    sequences.write_text(json.dumps(rows))
    output = folder / name
    compress(
        output,
        report=quiet,
        safetensors=str(tiny.safetensors),
        recipe={**OPTIONS, **options},
        threads=1,
        sequences=str(sequences) if options.get("calibration") else None,
        mean_squares=None,
    )
    return load(output, {"device": "cpu", "dtype": "float32"}, 1)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model._model(torch.tensor([IDS])).logits[0]
    return found


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
    tiny: TinyModel, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    pytest.importorskip("llmcompressor")
    from suite.backends.transformers import load

    whole = load(tiny.safetensors, {"device": "cpu", "dtype": "float32"}, 1)
    model = made(tiny, tmp_path, method, method=method, **options)
    weights = model.weights()
    assert weights.simulated
    assert weights.parameters == whole.weights().parameters
    assert weights.bytes < whole.weights().bytes
    difference = (logits(model) - logits(whole)).abs().max()
    assert 0 < difference < 0.5 * logits(whole).abs().max()
    assert model.weights() == weights, "what it takes does not change once it runs"
