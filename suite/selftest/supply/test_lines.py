"""Lines that tokenizers are compared on: together they need every token that the tokenizer can give."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.errors import AssetError
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import HARD_LINES, make_lines, vocabulary_lines
from quantgate.supply.splitting import restore_splitting

from selftest.supply.copies import edit

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.tiny import TinyModel


def tokenizer_of(folder: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def without_merge(tokenizer: Any, number: int) -> Any:
    """The same tokenizer, which has lost one merge."""
    import tokenizers

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    del content["model"]["merges"][number]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def test_every_token_that_a_text_can_have_is_in_some_line(tiny: TinyModel) -> None:
    tokenizer = tokenizer_of(tiny.safetensors)
    seen = {i for line in vocabulary_lines(tokenizer) for i in tokenizer(line)["input_ids"]}
    whole = {
        number
        for number in tokenizer.get_vocab().values()
        if "\ufffd" not in (text := tokenizer.decode([number]))
        and tokenizer(text, add_special_tokens=False)["input_ids"] == [number]
    }
    assert len(whole) > 250
    assert whole - set(tokenizer.added_tokens_decoder) <= seen


@pytest.mark.parametrize("number", [0, -1, 100])
def test_a_lost_merge_shows_in_some_line(tiny: TinyModel, number: int) -> None:
    tokenizer = tokenizer_of(tiny.safetensors)
    lost = without_merge(tokenizer, number)
    lines = make_lines(tokenizer, [])
    assert any(lost.encode(line).ids != tokenizer(line)["input_ids"] for line in lines)


def test_lines_are_the_same_each_time_and_few(tiny: TinyModel) -> None:
    tokenizer = tokenizer_of(tiny.safetensors)
    lines = make_lines(tokenizer, ["a sample"])
    assert lines == make_lines(tokenizer, ["a sample"])
    assert set(HARD_LINES) <= set(lines)
    assert "a sample" in lines
    assert len(lines) < 300
    assert all(token.content in "".join(lines) for token in tokenizer.added_tokens_decoder.values())


def test_the_splitting_that_a_gguf_file_names_is_restored(tmp_path: Path, tiny: TinyModel) -> None:
    """transformers gives each byte-level BPE of a GGUF file the splitting of GPT-2."""
    import gguf

    def pieces(name: str) -> list[str]:
        """Of a text with a run of spaces before a digit, by the tokenizer of a file that names this splitting."""
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_tokenizer_pre(name)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        tokenizer = tokenizer_of(tiny.safetensors)
        restore_splitting(tokenizer, tmp_path / name)
        return [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")]

    assert pieces("smollm") == pieces("starcoder") == ["a", "ĠĠ", "1", "2"]
    assert pieces("unheard-of") == pieces("gpt-2") == ["a", "Ġ", "Ġ12"]


def test_a_tokenizer_is_what_its_file_defines_whatever_class_transformers_makes_it(folder: Path) -> None:
    """Of a `GPT2Tokenizer` it takes the vocabulary and merges of tokenizer.json alone, of a Qwen2 that is its own."""
    edit(folder / "tokenizer.json", normalizer={"type": "Lowercase"})
    defined = Encoder(folder, None).encode("In The Sun")
    edit(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert tokenizer_of(folder)("In The Sun")["input_ids"] != defined
    encoder = Encoder(folder, None)
    assert encoder.encode("In The Sun") == defined
    assert encoder.tokenizer.bos_token_id == 0


def test_a_folder_without_a_tokenizer_is_told(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    edit(folder / "config.json", model_type="qwen3")
    with pytest.raises(AssetError, match=r"copy: has no tokenizer \(tokenizer.json, .*: copy it from"):
        Encoder(folder, None)
