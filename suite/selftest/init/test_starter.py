"""`python -m quantgate.init`: what it writes for each kind of checkpoint, and that it overwrites nothing."""

from __future__ import annotations

import itertools
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quantgate.config.matrix import Matrix
from quantgate.config.tolerances import load_tolerances
from quantgate.init.__main__ import main
from quantgate.init.cells import choose
from quantgate.init.facts import Facts
from quantgate.machine.quota import memory_bytes
from quantgate.paths import FIXTURES
from quantgate.run.gates import foreseen
from quantgate.run.inputs import load_matrix
from quantgate.run.plan import Need
from quantgate.supply.checkpoints import quantize_gguf
from safetensors.numpy import save

from selftest.forked import start
from selftest.supply.copies import set_metadata
from selftest.tiny import TEXT, TinyModel


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def q4(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("q4") / "Mine-Q4_K_M.gguf"
    quantize_gguf(file, report=lambda *_: None, gguf=str(tiny.gguf), ftype="Q4_K_M", threads=1)
    return file


def written(*arguments: object) -> dict[str, Any]:
    """The tables of the file that is written, which the suite reads, too."""
    assert main([str(one) for one in arguments]) == 0
    load_matrix(Path("quantgate.toml"))
    return tomllib.loads(Path("quantgate.toml").read_text())


def quantized(folder: Path, settings: dict[str, object]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings}))
    (folder / "model.safetensors").write_bytes(save({"a": np.zeros(3, np.float32)}))
    return folder


def cells(table: dict[str, Any]) -> list[str]:
    return [cell.partition("/")[2] for cell in table["tiers"]["smoke"]["cells"]]


