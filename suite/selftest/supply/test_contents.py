"""Local checkpoints: all that a loader can open is part of their identity, and what is wrong with one is named."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from quantgate.checkpoint.gguf_header import check_whole
from quantgate.config.source import Source
from quantgate.errors import AssetError
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources
from safetensors.numpy import save


def safetensors_bytes(name: str, values: list[float]) -> bytes:
    return bytes(save({name: np.array(values, dtype=np.float32)}))


def gguf_bytes(tensors: dict[str, list[float]], values: dict[str, int]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, value in values.items():
            writer.add_uint16(key, value)
        writer.add_array("words", ["a", "bc"])
        writer.add_array("numbers", [1, 2, 3])
        for name, data in tensors.items():
            writer.add_tensor(name, np.array(data, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


SHARDS = ["a.safetensors", "sub/b.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in two shards, one of them in a sub-folder."""
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    for number, shard in enumerate(SHARDS):
        (root / shard).write_bytes(safetensors_bytes(f"t{number}", [number, 1.0]))
    for name in ("config.json", "tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"):
        (root / name).write_text("{}")
    (root / "chat_template.jinja").write_text("{{ x }}")
    write_index(root, {f"t{n}": shard for n, shard in enumerate(SHARDS)})
    return root


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def identity(path: Path) -> object:
    """As a new run finds it."""
    maker = Maker(path.parent, 60.0, ignore_progress, Environment())
    sources = Sources(path.parent / "matrix.toml", None, maker)
    return sources.identity(Source(path=path))


@pytest.mark.parametrize("name", ["a.safetensors", "tokenizer.json", "tokenizer.model", "x.gguf"])
def test_what_git_lfs_has_not_fetched_is_named(folder: Path, name: str) -> None:
    file = folder / name
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132735\n")
    with pytest.raises(AssetError, match=rf"{name}: is a pointer of Git LFS.*`git lfs pull`"):
        identity(file if file.suffix == ".gguf" else folder)


