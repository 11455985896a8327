"""The files of a local checkpoint: which of them a loader can open, and whether they are whole. Opens no weights.

Links are followed: the cache of the hub consists of them, and whoever may make a link in the folder may put a file
there. What a *file* names (the shards of an index) has to lie in the folder, and to be safetensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from quantgate.checkpoint.gguf_header import check_whole
from quantgate.checkpoint.gguf_kinds import check_gguf_kind
from quantgate.checkpoint.safetensors_header import read_tensors
from quantgate.errors import AssetError
from quantgate.files import leaves_folder, lfs_problem
from quantgate.words import shortened

READ = (".safetensors", ".json", ".model", ".txt", ".jinja", ".tiktoken")
"""Suffixes of what loaders open: weights, configuration, tokenizer, templates."""
CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
"""Suffixes of weights in formats that can run code when loaded, or that are not loaded here."""
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMES_WEIGHTS = "transformers_weights"
"""The key of a configuration that names another file with weights."""
_RANK = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors$")
"""What a process of a distributed run saves."""
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def contents(path: Path) -> dict[str, Path]:
    """Every file of a checkpoint that a loader can open, by its name in the checkpoint: of a GGUF file, all its parts;
    of a folder, its weights, configuration, tokenizer and templates, in sub-folders too.

    Raises AssetError naming the file, what is wrong, and the remedy.
    """
    if path.suffix == ".safetensors":
        raise AssetError(f"{path}: is one file of a checkpoint; name its folder")
    if path.is_file():
        return {part.name: part for part in gguf_parts(path)}
    files = {str(f.relative_to(path)): f for f in _walk(path, set()) if f.suffix in READ}
    for shard in weight_files(path):
        files[str(shard.relative_to(path))] = shard
    if problem := next(filter(None, map(lfs_problem, files.values())), ""):
        raise AssetError(problem)
    return dict(sorted(files.items()))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that transformers loads of a folder, each of them whole: `model.safetensors`, or else what the
    index names. Raises AssetError."""
    if not folder.is_dir():
        raise AssetError(f"{folder}: is not a folder with safetensors; name a GGUF file as `gguf`")
    if (folder / SINGLE).is_file():
        shards = [folder / SINGLE]
    elif (folder / INDEX).is_file():
        shards = _indexed(folder / INDEX)
    else:
        raise AssetError(_why_no_weights(folder))
    if not (folder / "config.json").is_file():
        raise AssetError(f"{folder}/config.json: no such file; copy it from where the weights come from")
    _check_no_others(folder, shards[0])
    for shard in shards:
        read_tensors(shard)  # says what is wrong with it
    return shards


def gguf_parts(path: Path) -> list[Path]:
    """A GGUF file, or all parts of one that is split, each of them whole. path: the file, or the first part. Raises
    AssetError."""
    name = _PART.fullmatch(path.name)
    parts = [path]
    if name is not None:
        count = int(name["count"])
        parts = [
            path.with_name(f"{name['stem']}-{n:05d}-of-{name['count']}.gguf") for n in range(1, count + 1)
        ]
        if path != parts[0]:
            raise AssetError(
                f"{path}: is part {int(name['number'])} of a split GGUF; name its first part, {parts[0].name}"
            )
        for part in parts:
            if not part.is_file():
                raise AssetError(
                    f"{part}: no such file: this part of the split GGUF {path.name} is missing; copy all "
                    f"{count} parts into one folder"
                )
    headers = [check_whole(part) for part in parts]
    check_gguf_kind(path, headers[0].values)
    for number, (part, header) in enumerate(zip(parts, headers, strict=True)):
        placed = len(parts) == 1 or header.split_number == number
        if header.split_count == len(parts) and placed:
            continue
        if header.split_count == 1:
            raise AssetError(f"{part}: is a whole GGUF file with the name of a part: rename it to NAME.gguf")
        raise AssetError(
            f"{part}: is part {header.split_number + 1} of a GGUF split into {header.split_count}, which its "
            f"name has to end with: NAME-{header.split_number + 1:05d}-of-{header.split_count:05d}.gguf"
        )
    count = sum(len(header.tensors) for header in headers)
    if not count:
        raise AssetError(f"{path}: holds no tensors, at most a vocabulary; name the file with the weights")
    if (stated := headers[0].values.get("split.tensors.count", count)) != count:
        raise AssetError(
            f"{path}: its parts hold {count:,} tensors together, and its header says {stated:,}; fetch all "
            "parts again"
        )
    return parts