def test_a_folder(tiny: TinyModel, tmp_path: Path) -> None:
    shutil.copytree(tiny.safetensors, tmp_path / "My model")
    (tmp_path / "My model" / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# My model\n")
    table = written("My model")
    model = {"license": "mit", "weights": {"path": "My model"}}
    assert table["models"] == {"my-model": model}
    assert cells(table) == [
        *("transformers/fp32", "bitsandbytes/int8", "bitsandbytes/nf4"),
        *("llamacpp/F16", "llamacpp/Q8_0", "llamacpp/Q4_K_M"),
    ]
    smoke = table["tiers"]["smoke"]
    assert smoke["perplexity"]["n_ctx"] == 512
    assert smoke["decoding"]["context"] + smoke["decoding"]["tokens"] <= 512  # of its positions


def test_each_line_is_explained(tiny: TinyModel) -> None:
    written(tiny.safetensors)
    lines = Path("quantgate.toml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith(("[", "]", "    ", "cells", "#")):
            assert "# " in line or before.startswith("#"), line


def test_bos_and_positions_are_those_of_the_checkpoint(tiny: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<s>", "add_bos_token": True, "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    table = written("m")
    assert table["models"]["m"]["add_bos"] is True
    assert table["tiers"]["smoke"]["perplexity"]["n_ctx"] == 256
    assert "accuracy" not in table["tiers"]["smoke"]
    assert "generation" not in table["tiers"]["smoke"], "chat prompts are longer than its positions"


def test_a_model_with_a_chat_template_is_asked_to_write(tiny: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "m"))
    assert "generation" not in written("m")["tiers"]["smoke"]
    Path("quantgate.toml").unlink()
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    smoke = written("m")["tiers"]["smoke"]
    assert smoke["generation"] == {"prompts": "everyday", "items": 24, "tokens": 8}
    assert smoke["tokenizer"]["chat"] is True


def test_a_gguf_alone(q4: Path) -> None:
    table = written(q4)
    assert table["models"] == {"mine": {"license": "unknown", "gguf": {"path": str(q4)}}}
    assert cells(table) == ["llamacpp/F16", "llamacpp/Q4_K_M"]
    assert (
        '"mine/llamacpp/F16",   # made from the dequantized weights; ' in Path("quantgate.toml").read_text()
    )


def test_a_gguf_and_its_reference(q4: Path, tiny: TinyModel) -> None:
    table = written(q4, "--reference", tiny.safetensors, "--name", "ours")
    model = table["models"]["ours"]
    assert model["weights"] == {"path": str(tiny.safetensors)}
    assert model["checkpoints"] == {"llamacpp/Q4_K_M": {"path": str(q4)}}
    assert "dequantized" not in Path("quantgate.toml").read_text()
    assert cells(table) == ["llamacpp/F16", "llamacpp/Q4_K_M"]


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("settings", "cell"),
    [
        (NF4, "bitsandbytes/nf4"),
        ({**NF4, "bnb_4bit_use_double_quant": True}, "bitsandbytes/nf4-dq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes/int8"),
        ({"quant_method": "gptq", "bits": 4}, "transformers/gptq"),
        ({"quant_method": "quanto", "weights": "int4"}, "transformers/shipped"),
    ],
)
def test_a_quantized_folder(settings: dict[str, object], cell: str, tiny: TinyModel, tmp_path: Path) -> None:
    folder = quantized(tmp_path / "q", settings)
    table = written(folder, "--reference", tiny.safetensors)
    assert table["models"]["q"]["checkpoints"] == {cell: {"path": "q"}}
    assert cells(table) == ["transformers/fp32", cell]
    Path("quantgate.toml").unlink()
    alone = written(folder)
    assert cells(alone) == [cell]
    assert "divergence" not in alone["tiers"]["smoke"]


def test_a_quantized_folder_alone_writes_nothing_as_no_reference_does(tmp_path: Path) -> None:
    folder = quantized(tmp_path / "q", NF4)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    smoke = written(folder)["tiers"]["smoke"]
    assert "generation" not in smoke
    assert smoke["tokenizer"]["chat"] is True


def test_the_tolerances_can_be_shown_and_with_no_more(tiny: TinyModel) -> None:
    written(tiny.safetensors)
    matrix = load_matrix(Path("quantgate.toml"))
    assert not problems(matrix)
    windows = matrix.tier("smoke").group_options["perplexity"].windows  # type: ignore[attr-defined]
    text = Path("quantgate.toml").read_text().replace(f"windows = {windows}", f"windows = {windows // 2}")
    Path("fewer.toml").write_text(text)
    assert windows == 8 or problems(load_matrix(Path("fewer.toml")))


def problems(matrix: Matrix) -> list[str]:
    tier, of_tier = matrix.tier("smoke"), matrix.cells("smoke")
    tolerances = load_tolerances().for_tier("smoke", matrix.roundings())
    needs = [Need(cell, group) for cell in of_tier for group in tier.group_options]
    void, narrow = foreseen(needs, of_tier, tier, tolerances)
    return [*void, *narrow]


def test_nothing_is_overwritten(tiny: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "quantgate.toml"
    file.write_text("theirs")
    assert main([str(tiny.safetensors)]) == 4
    assert "already exists, and is not overwritten: `--print`" in capsys.readouterr().err
    assert main([str(tiny.safetensors), "--print"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["models"]
    assert main([str(tiny.safetensors), "--output", "other.toml"]) == 0
    assert "pytest --matrix=other.toml --update-baselines" in capsys.readouterr().out
    assert "# `pytest --matrix=other.toml --update-baselines" in Path("other.toml").read_text()
    assert main([str(tiny.safetensors), "--reference", "", "--print"]) == 4
    assert "is empty" in capsys.readouterr().err
    assert file.read_text() == "theirs"
    file.unlink()
    (tmp_path / "pyproject.toml").write_text("[tool.quantgate.models.a]\n")
    assert main([str(tiny.safetensors)]) == 4
    assert "has [tool.quantgate] already, which quantgate.toml would replace" in capsys.readouterr().err
    assert not file.exists()


def cut(folder: Path) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return folder


def pickled(folder: Path) -> Path:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def without_config(folder: Path) -> Path:
    (folder / "config.json").unlink()
    return folder


def foreign(folder: Path) -> Path:
    return quantized(folder / "deeper", {"quant_method": "magic"})


def of_files(folder: Path) -> Path:
    (folder / "deeper").mkdir()
    for name in ("b.gguf", "a.gguf"):
        (folder / "deeper" / name).write_bytes(b"")
    return folder / "deeper"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (cut, "is cut off"),
        (pickled, "a format that is not loaded, as it can run code"),
        (without_config, "config.json: no such file"),
        (foreign, "by a method that no backend loads. Allowed: aqlm"),
        (lambda folder: folder / "config.json", "is neither a folder with safetensors nor a GGUF file"),
        (lambda folder: folder / "x.gguf", "no such file or folder"),
        (lambda folder: "", "PATH|HUB_ID: is empty"),
        (of_files, "name a GGUF file itself (a.gguf, b.gguf), in a matrix as `gguf`"),
    ],
)
def test_broken_checkpoints(
    broken: Callable[[Path], Path | str],
    message: str,
    tiny: TinyModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = broken(Path(shutil.copytree(tiny.safetensors, tmp_path / "m")))
    assert main([str(path)]) == 4
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "quantgate.toml").exists()


@pytest.mark.slow
def test_pytest_measures_what_was_written_and_accepts_it(
    q4: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Of a model whose positions are too few for tasks, which nothing here asks."""
    short = Path(shutil.copy(q4, tmp_path))
    set_metadata(short, "llama.context_length", 256)
    assert "accuracy" not in written(short)["tiers"]["smoke"]
    Path("text.txt").write_text(TEXT * 20)
    words = ["-p", "quantgate.plugin.entry", "-p", "no:cacheprovider", "--threads=1"]
    words += ["--quantgate-text=text.txt", "-m", "perplexity or tokenizer"]
    for further, result in (
        (["--update-baselines", "--reason", "first"], "4 skipped"),
        (["--reuse"], "4 passed"),
    ):
        status, output = start("pytest", [*words, *further], tmp_path, environment).finish(600)
        assert status == 0, output
        assert result in output


def test_what_cannot_run_is_left_out_with_its_reason() -> None:
    table = written(FIXTURES / "models" / "pocket-90k")  # rows of 32 weights
    assert "bitsandbytes/nf4" not in cells(table)
    assert "bitsandbytes/int8" in cells(table)
    assert (
        "# Not here: bitsandbytes/nf4, needs rows of a multiple of 64" in Path("quantgate.toml").read_text()
    )


def test_what_does_not_fit_into_memory_is_left_out() -> None:
    facts = Facts(name="m", source={}, parameters=memory_bytes() // 3)
    chosen = choose(facts, None, load_matrix().backends)
    assert "transformers/fp32" in chosen.skipped
    assert "is compared with transformers/fp32" in chosen.skipped["bitsandbytes/nf4"]
    assert chosen.cells == ["llamacpp/F16", "llamacpp/Q8_0", "llamacpp/Q4_K_M"]
