"""llama.cpp loads a ready-made file of any type, whole or split: share, bytes and bits are those of its tensors."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from quantgate.backends.runtime import llamacpp
from quantgate.backends.runtime.gguf import linear_tensors
from quantgate.checkpoint.nominal import file_type, nominal_bits
from quantgate.supply.checkpoints import quantize_gguf

from selftest.supply.test_checkpoints import FIRST, copied
from selftest.tiny import TinyModel

AS_IS = {"device": "cpu", "as_is": True}


@pytest.mark.parametrize(
    ("ftype", "bits"),
    [
        ("F32", 32), ("F16", 16), ("BF16", 16), ("Q8_0", 8), ("Q5_1", 5), ("Q4_K_S", 4), ("IQ4_XS", 4),
        ("IQ3_S", 3), ("Q3_K_M", 3), ("Q2_K", 2), ("TQ2_0", 2), ("TQ1_0", 1), ("MXFP4_MOE", 4),
    ],
)  # fmt: skip
def test_a_ready_made_file_of_any_type_is_what_its_tensors_say(
    tiny: TinyModel, tmp_path: Path, ftype: str, bits: float
) -> None:
    file = tmp_path / "x.gguf"
    quantize_gguf(file, report=lambda *_: None, gguf=str(tiny.gguf), ftype=ftype, threads=1)
    assert (file_type(file), nominal_bits(file)) == (ftype, bits)
    weights = llamacpp.load(file, AS_IS, 1).weights()
    tensors = gguf.GGUFReader(file).tensors
    assert weights.quantized_share == 1.0
    assert weights.bytes == sum(tensor.n_bytes for tensor in tensors)
    assert weights.parameters == sum(tensor.n_elements for tensor in tensors)
    assert weights.file_bytes == file.stat().st_size


def test_a_file_that_is_quantized_in_part_has_a_share(tiny: TinyModel, tmp_path: Path) -> None:
    """A mix of types, as `llama-quantize --tensor-type` makes them."""
    source, mix = tmp_path / "q.gguf", tmp_path / "mix.gguf"
    quantize_gguf(source, report=lambda *_: None, gguf=str(tiny.gguf), ftype="Q8_0", threads=1)
    tensors = {t.name: t for t in gguf.GGUFReader(source).tensors}
    kept = ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight")
    full = {t.name: t for t in gguf.GGUFReader(tiny.gguf).tensors}
    writer = gguf.GGUFWriter(mix, "llama")
    for field in gguf.GGUFReader(tiny.gguf).fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for name, tensor in tensors.items():
        chosen = full[name] if name in kept else tensor
        writer.add_tensor(name, chosen.data, raw_dtype=chosen.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights = llamacpp.load(mix, AS_IS, 1).weights()
    floats = sum(int(full[name].n_elements) for name in kept)
    assert weights.in_scheme == weights.linear - floats
    assert 0.5 < (weights.quantized_share or 0) < 0.9


def test_all_parts_of_a_split_file_count(tiny: TinyModel, tmp_path: Path) -> None:
    parts = [tmp_path / FIRST.replace("00001", f"{number + 1:05d}") for number in (0, 1)]
    for number, part in enumerate(parts):
        copied(tiny.gguf, part, keep=lambda n: n.startswith("blk.1") == bool(number), split=(number, 2))  # noqa: B023
    split, whole = (llamacpp.load(file, AS_IS, 1) for file in (parts[0], tiny.gguf))
    assert (split.weights().linear, split.weights().in_scheme) == (
        whole.weights().linear,
        whole.weights().linear,
    )
    assert split.weights().bytes == whole.weights().bytes
    assert split.weights().file_bytes == sum(part.stat().st_size for part in parts)
    assert len(linear_tensors(parts[0])) == len(linear_tensors(tiny.gguf))
