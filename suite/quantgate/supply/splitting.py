"""The tokenizer of a GGUF file: as transformers reads it, with the splitting that the file names, and llama.cpp's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantgate.checkpoint.gguf_header import LLAMA_3, read_header
from quantgate.errors import AssetError
from quantgate.supply.lines import PLAIN_LINES

DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2")
"""Names (`tokenizer.ggml.pre`) of the splitting of GPT-2 with each digit alone, as in llama.cpp's `llama-vocab.cpp`."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
EXPRESSIONS = {
    **dict.fromkeys(("stablelm2", "hunyuan", "solar-open"), rf"{_WORDS}|\p{{N}}|{_REST}"),
    **dict.fromkeys(("chatglm-bpe", "glm4", "glm5"), rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"),
}
"""Splittings of llama.cpp that transformers has not by these names: those of Qwen 2 and of Llama 3."""
WHOLE_WORDS = (*LLAMA_3, "glm4", "glm5", "minicpm5", "youtu")
"""Names of vocabularies whose words are one token where they are in it, whatever the merges make of them."""


def tokenizer_of_gguf(source: Path) -> Any:
    """Return transformers' tokenizer of a GGUF file. Raises AssetError: it cannot read it, or reads another one than
    llama.cpp.

    The model may be of an architecture that transformers does not know, and what lies beside the file does not count:
    transformers would prefer a `tokenizer.json` there.
    """
    import transformers

    remedy = "name the model's original folder as its `weights`, which has the tokenizer"
    with tempfile.TemporaryDirectory(prefix="quantgate-") as alone:
        (Path(alone) / source.name).symlink_to(source.absolute())
        try:
            tokenizer: Any = transformers.PreTrainedTokenizerFast.from_pretrained(
                alone, gguf_file=source.name, local_files_only=True
            )
            restore_splitting(tokenizer, source)
        except Exception as error:
            raise AssetError(
                f"{source}: transformers cannot read its tokenizer ({type(error).__name__}: {error}): {remedy}"
            ) from error
    there = encoder_of_gguf(source)
    other = [line for line in PLAIN_LINES if tokenizer.encode(line, add_special_tokens=False) != there(line)]
    if other:
        name = read_header(source).values.get("tokenizer.ggml.pre", "none")
        raise AssetError(
            f"{source}: transformers makes other tokens than llama.cpp of {len(other)} of {len(PLAIN_LINES)} lines, of "
            f"{other[0]!r} for one (tokenizer.ggml.pre: {name}): {remedy}"
        )
    return tokenizer


def restore_splitting(tokenizer: Any, source: Path) -> None:
    """Give a tokenizer that transformers read from a GGUF file the splitting that the file names
    (`tokenizer.ggml.pre`), where transformers gives it that of GPT-2, and whole words. Any other name changes
    nothing. Of SentencePiece, a space before each text, also before one that begins with spaces."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    values = read_header(source).values
    name = values.get("tokenizer.ggml.pre")
    if values.get("tokenizer.ggml.model") == "llama" and values.get("tokenizer.ggml.add_space_prefix", True):
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        tokenizer.backend_tokenizer.pre_tokenizer = None
    if name in WHOLE_WORDS:
        tokenizer.backend_tokenizer.model.ignore_merges = True
    if name in EXPRESSIONS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(EXPRESSIONS[name]), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    if name in DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )


def encoder_of_gguf(path: Path) -> Callable[[str], list[int]]:
    """Return what encodes a text by llama.cpp, without special tokens. Raises AssetError."""
    return encoder_of(vocabulary_of_gguf(path))


def encoder_of(vocabulary: Any) -> Callable[[str], list[int]]:
    """Return the same of what `vocabulary_of_gguf` has read."""
    # The name of a special token stands for that token, as in the tokenizers of transformers.
    return lambda text: list(vocabulary.tokenize(text.encode(), add_bos=False, special=True))


def llamacpp_puts_bos(vocabulary: Any) -> bool:
    """Return whether llama.cpp puts a beginning-of-sequence token before a text by itself."""
    import llama_cpp

    return bool(llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(vocabulary.model)))


def vocabulary_of_gguf(path: Path) -> Any:
    """Return the vocabulary that llama.cpp reads, a `llama_cpp.Llama` without weights. Raises AssetError."""
    import llama_cpp

    from quantgate.backends.runtime.llama_log import listening

    with listening() as log:
        try:
            return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        except ValueError:
            raise AssetError(f"{path}: llama.cpp cannot read its vocabulary: {log.cause}") from None