@pytest.mark.parametrize(
    "name",
    [*SHARDS, "config.json", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja"],
)
def test_each_file_that_is_read_is_part_of_the_identity(folder: Path, name: str) -> None:
    before = identity(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    assert identity(folder) != before


def test_a_file_that_is_added_changes_the_identity_and_one_that_nothing_reads_does_not(folder: Path) -> None:
    before = identity(folder)
    (folder / "README.md").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    assert identity(folder) == before
    (folder / "sub" / "chat.jinja").write_text("x")
    assert identity(folder) != before


def test_a_copy_elsewhere_is_the_same_checkpoint(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    folder.rename(copy)
    before = identity(copy)
    copy.rename(folder)
    assert identity(folder) == before


def test_links_that_somebody_made_are_followed(folder: Path, tmp_path: Path) -> None:
    """As in the cache of the hub."""
    before = identity(folder)
    blob = tmp_path / "blob"
    (folder / SHARDS[1]).rename(blob)
    (folder / SHARDS[1]).symlink_to(blob)
    assert identity(folder) == before
    (folder / "sub" / "up").symlink_to(folder)
    assert identity(folder) == before
    blob.unlink()
    with pytest.raises(AssetError, match=r"b.safetensors: is a link to a file that is not there; fetch it"):
        identity(folder)


@pytest.mark.parametrize(
    ("shard", "problem"),
    [
        ("w.bin", r"'w.bin' is not a safetensors file, and other formats can run code when loaded; convert"),
        ("../w.safetensors", r"'../w.safetensors' leaves the folder; put the shard into it"),
        ("sub/../../w.safetensors", r"leaves the folder"),
        ("/tmp/w.safetensors", r"leaves the folder"),
        ("..\\w.safetensors", r"leaves the folder"),
        ("c.safetensors", r"'c.safetensors': no such file: a shard is missing; fetch the checkpoint again"),
        (7, r"7 is not a safetensors file"),
    ],
)
def test_what_an_index_may_not_name(folder: Path, shard: object, problem: str) -> None:
    for name in ("w.bin", "../w.bin", "../w.safetensors"):
        (folder / name).write_bytes(safetensors_bytes("t9", [1.0]))
    write_index(folder, {"t0": SHARDS[0], "t9": shard})
    with pytest.raises(AssetError, match=rf"model.safetensors.index.json: weight_map.t9: .*{problem}"):
        identity(folder)


def drop_weights(folder: Path) -> None:
    for file in [*folder.rglob("*.safetensors"), folder / "model.safetensors.index.json"]:
        file.unlink()


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def leave_pickles(folder: Path) -> None:
    drop_weights(folder)
    for number in (1, 2):
        (folder / f"pytorch_model-{number}.bin").write_bytes(b"\x80")


def leave_an_adapter(folder: Path) -> None:
    drop_weights(folder)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes("t", [1.0]))


def cut(folder: Path) -> None:
    data = (folder / SHARDS[0]).read_bytes()
    (folder / SHARDS[0]).write_bytes(data[:-3])


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (drop_weights, r"holds a configuration without weights: no .*; fetch them, too"),
        (emptied, "model: is an empty folder; fetch the checkpoint into it"),
        (
            lambda f: (emptied(f) / "README.md").write_text("x"),
            r"model: holds no checkpoint: no config\.json, no model\.safetensors, .*; name another folder",
        ),
        (leave_pickles, "has its weights in pytorch_model-1.bin and 1 more, a format that is not loaded"),
        (leave_an_adapter, "holds an adapter without its model: merge it into the model first"),
        (cut, r"a.safetensors: is cut off: its header needs \d+ bytes, the file has \d+; fetch it again"),
        (
            lambda f: (f / SHARDS[0]).write_bytes(b"junk" * 4),
            "a.safetensors: is cut off: 16 bytes, not even its",
        ),
        (
            lambda f: (f / SHARDS[0]).write_bytes(b"\x02" + b"\0" * 7 + b"[]"),
            "a.safetensors: is not a safetensors",
        ),
        (lambda f: (f / "config.json").unlink(), "config.json: no such file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{"), "is not an index of safetensors"),
        (lambda f: write_index(f, {}), "weight_map: names no tensors"),
        (
            lambda f: (f / "config.json").write_text('{"transformers_weights": "other.safetensors"}'),
            r"config\.json: transformers_weights: names 'other\.safetensors' in place of .*: remove the key",
        ),
        (
            lambda f: (f / "shard-00000-model-00001-of-00001.safetensors").write_bytes(b""),
            r"model: holds a checkpoint of several processes \(shard-00000-model-.*another folder",
        ),
    ],
)
def test_what_is_wrong_with_a_folder(folder: Path, edit: Callable[[Path], object], problem: str) -> None:
    edit(folder)
    with pytest.raises(AssetError, match=problem):
        identity(folder)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is cut off or damaged: its 0 bytes end within its header"),
        (b"PK\x03\x04", r"is not a GGUF file that can be read here: it begins with b'PK\\x03\\x04'"),
        (
            gguf_bytes({"t": [1.0]}, {"a": 1})[:40],
            "is cut off or damaged: its 40 bytes end within its header",
        ),
        (b"GGUF\x00\x00\x00\x03" + b"\0" * 16, "its version is 50331648"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 16, "is cut off or damaged"),
    ],
)
def test_a_gguf_that_is_none(tmp_path: Path, data: bytes, problem: str) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(data)
    with pytest.raises(AssetError, match=problem):
        check_whole(file)


def test_a_header_says_what_the_library_says(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(gguf_bytes({"t": [1.0, 2.0, 3.0], "u": [4.0]}, {"n": 7}))
    header, reader = check_whole(file), gguf.GGUFReader(file)
    assert header.data == reader.data_offset
    assert {n: t[0] for n, t in header.tensors.items()} == {t.name: tuple(t.shape) for t in reader.tensors}
    assert header.values == {"general.architecture": "llama", "n": 7}


def test_a_file_of_a_checkpoint_is_no_checkpoint(folder: Path) -> None:
    with pytest.raises(AssetError, match=r"a.safetensors: is one file of a checkpoint; name its folder"):
        identity(folder / SHARDS[0])
