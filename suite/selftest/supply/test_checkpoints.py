"""Checkpoints that are made from a GGUF: all of it is in them, and an error says what llama.cpp said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from quantgate.errors import AssetError
from quantgate.supply.checkpoints import quantize_gguf
from quantgate.supply.dequantize import safetensors_from_gguf

from selftest.tiny import TinyModel

FIRST = "x-00001-of-00002.gguf"


def quiet(*_: object) -> None: ...


def copied(
    source: Path,
    target: Path,
    *,
    keep: Callable[[str], bool] = lambda name: True,
    edit: Callable[[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], object] = lambda *_: None,
    extra: dict[str, list[float]] | None = None,
    split: tuple[int, int] | None = None,
    architecture: str = "llama",
    scaling: str | None = None,
) -> None:
    """Write a GGUF file with the keys and (some) tensors of another one."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        writer.add_key_value(
            field.name,
            field.contents(),
            field.types[0],
            sub_type=field.types[-1] if len(field.types) > 1 else None,
        )
    if scaling is not None:
        writer.add_string("llama.rope.scaling.type", scaling)
        writer.add_float32("llama.rope.scaling.factor", 4.0)
    if split is not None:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
        writer.add_int32("split.tensors.count", len(reader.tensors))
    for tensor in filter(lambda t: keep(t.name), reader.tensors):
        data = np.array(tensor.data)
        edit(tensor.name, data)
        writer.add_tensor(tensor.name, data)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, np.array(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def split(tiny: TinyModel, tmp_path: Path) -> Path:
    """The first part of the tiny model in two files."""
    for number in (0, 1):
        part = tmp_path / FIRST.replace("00001", f"{number + 1:05d}")
        copied(tiny.gguf, part, keep=lambda n: n.startswith("blk.1") == bool(number), split=(number, 2))  # noqa: B023
    return tmp_path / FIRST


def test_a_split_gguf_is_dequantized_whole(tiny: TinyModel, split: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    safetensors_from_gguf(tmp_path / "made", report=quiet, gguf=str(split))
    made, ours = (load_file(f / "model.safetensors") for f in (tmp_path / "made", tiny.safetensors))
    assert made.keys() == ours.keys()
    assert all(np.array_equal(made[name], ours[name]) for name in ours)


def test_a_split_gguf_is_quantized_whole(tiny: TinyModel, split: Path, tmp_path: Path) -> None:
    for source, target in ((split, "a.gguf"), (tiny.gguf, "b.gguf")):
        quantize_gguf(tmp_path / target, report=quiet, gguf=str(source), ftype="Q4_0", threads=1)
    one, other = (gguf.GGUFReader(tmp_path / name) for name in ("a.gguf", "b.gguf"))
    ours = {t.name: t.data for t in one.tensors}
    assert len(ours) == len(other.tensors)
    assert all(np.array_equal(ours[t.name], t.data) for t in other.tensors)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"keep": lambda n: n != "blk.1.ffn_up.weight"},
            "it has no weights for model.layers.1.mlp.up_proj.weight",
        ),
        ({"extra": {"rope_freqs.weight": [1.0] * 32}}, r"the model [\d,]+, without rope_freqs.weight"),
        ({"scaling": "linear"}, r"its rotary positions are scaled \(linear\)"),
        ({"architecture": "lxama"}, "GGUF model with architecture lxama is not supported yet"),
    ],
)
def test_what_transformers_does_not_read_is_refused(
    tiny: TinyModel, tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    copied(tiny.gguf, tmp_path / "x.gguf", **change)  # type: ignore[arg-type]
    with pytest.raises(
        AssetError, match=rf"x.gguf: .*{problem}.*; name its original safetensors as `weights`"
    ):
        safetensors_from_gguf(tmp_path / "made", report=quiet, gguf=str(tmp_path / "x.gguf"))
    assert not (tmp_path / "made").exists()


def large(name: str, data: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    if name == "blk.0.ffn_down.weight":
        data[0, 0] = 1e5


@pytest.mark.parametrize(
    ("change", "ftype", "problem"),
    [
        (
            {"edit": large},
            "F16",
            r"tensor blk.0.ffn_down.weight: quantized data validation failed \(a value there is infinite",
        ),
        (
            {},
            "IQ2_XXS",
            r'this quantization requires an imatrix! \(give the scheme .*: imatrix = "wikipedia"\)',
        ),
        (
            {"architecture": "lxama"},
            "F16",
            r"unknown model architecture: 'lxama' \(this llama-cpp-python does not",
        ),
    ],
)
def test_the_cause_of_a_failure_is_llamas(
    tiny: TinyModel, tmp_path: Path, change: dict[str, object], ftype: str, problem: str
) -> None:
    copied(tiny.gguf, tmp_path / "x.gguf", **change)  # type: ignore[arg-type]
    with pytest.raises(AssetError, match=rf"x.gguf: cannot be quantized to {ftype}: {problem}") as caught:
        quantize_gguf(tmp_path / "y", report=quiet, gguf=str(tmp_path / "x.gguf"), ftype=ftype, threads=1)
    assert "cut off" not in str(caught.value)


def test_a_disk_that_is_full_is_named(tiny: TinyModel) -> None:
    import llama_cpp
    from quantgate.supply.checkpoints import rewrite

    params = llama_cpp.llama_model_quantize_default_params()
    with pytest.raises(
        AssetError, match=r"/dev: cannot be written \([\d,.]+ MB are free there\); .*QUANTGATE_CACHE"
    ):
        rewrite(tiny.gguf, Path("/dev/full"), params, "quantized")


def test_a_model_that_llamacpp_cannot_load_says_why(tiny: TinyModel, tmp_path: Path) -> None:
    from quantgate.backends.runtime.llamacpp import load
    from quantgate.errors import MeasurementError

    copied(tiny.gguf, tmp_path / "x.gguf", keep=lambda n: n != "blk.1.ffn_up.weight")
    with pytest.raises(MeasurementError, match=r"x.gguf: llama.cpp cannot load it: .*blk.1.ffn_up.weight"):
        load(tmp_path / "x.gguf", {"device": "cpu"}, 1)
