"""Make GGUF files from safetensors, by llama.cpp's converter.

The converter comes from the source inside the pinned llama-cpp-python package (asset `llama.cpp` of assets.toml), with
the gguf library of the same source. It is shown the files alone that transformers would load, and runs no code of
theirs.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from quantgate.checkpoint.checks import read_json, tensors_of
from quantgate.checkpoint.contents import INDEX, contents, weight_files
from quantgate.checkpoint.heads import TIED, head_and_embeddings, is_one_of
from quantgate.checkpoint.safetensors_header import read_tensors
from quantgate.errors import AssetError
from quantgate.supply.checkpoints import Report, whole
from quantgate.supply.gguf_check import BY_HAND, check_computed, check_tokenizer
from quantgate.supply.gguf_config import computed_otherwise, with_old_names
from quantgate.supply.model_config import load_config

SCRIPT = "convert_hf_to_gguf"
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [GPT2],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT2],
}
"""Pre-tokenizers as tokenizer.json defines them, by llama.cpp's names. The converter recognizes a tokenizer by a hash
of the ids of one text, which it has of published vocabularies alone, not of one that a user trained."""


def gguf_from_safetensors(output: Path, *, report: Report, safetensors: str, converter: str) -> None:
    """Write an F32 GGUF of a folder with config, tokenizer and safetensors. converter: the folder of the asset.

    Raises AssetError: what the converter cannot do, in its own words; what it has made another model of.
    """
    folder = Path(safetensors)
    if difference := computed_otherwise(load_config(folder).get_text_config()):
        raise AssetError(
            f"{folder}: llama.cpp would compute another model than this: {difference}; leave its llamacpp cells out"
        )
    with whole(output, folder=False) as work:
        staged = work.with_name("model")
        stage(folder, staged)
        identified = convert(Path(converter), folder, staged, work)
        if identified:
            check_tokenizer(work, folder)
        report("compare GGUF", 0, 1)
        check_computed(work, folder)


def stage(folder: Path, staged: Path) -> None:
    """Make a folder of links to what loaders open of a checkpoint: the converter would take every `model*.safetensors`,
    and prefer an index to a single file."""
    files, shards = contents(folder), weight_files(folder)
    index = {}
    for name, file in files.items():
        target = name
        if file in shards:
            target = f"model-{shards.index(file) + 1:05d}-of-{len(shards):05d}.safetensors"
            index.update(dict.fromkeys(read_tensors(file), target))
        elif file.suffix == ".safetensors" or name in (INDEX, "config.json"):
            continue
        (staged / target).parent.mkdir(parents=True, exist_ok=True)
        if name == "tokenizer_config.json" and "chat_template.jinja" in files:
            # transformers takes the template of that file, and the converter the one in here.
            settings = read_json(file)
            settings.pop("chat_template", None)
            (staged / target).write_text(json.dumps(settings))
            continue
        (staged / target).symlink_to(file.absolute())
    (staged / INDEX).write_text(json.dumps({"weight_map": index}))
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    config.pop("auto_map", None)
    tied = _tied(folder)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            part[TIED] = tied
            if (part.get("pad_token_id") or 0) < 0:  # older versions wrote -1 for none
                del part["pad_token_id"]
    # Some converters read it as it lies.
    (staged / "config.json").write_text(json.dumps(with_old_names(config)))


def _tied(folder: Path) -> bool:
    """Return whether the head is the embedding, as transformers decides it: the configuration says so, and the files
    hold no head that differs. Raises AssetError for a head that is neither."""
    config, tensors = load_config(folder), tensors_of(folder)
    tied = any(getattr(part, TIED, False) for part in (config, config.get_text_config()))
    head, embeddings = head_and_embeddings(tensors)
    if head is None:
        if not tied:
            raise AssetError(
                f"{folder}: has no lm_head.weight, and config.json does not say that the head is the embedding "
                "(tie_word_embeddings); fetch the checkpoint again"
            )
        return True
    if not tied:
        return False
    if not any(part in name for name in tensors for part in ("emb", "wte")):
        raise AssetError(
            f"{folder}: holds the head alone of head and embeddings, which are the same (tie_word_embeddings), and "
            "llama.cpp's converter asks for the embeddings: load it by transformers, and save it again "
            "(`save_pretrained`)"
        )
    return is_one_of(tensors, head, embeddings)


def convert(converter: Path, folder: Path, staged: Path, output: Path) -> bool:
    """Run the converter on a staged folder. Returns whether the splitting of its tokenizer was identified by its
    definition, and has to be compared with the original's. folder: of the messages."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("hf-to-gguf")
    identified: list[str] = []
    arguments = [SCRIPT, str(staged), "--outfile", str(output), "--outtype", "f32"]
    with imported(converter) as script, mock.patch.object(sys, "argv", arguments):
        module = importlib.import_module("conversion.base")
        base, model_base = module.TextModel, module.ModelBase
        original = base.get_vocab_base_pre
        load_hparams = model_base.load_hparams

        def get_vocab_base_pre(model: Any, tokenizer: Any) -> str:
            try:
                return str(original(model, tokenizer))
            except NotImplementedError:
                name = splitting(staged / "tokenizer.json")
                if name is None:
                    raise
                identified.append(name)
                return name

        def hparams(*arguments: Any, **options: Any) -> dict[str, Any]:
            return with_old_names(load_hparams(*arguments, **options))

        logger.addHandler(handler)
        try:
            with (
                mock.patch.object(base, "get_vocab_base_pre", get_vocab_base_pre),
                mock.patch.object(model_base, "load_hparams", staticmethod(hparams)),
            ):
                script.main()
        except (Exception, SystemExit) as error:
            cause = _cause(error, lines, staged).replace(str(staged), str(folder))
            raise AssetError(f"{folder}: {cause}; {BY_HAND}") from error
        finally:
            logger.removeHandler(handler)
    return bool(identified)