def parts_pattern(file: str) -> str:
    """What matches a GGUF file of a repository, with all parts of one that is split."""
    return re.sub(r"-\d{5}-of-(\d{5})\.gguf$", r"-*-of-\1.gguf", file)


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """All files below a folder, but for hidden ones (.git, .cache)."""
    real = folder.resolve()
    if real in seen:
        return  # a link to a folder above
    seen.add(real)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        elif entry.suffix in READ and not entry.is_file():
            raise AssetError(f"{entry}: is a link to a file that is not there; fetch it again")
        else:
            yield entry


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names."""
    shards: dict[str, Path] = {}
    for tensor, name in _weight_map(index).items():
        where = f"{index}: weight_map.{tensor}: {name!r}"
        if not isinstance(name, str) or PurePosixPath(name).suffix != ".safetensors":
            raise AssetError(
                f"{where} is not a safetensors file, and other formats can run code when loaded; convert the weights "
                f"to safetensors (`save_pretrained` of transformers)"
            )
        if leaves_folder(name):
            raise AssetError(f"{where} leaves the folder; put the shard into it, and name it relative to it")
        if name not in shards:
            shards[name] = index.parent / name
            if not shards[name].is_file():
                raise AssetError(f"{where}: no such file: a shard is missing; fetch the checkpoint again")
    return list(shards.values())


def _check_no_others(folder: Path, usual: Path) -> None:
    """Raise AssetError for weights that transformers would load in place of the usual files."""
    try:
        named = json.loads((folder / "config.json").read_bytes()).get(NAMES_WEIGHTS)
    except (ValueError, AttributeError, RecursionError):
        named = None  # whoever reads it says so
    if named is not None:
        raise AssetError(
            f"{folder}/config.json: {NAMES_WEIGHTS}: names {named!r} in place of {usual.name}: remove the key, and "
            f"call the weights that shall be loaded {SINGLE}, or add {INDEX}"
        )
    if sharded := sorted(f.name for f in folder.iterdir() if _RANK.match(f.name)):
        raise AssetError(
            f"{folder}: holds a checkpoint of several processes ({sharded[0]}), which transformers loads in place of "
            f"{usual.name}: put one of both into another folder"
        )


def _weight_map(index: Path) -> dict[str, Any]:
    try:
        table = json.loads(index.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AssetError(f"{index}: is not an index of safetensors ({error!r}); fetch it again") from None
    if not isinstance(table, dict) or not table:
        raise AssetError(f"{index}: weight_map: names no tensors; fetch it again")
    return table


def _why_no_weights(folder: Path) -> str:
    """What a folder without weights that can be loaded has instead."""
    others = sorted(f.name for f in folder.iterdir() if f.suffix in CODE)
    if others:
        return (
            f"{folder}: has its weights in {shortened(others, 1)}, a format that is not loaded, as it can run code; "
            f"convert them to safetensors (`save_pretrained` of transformers)"
        )
    named = sorted(f.name for f in folder.glob("*.safetensors"))
    if "adapter_model.safetensors" in named:
        return (
            f"{folder}: holds an adapter without its model: merge it into the model first (`merge_and_unload` of "
            "peft), save that, and name its folder"
        )
    if named:
        return (
            f"{folder}: has {named[0]}, but neither {SINGLE} nor {INDEX}, which transformers loads; rename the "
            f"file, or add the index"
        )
    if files := sorted(f.name for f in folder.glob("*.gguf")):
        return f"{folder}: holds no safetensors: name a GGUF file itself ({shortened(files, 4)}), in a matrix as `gguf`"
    if not any(folder.iterdir()):
        return f"{folder}: is an empty folder; fetch the checkpoint into it, or name another folder"
    if not (folder / "config.json").is_file():
        return (
            f"{folder}: holds no checkpoint: no config.json, no {SINGLE}, and no {INDEX}; name another folder"
        )
    return f"{folder}: holds a configuration without weights: no {SINGLE}, and no {INDEX}; fetch them, too"
