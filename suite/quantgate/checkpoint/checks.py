"""Read a safetensors folder's JSON files and headers, and refuse what cannot be measured: no weights, no torch.

A checkpoint that does not go with the scheme or the matrix is refused here, in the parent before anything is measured
and in the measuring process once more.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from quantgate.checkpoint.contents import weight_files
from quantgate.checkpoint.safetensors_header import Tensor, read_tensors
from quantgate.errors import AssetError, InputError

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
"""Keys of a configuration that say how many positions a model has."""
PARTS = ("vision_config", "audio_config", "text_config")
WITHOUT_DEFAULTS = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that have no special token but those that the files name."""
BITSANDBYTES = {
    "load_in_4bit": False,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
}
"""What of a bitsandbytes configuration makes two schemes different, with the library's defaults."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. Raises AssetError."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, OSError) as error:
        raise AssetError(f"{path}: is not a JSON file that can be read ({error}); fetch it again") from None
    return content if isinstance(content, dict) else {}


_tokenizer = cache(read_json)


def configurations(folder: Path) -> list[dict[str, Any]]:
    """The configuration of a model; after it, of one with further parts, that of the part which reads text."""
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    return [config, text] if isinstance(text, dict) else [config]


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of the language model."""
    return {key: value for part in configurations(folder) for key, value in part.items()}


def is_composite(folder: Path) -> bool:
    """Return whether a model sees or hears too, and reads text in a part of its own."""
    config = read_json(folder / "config.json")
    return any(isinstance(config.get(part), dict) for part in PARTS)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors that are loaded of a folder, by name. Raises AssetError, also for one that two shards hold: which of
    them a library loads depends on their order, whatever the index says."""
    tensors: dict[str, Tensor] = {}
    for file in weight_files(folder):
        held = read_tensors(file)
        if twice := sorted(tensors.keys() & held.keys()):
            raise AssetError(
                f"{folder}: {tensors[twice[0]].file.name} and {file.name} both hold {twice[0]}: one of them is of "
                "another checkpoint; fetch the checkpoint again into an empty folder"
            )
        tensors |= held
    return tensors


def check_no_adapter(folder: Path) -> None:
    """Raise InputError for a folder with a PEFT adapter, which would be left out in silence."""
    if (folder / "adapter_config.json").exists():
        raise InputError(
            f"{folder}/adapter_config.json: the folder holds an adapter, which is not applied here: merge it into the "
            "model (`merge_and_unload` of peft), save that, and name its folder"
        )


def quantization_of(folder: Path) -> dict[str, Any]:
    """The quantization that the weights of the folder already have; empty: none."""
    for part in configurations(folder):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict) and settings:
            return settings
    return {}


def check_quantization(folder: Path, cell: str, options: Mapping[str, Any]) -> None:
    """Raise InputError where the weights are already quantized to something else than a scheme's `options` say.

    cell: what asks for them, for the message.
    """
    stored = quantization_of(folder)
    if not stored or is_same_bitsandbytes(stored, options):
        return
    remedy = (
        "name the checkpoint that it was made from as `weights`, and this one in [models.NAME.checkpoints], where it "
        "is measured as it is"
    )
    if _is_bitsandbytes(stored):
        remedy += f" by a scheme of bitsandbytes that says the same: {_as_scheme(stored)}"
    raise InputError(
        f"{folder}/config.json: quantization_config: these weights are already quantized ({describe(stored)}), and "
        f"{cell} would measure that under its own name: {remedy}"
    )


def describe(stored: Mapping[str, Any]) -> str:
    """A quantization in words: `bitsandbytes, 4 bits, nf4`."""
    bits = quantization_bits(stored)
    parts = [
        str(stored.get("quant_method", "unknown method")),
        f"{bits} bits" if bits else "",
        str(stored.get("bnb_4bit_quant_type", "")) if stored.get("load_in_4bit") else "",
        "double quantization" if stored.get("bnb_4bit_use_double_quant") else "",
        str(stored.get("format") or stored.get("fmt") or ""),
    ]
    return ", ".join(part for part in parts if part)


def quantization_bits(stored: Mapping[str, Any]) -> Any:
    """Return the bits of the weights that a `quantization_config`, or a scheme's `quantization`, names; None: it names
    none."""
    if _is_bitsandbytes(stored):
        return 4 if stored.get("load_in_4bit") else 8
    for key in ("bits", "nbits", "w_bit", "weight_bits", "num_bits"):
        if stored.get(key):
            return stored[key]
    groups = stored.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        if isinstance(group, dict) and isinstance(group.get("weights"), dict):
            return group["weights"].get("num_bits")
    # Others have them in a name: `int4` (quanto), `Int8WeightOnlyConfig` (torchao), `mxfp4`; HQQ in a table of its own.
    text = json.dumps([stored.get(key) for key in ("weights", "quant_type", "quant_config", "quant_method")])
    named = re.search(r'"nbits": (\d)|(?:int|float)(\d)(?=")|(?:Int|Float)(\d)Weight|fp(\d)"', text)
    return int(next(filter(None, named.groups()))) if named else None


def _is_bitsandbytes(stored: Mapping[str, Any]) -> bool:
    return bool(stored.get("load_in_4bit") or stored.get("load_in_8bit"))


def is_same_bitsandbytes(stored: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint's `quantization_config` is what a scheme's `options` make with bitsandbytes. The keys
    of 4 bits say nothing of 8."""
    if not (_is_bitsandbytes(stored) and _is_bitsandbytes(options)):
        return False
    compared = BITSANDBYTES if options.get("load_in_4bit") else ("load_in_4bit", "load_in_8bit")
    return all((stored.get(k) or BITSANDBYTES[k]) == (options.get(k) or BITSANDBYTES[k]) for k in compared)


