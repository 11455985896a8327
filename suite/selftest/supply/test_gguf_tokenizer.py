"""The tokenizer of a GGUF file that is all there is of a model: it is llama.cpp's, or the file is refused."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.checkpoint.gguf_header import gguf_puts_bos
from quantgate.errors import AssetError, InputError
from quantgate.supply.encoder import Encoder
from quantgate.supply.lines import splitting_lines
from quantgate.supply.splitting import encoder_of_gguf

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.tiny import TinyModel

SPACES = "in  12 or   3 lines"
"""A text with runs of spaces before digits, on which splittings differ."""


def vocabulary(path: Path, tiny: TinyModel, architecture: str, pre: str, without: str = "") -> Path:
    """A GGUF file with the tiny model's vocabulary and no weights, which says nothing of `add_bos_token`. without: the
    token whose merge is left out."""
    import gguf

    table = json.loads((tiny.safetensors / "tokenizer.json").read_bytes())
    ids: dict[str, int] = table["model"]["vocab"]
    special = {token["content"] for token in table["added_tokens"]}
    tokens = sorted(ids, key=lambda token: ids[token])
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    )
    merges = [pair for pair in table["model"]["merges"] if "".join(pair) != without]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("pre", ["refact", "llama-bpe", "glm4", "hunyuan"])
def test_the_architecture_need_not_be_one_that_transformers_knows(
    tmp_path: Path, tiny: TinyModel, pre: str
) -> None:
    file = vocabulary(tmp_path / "g.gguf", tiny, "granite", pre)
    ours, theirs = Encoder(file, add_bos=False), encoder_of_gguf(file)
    assert all(ours.encode(text) == theirs(text) for text in [SPACES, *splitting_lines()])


def test_words_of_llama_3_are_one_token_whatever_the_merges(tmp_path: Path, tiny: TinyModel) -> None:
    file = vocabulary(tmp_path / "g.gguf", tiny, "llama", "llama-bpe", without="Ġthe")
    ids = Encoder(file, add_bos=False).encode("in the sun")
    assert ids == encoder_of_gguf(file)("in the sun")
    assert ids != encoder_of_gguf(vocabulary(tmp_path / "o.gguf", tiny, "llama", "gpt-2", "Ġthe"))(
        "in the sun"
    )


def test_sentencepiece_puts_a_space_before_spaces_too(tmp_path: Path) -> None:
    """As in files of Llama 2."""
    import gguf

    plain = ["\u2581", "a", "b", "\u2581a", "\u2581b", "\u2581\u2581"]
    special = ["<unk>", "<s>", "</s>"]
    of_bytes = [f"<0x{n:02X}>" for n in range(256)]
    writer = gguf.GGUFWriter(tmp_path / "s.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*special, *of_bytes, *plain])
    writer.add_token_scores([0.0] * 259 + [-float(n) for n in range(len(plain))])
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(plain)]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    ours, theirs = Encoder(tmp_path / "s.gguf", add_bos=True), encoder_of_gguf(tmp_path / "s.gguf")
    for text in ("a b", "  a b", "   ", "a <s> b</s>a", "\n a"):
        assert ours.encode(text) == theirs(text), text


def test_what_lies_beside_the_file_does_not_count(tmp_path: Path, tiny: TinyModel) -> None:
    file = vocabulary(tmp_path / "g.gguf", tiny, "llama", "refact")
    before = Encoder(file, add_bos=False).encode(SPACES)
    for other in tiny.safetensors.glob("*.json"):
        shutil.copy(other, tmp_path)
    assert Encoder(file, add_bos=False).encode(SPACES) == before


def test_a_splitting_that_transformers_lacks_is_refused(tmp_path: Path, tiny: TinyModel) -> None:
    file = vocabulary(tmp_path / "g.gguf", tiny, "llama", "deepseek-llm")
    message = r"other tokens than llama\.cpp of \d+ of \d+ lines, .*deepseek-llm.*name the model's original"
    with pytest.raises(AssetError, match=message):
        Encoder(file, add_bos=False)


@pytest.mark.parametrize("pre", ["llama-bpe", "tekken"])
def test_llamacpp_puts_the_bos_of_some_vocabularies_unless_the_file_says_no(
    tmp_path: Path, tiny: TinyModel, pre: str
) -> None:
    """As in files of Llama 3 that were made before 2025."""
    import llama_cpp

    file = vocabulary(tmp_path / "g.gguf", tiny, "llama", pre)
    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    assert llama_cpp.llama_vocab_get_add_bos(model._model.vocab)
    with pytest.raises(InputError, match="k: is missing"):
        Encoder(file, None, "k")


@pytest.mark.parametrize(
    ("values", "puts"),
    [
        ({"model": "gpt2", "pre": "llama-bpe"}, True),
        ({"model": "gpt2", "pre": "llama-bpe", "add_bos_token": False}, False),
        ({"model": "gpt2", "pre": "qwen2"}, False),
        ({"model": "llama"}, True),
        ({"model": "gemma4", "pre": "gemma4", "add_bos_token": False}, True),
    ],
)
def test_what_a_header_says_of_the_bos(values: dict[str, Any], puts: bool) -> None:
    header = {f"tokenizer.ggml.{key}": value for key, value in {**values, "bos_token_id": 0}.items()}
    assert gguf_puts_bos(header) is puts
