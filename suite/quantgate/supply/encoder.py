"""Encode texts by a model's tokenizer."""

from __future__ import annotations

import functools
import itertools
import os
import random
import string
from pathlib import Path
from typing import Any

from quantgate.checkpoint.checks import put_before
from quantgate.checkpoint.gguf_header import gguf_puts_bos, read_header
from quantgate.checkpoint.template import with_one_bos
from quantgate.errors import AssetError, InputError
from quantgate.files import hash_of, read_plain_text
from quantgate.items import Text
from quantgate.supply.chat import ends_of
from quantgate.supply.documents import load_rows, place_of
from quantgate.supply.fitness import check_bos
from quantgate.supply.lines import splitting_lines
from quantgate.supply.model_config import load_config
from quantgate.supply.rows import column_of
from quantgate.supply.splitting import tokenizer_of_gguf

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CUT = 8
"""Tokens before the end of a cut text that the cut may change."""


class Encoder:
    """Encodes texts by a model's tokenizer.

    source: a folder, or a GGUF file. add_bos: whether the beginning-of-sequence token is put before texts and contexts;
    None: the tokenizer has none, or does not put it. Raises AssetError, and InputError (naming `key`) if `add_bos`
    does not go with the tokenizer.
    """

    def __init__(self, source: Path, add_bos: bool | None, key: str = "add_bos") -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self.tokenizer = tokenizer_of_gguf(source) if source.is_file() else _tokenizer_of_folder(source)
        self.vocabulary = _ids_of_texts(self.tokenizer)
        bos, token = self.tokenizer.bos_token_id, self.tokenizer.bos_token
        if source.is_file():  # llama.cpp decides by the header
            before = [token] if token and gguf_puts_bos(read_header(source).values) else []
        else:
            before = self._put_before() or list(put_before(source) or ())
        check_bos(key, add_bos, before, token, source)
        self.puts_bos = bool(before)
        """Whether the tokenizer puts special tokens before a text by itself."""
        self.bos: int | None = bos if add_bos else None
        self._source = source

    @functools.cached_property
    def ends(self) -> list[int]:
        """The ids of the tokens that end an answer."""
        return ends_of(self._source, self.tokenizer)

    def _put_before(self) -> list[str]:
        """Return the special tokens that the tokenizer puts before a text by itself."""
        whole, plain = list(self.tokenizer("a")["input_ids"]), self.encode("a")
        begin = next(n for n in range(len(whole) + 1) if whole[n : n + len(plain)] == plain)
        return [str(token) for token in self.tokenizer.convert_ids_to_tokens(whole[:begin])]

    def encode(self, text: str) -> list[int]:
        """Return token ids without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def with_one_bos(self, ids: list[int]) -> list[int]:
        """Return the ids of a prompt with the beginning-of-sequence token that the model wants. Raises InputError for a
        template that puts two."""
        return with_one_bos(ids, self.tokenizer.bos_token_id, wanted=self.bos is not None)

    def text(self, name: str, spec: dict[str, Any]) -> Text:
        """Return the first `spec["tokens"]` tokens of a text. Raises InputError if it is too short."""
        needed = spec["tokens"]
        text = read_text(spec)
        encoded, content = self._beginning(text, needed)
        ids = list(encoded["input_ids"])[:needed]
        if len(ids) < needed:
            named = f"{name!r} ({spec['path']})" if "path" in spec else repr(name)
            raise InputError(
                f"text {named} has {len(ids)} tokens, the tier needs {needed}: lower `windows` or `n_ctx`, or name a "
                "longer text"
            )
        ends = [0, *itertools.accumulate(len(character.encode()) for character in content)]
        offsets = encoded["offset_mapping"]
        last = offsets[needed][0] if needed < len(offsets) else offsets[needed - 1][1]
        starts = [ends[begin] for begin, _ in offsets[:needed]] + [ends[last]]
        if self.bos is not None:  # only before the first window, as in llama.cpp's tools
            ids, starts = [self.bos, *ids[:-1]], [0, *starts[:-1]]
        return Text(ids=ids, starts=starts, bos=self.bos, hash=hash_of([self.bos, ids]))

    def _beginning(self, text: str, needed: int) -> tuple[Any, str]:
        """Return the encoding of as much of a text as has more than `needed` tokens, or of all, and that part. Where a
        text is cut, its last tokens are not those of the whole."""
        length = 16 * needed  # tokens of natural text have 3 to 5 characters
        while True:
            content = text[:length]
            encoded = self.tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)
            if length >= len(text) or len(encoded["input_ids"]) > needed + CUT:
                return encoded, content
            length *= 16


def _ids_of_texts(tokenizer: Any) -> int:
    """Return the largest id of a text without special tokens, and 1: a model may have no row for one of those."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return 1 + max({*tokenizer.get_vocab().values()} - special, default=-1)


def _tokenizer_of_folder(folder: Path) -> Any:
    import transformers

    load_config(folder)
    # Without any, classes of transformers 5 make an empty vocabulary.
    if not any(map(_is_vocabulary, folder.iterdir())):
        raise AssetError(
            f"{folder}: has no tokenizer (tokenizer.json, or tokenizer.model): copy it from where the weights come from"
        )
    try:
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
        if not _is_as_defined(tokenizer, folder / "tokenizer.json"):
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder, **options)
    except Exception as error:
        file = next(filter(Path.is_file, map(folder.joinpath, ("tokenizer.json", "tokenizer.model"))), folder)
        raise AssetError(
            f"{file}: transformers cannot read this tokenizer ({type(error).__name__}: {error}): fetch it again, from "
            "where the weights come from"
        ) from error
    return tokenizer


def _is_vocabulary(file: Path) -> bool:
    named = file.name in ("tokenizer.json", "tekken.json") or file.name.startswith(
        ("vocab", "tokenizer.model")
    )
    return named or file.suffix in (".model", ".tiktoken")


def _is_as_defined(tokenizer: Any, file: Path) -> bool:
    """Return whether a tokenizer makes the tokens that `tokenizer.json` defines. Of most classes transformers 5 takes
    the vocabulary and the merges alone, and the class's own normalizer and splitting, whatever the model's are: the
    tokenizer gate shows it in the cells of transformers."""
    import tokenizers
    import transformers

    if not file.is_file() or type(tokenizer) is transformers.PreTrainedTokenizerFast:
        return True
    defined = tokenizers.Tokenizer.from_file(str(file))
    defined.no_truncation()
    defined.no_padding()
    return all(
        tokenizer.encode(line, add_special_tokens=False) == defined.encode(line, add_special_tokens=False).ids
        for line in splitting_lines()
    )


def read_text(spec: dict[str, Any]) -> str:
    """Return a text: a plain file (`path`), random characters (`random`: the seed), or a joined column of rows. Raises
    InputError."""
    if "path" in spec:
        return read_plain_text(Path(spec["path"]))
    if "random" in spec:
        printable = string.digits + string.ascii_letters + string.punctuation + " "
        return "".join(random.Random(spec["random"]).choices(printable, k=spec["characters"]))  # noqa: S311
    values = column_of(load_rows(spec), spec["column"], place_of(spec))
    if spec.get("distinct"):
        values = list(dict.fromkeys(values))
    return str(spec.get("joiner", "\n\n")).join(values[spec.get("first", 0) :])
