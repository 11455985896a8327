"""Checkpoints that are broken or foreign, in one run of pytest in somebody's repository: each is one sentence and the
error of its cell, and the other cells are judged."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
from quantgate.records import Status, Verdict
from safetensors.numpy import load_file, save_file

from selftest.forked import start
from selftest.plugin.foreign import variables
from selftest.project import verdicts_of
from selftest.supply.copies import edit
from selftest.supply.test_contents import gguf_bytes
from selftest.supply.test_same_tokens import with_another_splitting
from selftest.tiny import TEXT, TinyModel

GOOD = "mine/llamacpp/F16"
REPORT = "report"


@dataclass(frozen=True)
class Bad:
    """A checkpoint that is made in a folder, and the sentence about it. sha256: what the matrix promises."""

    scheme: str
    make: Callable[[TinyModel, Path], Path]
    sentence: str
    sha256: str = ""
    method: str = ""

    @property
    def cell(self) -> str:
        return f"mine/{self.backend}/{self.scheme}"

    @property
    def backend(self) -> str:
        return "llamacpp" if self.scheme.startswith(("gguf", "Q")) else "transformers"


def copy(tiny: TinyModel, folder: Path) -> Path:
    return Path(shutil.copytree(tiny.safetensors, folder / "mine"))


def cut(tiny: TinyModel, folder: Path) -> Path:
    file = copy(tiny, folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file.parent


def without_shard(tiny: TinyModel, folder: Path) -> Path:
    mine = copy(tiny, folder)
    weights = load_file(mine / "model.safetensors")
    (mine / "model.safetensors").unlink()
    first, *others = sorted(weights)
    save_file({first: weights[first]}, mine / "model-00001-of-00002.safetensors", {"format": "pt"})
    places = {first: "model-00001-of-00002.safetensors"}
    places |= dict.fromkeys(others, "model-00002-of-00002.safetensors")
    edit(mine / "model.safetensors.index.json", weight_map=places)
    return mine


def without_weights(tiny: TinyModel, folder: Path) -> Path:
    mine = copy(tiny, folder)
    (mine / "model.safetensors").unlink()
    return mine


def adapter(tiny: TinyModel, folder: Path) -> Path:
    mine = folder / "mine"
    mine.mkdir()
    (mine / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "them/base"}')
    save_file({"lora_A.weight": np.zeros((2, 2), np.float32)}, mine / "adapter_model.safetensors")
    return mine


def pickled(tiny: TinyModel, folder: Path) -> Path:
    mine = without_weights(tiny, folder)
    (mine / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    return mine


def with_code(tiny: TinyModel, folder: Path) -> Path:
    mine = copy(tiny, folder)
    edit(mine / "config.json", model_type="mine", auto_map={"AutoConfig": "code.Config"})
    (mine / "code.py").write_text("raise SystemExit('was run')")
    return mine


def without_a_merge(tiny: TinyModel, folder: Path) -> Path:
    mine = copy(tiny, folder)
    tokenizer = json.loads((mine / "tokenizer.json").read_bytes())
    tokenizer["model"]["merges"].pop()
    (mine / "tokenizer.json").write_text(json.dumps(tokenizer))
    return mine


def quantized(tiny: TinyModel, folder: Path) -> Path:
    mine = copy(tiny, folder)
    edit(mine / "config.json", quantization_config={"quant_method": "aqlm"})
    return mine


def half_a_gguf(tiny: TinyModel, folder: Path) -> Path:
    file = folder / "mine.gguf"
    file.write_bytes(tiny.gguf.read_bytes()[: tiny.gguf.stat().st_size // 2])
    return file


def split(tiny: TinyModel, folder: Path) -> Path:
    """The first of three parts, which have changed their names: the second is the third."""
    for number, content in enumerate((0, 2, 1), start=1):
        part = gguf_bytes({f"t{content}": [1.0]}, {"split.no": content, "split.count": 3})
        (folder / f"mine-{number:05d}-of-00003.gguf").write_bytes(part)
    return folder / "mine-00001-of-00003.gguf"


def without_a_part(tiny: TinyModel, folder: Path) -> Path:
    first = split(tiny, folder)
    first.with_name("mine-00003-of-00003.gguf").unlink()
    return first


BAD = [
    Bad("cut", cut, r"mine/model\.safetensors: is cut off: .*; fetch it again"),
    Bad("shard", without_shard, r"'model-00002-of-00002\.safetensors': no such file: a shard is missing; fetch"),
    Bad("weights", without_weights, r"mine: holds a configuration without weights: no .*; fetch them, too"),
    Bad("adapter", adapter, r"mine: holds an adapter without its model: merge it into the model first"),
    Bad("pickled", pickled, r"pytorch_model\.bin, a format that is not loaded, as it can run code; convert"),
    Bad("code", with_code, r"needs code that comes with it \(auto_map\), which is not run; use a checkpoint"),
    Bad("tokens", without_a_merge, r"its tokenizer differs .*: \d+ of [\d,]+ lines differ, for example '"),
    Bad("Q4_K_M", half_a_gguf, r"mine\.gguf: is cut off: \S+ ends at byte [\d,]+, the file at [\d,]+; fetch"),
    Bad(
        "gguf-changed",
        lambda tiny, folder: Path(shutil.copy(tiny.gguf, folder / "mine.gguf")),
        r"sha256: \S+mine\.gguf has changed: its SHA-256 is \w{64}, not 0{64}; fetch it again, or accept it",
        sha256="0" * 64,
    ),
    Bad(
        "gguf-tokens",
        lambda tiny, folder: with_another_splitting(tiny.gguf, folder / "mine.gguf"),
        r"its tokenizer differs .*: \d+ of [\d,]+ lines differ, for example '",
    ),
    Bad("gguf-parts", split, r"mine-00002-of-00003\.gguf: is part 3 of a GGUF split into 3, .* NAME-00003-of-"),
    Bad("gguf-part", without_a_part, r"mine-00003-of-00003\.gguf: no such file: this part of .* is missing; copy"),
]  # fmt: skip
MISSING = Bad("aqlm", quantized, "aqlm is not installed: pip install 'aqlm", method="aqlm")


def matrix_of(tiny: TinyModel, folder: Path) -> str:
    """Write the checkpoints and return the matrix that names them."""
    checkpoints = {}
    schemes: dict[str, dict[str, Any]] = {"transformers": {}, "llamacpp": {}}
    for one in (*BAD, MISSING):
        (folder / one.scheme).mkdir()
        source = {"path": str(one.make(tiny, folder / one.scheme).relative_to(folder))}
        checkpoints[f"{one.backend}/{one.scheme}"] = source | ({"sha256": one.sha256} if one.sha256 else {})
        dtype = {"dtype": "float32"} if one.backend == "transformers" else {}
        method = {"quantization": {"method": one.method}} if one.method else {}
        if one.scheme != "Q4_K_M":  # which is there
            schemes[one.backend][one.scheme] = {"as_is": True, **dtype, **method}
    model = {"license": "MIT", "weights": {"path": str(tiny.safetensors)}, "gguf": {"path": str(tiny.gguf)}}
    return tomlkit.dumps(
        {
            "models": {"mine": model | {"checkpoints": checkpoints}},
            "backends": {backend: {"schemes": one} for backend, one in schemes.items()},
            "tiers": {
                "smoke": {
                    "time_limit": 300,
                    "cells": [GOOD, *(one.cell for one in (*BAD, MISSING))],
                    "perplexity": {"text": "boolq", "n_ctx": 32, "windows": 16, "block": 16},
                }
            },
        }
    )


def run(folder: Path, *arguments: str) -> tuple[int, list[Verdict], str]:
    """Exit status, verdicts and everything that pytest printed."""
    settings = variables(folder)
    settings["PYTHONPATH"] += f"{os.pathsep}{folder / 'without'}"
    words = [
        *("-p", "quantgate.plugin.entry", "-p", "no:cacheprovider"),
        *("--quantgate-text=text.txt", "--threads=1", f"--quantgate-report={REPORT}", *arguments),
    ]
    status, output = start("pytest", words, folder, settings).finish(1800)
    return status, verdicts_of(folder / REPORT / "report.json"), output


@pytest.mark.slow
def test_each_is_one_sentence_and_the_other_cell_is_judged(tiny: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    (folder / "quantgate.toml").write_text(matrix_of(tiny, folder))
    # The import of torch ends a process: none needs it.
    (folder / "without/torch").mkdir(parents=True)
    (folder / "without/torch/__init__.py").write_text("raise SystemExit('torch was imported')")
    assert run(folder, "-k", "F16", "--update-baselines", "--reason=first")[0] == 0
    status, verdicts, output = run(folder, "-rs", "--reuse")
    assert status == 10, output
    assert f"{GOOD}: reused" in output
    of_cell = {v.cell: v for v in verdicts if v.metric == "perplexity"}
    assert of_cell[GOOD].status == Status.PASS
    for one in BAD:
        verdict = of_cell[one.cell]
        assert verdict.status == Status.ERROR
        assert re.search(one.sentence, verdict.text), verdict.text
        assert "\n" not in verdict.text
        assert not re.search(r"Traceback|Error\b|itself failed", verdict.text), verdict.text
    assert MISSING.cell not in of_cell
    assert re.search(rf"SKIPPED.*{MISSING.sentence}", output), output
    assert "Traceback" not in output
