"""What a checkpoint must be to be loaded as it is: anything else is one sentence, and the error of its cell."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from quantgate.checkpoint.nominal import commonest_type, file_type, nominal_bits
from quantgate.config.matrix import Cell
from quantgate.config.source import Checkpoint
from quantgate.errors import AssetError
from quantgate.machine.environment import Environment
from quantgate.processes.progress import ignore_progress
from quantgate.run.inputs import load_matrix
from quantgate.supply.as_is import AsIs
from quantgate.supply.maker import Maker
from quantgate.supply.sources import Sources
from safetensors.numpy import save

QUANTIZED: dict[str, object] = {"quantization_config": {"quant_method": "gptq", "bits": 4}}


def write_gguf(path: Path, ftype: int | None, kinds: list[str], split: tuple[int, int] | None = None) -> Path:
    """A GGUF file with one matrix of each type; ftype: its `general.file_type`."""
    writer = gguf.GGUFWriter(path, "llama")
    if ftype is not None:
        writer.add_file_type(ftype)
    if split is not None:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
    values = np.linspace(-1, 1, 32 * 64, dtype=np.float32).reshape(32, 64)
    for number, name in enumerate(kinds):
        kind = gguf.GGMLQuantizationType[name]
        data = gguf.quantize(values, kind)
        writer.add_tensor(f"blk.{number}.ffn_up.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(path: Path, config: dict[str, object] = QUANTIZED) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").write_bytes(save({"a.qweight": np.zeros(3, np.float32)}))
    return path


def cell(
    key: str, path: Path, bits: float = 0, sha256: str | dict[str, str] | None = None, **options: str
) -> Cell:
    backend, _, scheme = key.partition("/")
    return Cell(
        model="mine",
        backend=backend,
        scheme=scheme,
        bits=bits,
        scheme_options={"as_is": True, **options},
        checkpoint="gguf" if backend == "llamacpp" else "safetensors",
        reference="mine/llamacpp/F16",
        as_is=Checkpoint(path=path, sha256=sha256),
    )


def as_is(folder: Path) -> AsIs:
    maker = Maker(folder, 60.0, ignore_progress, Environment())
    return AsIs(folder / "m.toml", Sources(folder / "m.toml", None, maker), maker)


@pytest.mark.parametrize(
    ("ftype", "kinds", "name", "commonest", "bits"),
    [
        (15, ["Q4_0", "Q4_0", "Q8_0"], "Q4_K_M", "Q4_0", 4),
        (7 | 1024, ["Q8_0"], "Q8_0", "Q8_0", 8),
        (None, ["Q5_0", "Q8_0", "Q5_0"], "", "Q5_0", 5),
        (999, ["F16"], "", "F16", 16),
        (32, ["BF16"], "BF16", "BF16", 16),
        (7, ["Q4_0", "Q4_0", "Q8_0"], "", "Q4_0", 4),
        (1, ["Q4_0", "F16"], "", "Q4_0", 4),
        (15, ["F16", "F32"], "", "F16", 16),
        (15, ["F16", "F16", "Q4_0"], "Q4_K_M", "F16", 4),
        (10, ["Q5_0", "Q8_0"], "Q2_K", "Q5_0", 2),
        (2, ["Q8_0", "F16"], "Q4_0", "Q8_0", 4),
    ],
    ids=str,
)
def test_a_gguf_tells_its_type_and_bits(
    tmp_path: Path, ftype: int | None, kinds: list[str], name: str, commonest: str, bits: float
) -> None:
    """What the matrices contradict counts as not stated: fewer bits than stated, or none quantized. Rows that do not
    fit the blocks of a type have more bits, and embeddings may stay as they are."""
    file = write_gguf(tmp_path / "x.gguf", ftype, kinds)
    assert (file_type(file), commonest_type(file), nominal_bits(file)) == (name, commonest, bits)


def test_the_types_of_all_parts_count(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "x-00001-of-00002.gguf", None, ["F16"], (0, 2))
    write_gguf(tmp_path / "x-00002-of-00002.gguf", None, ["Q4_0", "Q4_0"], (1, 2))
    assert commonest_type(first) == "Q4_0"
    assert nominal_bits(first) == 4


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        (QUANTIZED, 4),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, 8),
        ({"quantization_config": {"quant_method": "quanto", "weights": "int4"}}, 4),
        ({"quantization_config": {"quant_method": "mxfp4"}}, 4),
        ({"quantization_config": {"quant_method": "fbgemm_fp8"}}, 8),
        (
            {"quantization_config": {"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}},
            8,
        ),
        (
            {"quantization_config": {"quant_config": {"weight_quant_params": {"nbits": 3}}}},
            3,
        ),
        ({"quantization_config": {"quant_method": "bitnet"}}, 0),
        ({"dtype": "bfloat16"}, 16),
        ({"torch_dtype": "float32"}, 32),
        ({}, 0),
    ],
)
def test_a_folder_tells_its_bits(tmp_path: Path, config: dict[str, object], bits: float) -> None:
    assert nominal_bits(write_folder(tmp_path / "f", config)) == bits


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')


def adapter_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


GGUF, FOLDER = "llamacpp/Q4_0", "transformers/gptq-int4"


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (GGUF, cut, r"is cut off: .*fetch it again"),
        (GGUF, Path.unlink, r"no such file or folder \(named by .*m\.toml\)"),
        (FOLDER, without_shard, r"no such file: a shard is missing; fetch the checkpoint again"),
        (FOLDER, lambda f: cut(f / "model.safetensors"), r"is cut off: .*fetch it again"),
        (FOLDER, lambda f: (f / "model.safetensors").unlink(), "holds a configuration without weights"),
        (FOLDER, adapter_alone, "holds an adapter without its model: merge it into the model first"),
        (
            FOLDER,
            lambda f: (f / "adapter_config.json").write_text("{}"),
            "the folder holds an adapter, which is not applied here: merge it",
        ),
        (FOLDER, pickled, "a format that is not loaded, as it can run code; convert them to safetensors"),
    ],
)
def test_what_is_broken_is_the_error_of_its_cell(
    tmp_path: Path, key: str, change: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x"
    path = write_gguf(path.with_suffix(".gguf"), 2, ["Q4_0"] * 20) if key == GGUF else write_folder(path)
    as_is(tmp_path).check(cell(key, path, bits=4))
    change(path)
    with pytest.raises(AssetError, match=message):
        as_is(tmp_path).check(cell(key, path, bits=4))


def test_a_checkpoint_of_another_kind_or_other_bits_is_refused(tmp_path: Path) -> None:
    file, folder = write_gguf(tmp_path / "x.gguf", 7, ["Q8_0"]), write_folder(tmp_path / "f")
    remedy = "name it under a scheme of its bits, or under one of your own with as_is = true and without bits"
    for checkpoint, message in (
        (cell(GGUF, folder), r"f: is a folder, and llamacpp loads a GGUF file"),
        (cell(FOLDER, file), r"x\.gguf: is a file, and transformers loads a folder with safetensors"),
        (
            cell(GGUF, file, bits=4),
            rf"x\.gguf: holds weights of 8 bits .*file_type: Q8_0\), and llamacpp/Q4_0 has 4: {remedy}",
        ),
        (cell("transformers/fp32", folder, bits=32), r"f: holds weights of 4 bits, .*/fp32 has 32"),
    ):
        with pytest.raises(AssetError, match=message):
            as_is(tmp_path).check(checkpoint)
    as_is(tmp_path).check(cell(GGUF, file, bits=8))
    halves = write_folder(tmp_path / "h", {"dtype": "bfloat16"})
    as_is(tmp_path).check(cell("transformers/fp32", halves, bits=32))


def test_a_gguf_of_another_type_than_its_schemes_is_refused(tmp_path: Path) -> None:
    """Of the same bits: it would be measured under another name."""
    file = write_gguf(tmp_path / "x.gguf", 15, ["Q4_0"])
    with pytest.raises(
        AssetError,
        match=r"x\.gguf: is in Q4_K_M \(general\.file_type\), and .*/Q4_0 in Q4_0: .* without ftype",
    ):
        as_is(tmp_path).check(cell(GGUF, file, bits=4, ftype="Q4_0"))
    as_is(tmp_path).check(cell(GGUF, file, bits=4, ftype="Q4_K_M"))


def test_checksums_are_held_against_the_files(tmp_path: Path) -> None:
    model = load_matrix().models["pocket-90k"]
    file, folder = write_gguf(tmp_path / "x.gguf", 2, ["Q4_0"]), write_folder(tmp_path / "f")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    for checkpoint, message in (
        (cell(GGUF, file, sha256="0" * 64), rf"x\.gguf has changed: its SHA-256 is {right}, not 0{{64}}"),
        (
            cell(FOLDER, folder, sha256="0" * 64),
            r'is one checksum, and 2 files are loaded: give checksums by name: \{ "config\.json"',
        ),
        (
            cell(FOLDER, folder, sha256={"a.json": "0" * 64}),
            r"a\.json: no such file is loaded; there are: config",
        ),
        (cell(FOLDER, folder, sha256={"config.json": "0" * 64}), r"config\.json has changed"),
    ):
        with pytest.raises(AssetError, match=message):
            as_is(tmp_path).checkpoint(checkpoint, model)


def test_the_identity_is_that_of_the_contents(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "x.gguf", 2, ["Q4_0"])
    before = as_is(tmp_path).identity(cell(GGUF, file))
    assert as_is(tmp_path).identity(cell(GGUF, Path(shutil.copy(file, tmp_path / "y.gguf")))) == before
    write_gguf(file, 2, ["Q4_0", "Q4_0"])
    assert as_is(tmp_path).identity(cell(GGUF, file)) != before
