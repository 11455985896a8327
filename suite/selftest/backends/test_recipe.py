"""A checkpoint of llmcompressor's that is loaded as it is was made as its scheme says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quantgate.backends.runtime.llmcompressor import check_recipe
from quantgate.errors import InputError

SCHEME = {"bits": 4, "dtype": "float32", "method": "gptq", "group": 64, "calibration": "wikipedia"}
LOW = {"num_bits": 4, "strategy": "group", "group_size": 64}
HIGH = {"num_bits": 8, "strategy": "group", "group_size": 64}
ROWS = {"num_bits": 8, "strategy": "channel", "group_size": None}


def folder(path: Path, *groups: dict[str, Any]) -> Path:
    named = {f"group_{number}": group for number, group in enumerate(groups)}
    quantization = {"quant_method": "compressed-tensors", "config_groups": named}
    (path / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return path


@pytest.mark.parametrize(
    ("groups", "scheme"),
    [
        ([{"weights": LOW}], SCHEME),
        ([{"weights": LOW}, {"weights": HIGH}], {**SCHEME, "high": 0.1}),
        (
            [{"weights": ROWS, "input_activations": {"num_bits": 8}}],
            {"bits": 8, "method": "smoothquant", "activations": 8},
        ),
    ],
)
def test_what_the_scheme_says(tmp_path: Path, groups: Any, scheme: dict[str, Any]) -> None:
    check_recipe(folder(tmp_path, *groups), scheme)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"weights": {**LOW, "group_size": 32}}],
            r"group_0\.weights\.group_size: is 32, and the scheme says group = 64",
        ),
        (
            [{"weights": {**LOW, "strategy": "channel"}}],
            "group_size: is channel, and the scheme says group = 64",
        ),
        (
            [{"weights": LOW}, {"weights": HIGH}],
            r"group_1\.weights\.num_bits: is 8, and the scheme says bits = 4:",
        ),
        (
            [{"weights": LOW, "input_activations": {"num_bits": 8}}],
            r"input_activations\.num_bits: is 8, and the scheme says activations = None",
        ),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, groups: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_recipe(folder(tmp_path, *groups), SCHEME)