def _cause(error: BaseException, lines: Sequence[str], staged: Path) -> str:
    """Say why the converter failed. lines: of its log."""
    hashes = [match[1] for line in lines if (match := re.search(r"chkhsh:\s*(\w+)", line))]
    if isinstance(error, NotImplementedError) and hashes:
        return (
            f"llama.cpp's converter does not know how its tokenizer splits a text (chkhsh {hashes[-1]}), and does not "
            "guess"
        )
    config = json.loads((staged / "config.json").read_bytes())
    architecture = (config.get("architectures") or ["its architecture"])[0]
    if isinstance(error, SystemExit) and lines:
        last = lines[-1]
    else:
        where = traceback.extract_tb(error.__traceback__)[-1].line
        last = f"{type(error).__name__}: {str(error) or where}"
        if "tokenizer.vocab" in last and "vocab_size" in last:
            last = "its tokenizer has a token that the embedding has no row for (vocab_size): remove it, or resize"
    return f"llama.cpp's converter cannot make a GGUF of {architecture}: {' '.join(last.split())}"


@contextmanager
def imported(converter: Path) -> Iterator[Any]:
    """The converter's script, with the gguf library of its own source, while the block runs; what it asks of
    transformers is local, and no code."""
    import transformers

    (script,) = converter.glob(f"*/vendor/llama.cpp/{SCRIPT}.py")
    parts = (SCRIPT, "conversion", "gguf")
    before = {n: m for n, m in sys.modules.items() if n.partition(".")[0] in parts}
    path = [str(script.parent), str(script.parent / "gguf-py"), *sys.path]
    config, tokenizer = transformers.AutoConfig, transformers.AutoTokenizer
    try:
        with (
            mock.patch.object(sys, "path", path),
            # Nothing is added to the asset, which is checked.
            mock.patch.object(sys, "dont_write_bytecode", True),
            mock.patch.dict(os.environ),
            mock.patch.object(config, "from_pretrained", _without_code(config.from_pretrained)),
            mock.patch.object(tokenizer, "from_pretrained", _without_code(tokenizer.from_pretrained)),
        ):
            os.environ.pop("NO_LOCAL_GGUF", None)
            for name in before:
                del sys.modules[name]
            yield importlib.import_module(SCRIPT)
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] in parts]:
            del sys.modules[name]
        sys.modules.update(before)


def _without_code(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def loaded(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "trust_remote_code": False, "local_files_only": True})

    return loaded


def splitting(tokenizer: Path) -> str | None:
    """Return llama.cpp's name of the splitting that a tokenizer.json defines; None: it is not in `PRE_TOKENIZERS`."""
    if not tokenizer.exists():
        return None
    table = json.loads(tokenizer.read_bytes())
    steps = table.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    for name, expected in PRE_TOKENIZERS.items():
        same = len(steps) == len(expected) and all(
            one.items() <= step.items() for one, step in zip(expected, steps, strict=True)
        )
        if same and table["model"]["type"] == "BPE" and not table.get("normalizer"):
            return name
    return None
