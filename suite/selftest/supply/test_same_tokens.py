"""Whether a checkpoint's tokenizer is the model's: every id, and the token before a text."""

from __future__ import annotations

import json
import re
import shutil
import struct
from pathlib import Path

import gguf
import pytest
from quantgate.errors import AssetError
from quantgate.supply.same_tokens import compare, difference

from selftest.tiny import TinyModel


def compared(tiny: TinyModel, checkpoint: Path, output: Path, add_bos: bool | None = None) -> str:
    compare(
        output,
        report=lambda *_: None,
        model=str(tiny.safetensors),
        checkpoint=str(checkpoint),
        tokenizer=True,
        add_bos=add_bos,
    )
    result = json.loads(output.read_bytes())
    assert result["lines"] > 100
    return str(result["problem"])


def test_the_models_own_tokenizer_agrees_in_both_formats(tiny: TinyModel, tmp_path: Path) -> None:
    assert compared(tiny, tiny.gguf, tmp_path / "a") == ""
    assert compared(tiny, tiny.safetensors, tmp_path / "b") == ""


def test_a_lost_merge_is_named_with_an_example(tiny: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "f"))
    table = json.loads((folder / "tokenizer.json").read_bytes())
    table["model"]["merges"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(table))
    problem = compared(tiny, folder, tmp_path / "a")
    assert problem.startswith("its tokenizer differs from the model's: ")
    count, _, lines = problem.partition(": ")[2].partition(" lines")[0].partition(" of ")
    assert 0 < int(count) < int(lines.replace(",", ""))
    assert "for example '" in problem


def test_the_ids_of_the_example_begin_where_they_differ() -> None:
    example = "a line", [1, 2, 7, 8, 9, 10, 11], [1, 2, 3, 4, 5]
    text = difference([example, ("a longer line", [1], [2]), ("the same", [1], [1])])
    assert (
        "2 of 3 lines differ, for example 'a line': ... [7, 8, 9, 10] ... here, ... [3, 4, 5] there" in text
    )


def test_a_token_that_the_file_alone_puts_before_a_text_is_named(tiny: TinyModel, tmp_path: Path) -> None:
    """Whoever loads the file by llama.cpp or transformers feeds the model that token, too."""
    file = tmp_path / "x.gguf"
    key, puts = b"tokenizer.ggml.add_bos_token" + struct.pack("<I", gguf.GGUFValueType.BOOL), b"\1"
    whole = tiny.gguf.read_bytes()
    place = whole.index(key) + len(key)
    file.write_bytes(whole[:place] + puts + whole[place + 1 :])
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "f"))
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": True}))
    message = (
        r"its tokenizer puts a beginning-of-sequence token before each text, .* does not: .* add_bos = false"
    )
    for number, checkpoint in enumerate((file, folder)):
        assert re.match(message, compared(tiny, checkpoint, tmp_path / f"unsaid {number}"))
        for add_bos in (True, False):
            assert compared(tiny, checkpoint, tmp_path / f"{add_bos} {number}", add_bos=add_bos) == ""


def test_a_broken_tokenizer_is_named_with_its_remedy(tiny: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "f"))
    (folder / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(AssetError, match=r"f/tokenizer\.json: transformers cannot read .*: fetch it again"):
        compared(tiny, folder, tmp_path / "a")


def test_another_splitting_of_a_gguf_is_named(tiny: TinyModel, tmp_path: Path) -> None:
    file = with_another_splitting(tiny.gguf, tmp_path / "x.gguf")
    assert "lines differ" in compared(tiny, file, tmp_path / "a")


def with_another_splitting(source: Path, target: Path) -> Path:
    """A copy of a GGUF file whose `tokenizer.ggml.pre` names another splitting."""
    target.write_bytes(source.read_bytes().replace(b"gpt-2", b"bloom", 1))
    return target


def test_code_of_a_checkpoint_is_not_run(tiny: TinyModel, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.safetensors, tmp_path / "f"))
    config = json.loads((folder / "config.json").read_bytes())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('was run')")
    for tokenizer in (True, False):
        with pytest.raises(AssetError, match=r"needs code that comes with it \(auto_map\), which is not run"):
            compare(
                tmp_path / "a", report=lambda *_: None, model=str(tiny.safetensors), checkpoint=str(folder),
                tokenizer=tokenizer, add_bos=None,
            )  # fmt: skip