def _as_scheme(stored: Mapping[str, Any]) -> str:
    keys = BITSANDBYTES if stored.get("load_in_4bit") else ("load_in_8bit",)
    return ", ".join(f"{k} = {json.dumps(stored[k])}" for k in keys if stored.get(k))


def positions_of(config: Mapping[str, Any]) -> int | None:
    """How many positions a model was made for; None: its configuration names no limit, or positions that go on (ALiBi,
    recurrent models, a rotary base that grows with the text). YaRN multiplies those of the first training, which
    configurations often leave in `max_position_embeddings`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(rope, dict) and "dynamic" in (rope.get("rope_type"), rope.get("type")):
        return None
    attention = config.get("attn_config")
    if config.get("alibi") or (isinstance(attention, dict) and attention.get("alibi")):
        return None
    limits: list[int] = [
        config[key] for key in LIMITS if isinstance(config.get(key), int) and config[key] > 0
    ]
    if isinstance(rope, dict) and "yarn" in (rope.get("rope_type"), rope.get("type")) and limits:
        original, factor = rope.get("original_max_position_embeddings") or min(limits), rope.get("factor")
        if isinstance(original, int) and isinstance(factor, int | float):
            return max(min(limits), int(original * factor))
    return min(limits, default=None)


def puts_bos(folder: Path) -> bool | None:
    """Whether the tokenizer of the folder puts its beginning-of-sequence token before a text. None: it has no
    `tokenizer.json`."""
    before, token = put_before(folder), bos_token(folder)
    return None if before is None else token is not None and before[:1] == (token,)


def leaves_out_bos(folder: Path) -> bool:
    """Whether transformers puts no beginning-of-sequence token before a text, by the folder's tokenizer: with a
    `tokenizer.json` it goes by its template alone, without one by `add_bos_token`, where that is said."""
    path = folder / "tokenizer.json"
    if path.is_file():
        return bos_token(folder) not in _before_text(_tokenizer(path).get("post_processor"))[:1]
    return read_json(folder / "tokenizer_config.json").get("add_bos_token") is False


def put_before(folder: Path) -> tuple[str, ...] | None:
    """Return the special tokens that the tokenizer of the folder puts before a text: its configuration says so
    (`add_bos_token`), or the template in `tokenizer.json` does; of these, libraries go by one or the other. None: that
    file is not there."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    token = bos_token(folder)
    if token is not None and read_json(folder / "tokenizer_config.json").get("add_bos_token") is True:
        return (token,)
    return _before_text(_tokenizer(path).get("post_processor"))


def names_no_bos(folder: Path) -> bool:
    """Return whether the tokenizer has no beginning-of-sequence token for certain. A class of transformers for one
    family of models may have one by default."""
    if bos_token(folder) is not None:
        return False
    config = read_json(folder / "tokenizer_config.json")
    return "bos_token" in config or config.get("tokenizer_class") in WITHOUT_DEFAULTS


def bos_token(folder: Path) -> str | None:
    """The beginning-of-sequence token that the tokenizer's configuration names."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json(folder / name).get("bos_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    return None


def tokens_of(folder: Path) -> int | None:
    """How many ids the tokenizer gives a text: the largest and 1; None: there is no `tokenizer.json`. Special tokens do
    not count: some models have no row for one that they do not know (a picture's in Gemma 3 1B, a `[PAD]` added)."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = _tokenizer(path)
    added = [token for token in tokenizer.get("added_tokens") or () if "id" in token]
    special = {token.get("content") for token in added if token.get("special")}
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    numbered = (
        vocabulary.items() if isinstance(vocabulary, dict) else ((t[0], n) for n, t in enumerate(vocabulary))
    )
    ids = [*numbered, *((token.get("content"), token["id"]) for token in added)]
    return 1 + int(max((number for token, number in ids if token not in special), default=-1))


def _before_text(processor: Any) -> tuple[str, ...]:
    """Return the special tokens that a post-processor puts before a text: those of its template before the text."""
    if not isinstance(processor, dict):
        return ()
    if processor.get("type") == "Sequence":
        return tuple(t for one in processor.get("processors") or () for t in _before_text(one))
    if processor.get("type") != "TemplateProcessing":
        return ()
    specials = (part.get("SpecialToken") for part in processor.get("single") or ())
    return tuple(str(special["id"]) for special in itertools.takewhile(bool, specials))
