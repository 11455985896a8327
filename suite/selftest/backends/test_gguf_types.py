"""llama.cpp loads a ready-made file of any type, whole or split: share, bytes and bits are those of its tensors."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from quantgate.backends.runtime import llamacpp
from quantgate.backends.runtime.gguf import LinearTensor, check_applied, linear_tensors, other_types
from quantgate.checkpoint.nominal import file_type, nominal_bits
from quantgate.errors import AssetError
from quantgate.supply.checkpoints import quantize_gguf

from selftest.supply.test_checkpoints import FIRST, copied
from selftest.tiny import TinyModel

AS_IS = {"device": "cpu", "as_is": True}


@pytest.mark.parametrize(
    ("ftype", "bits"),
    [
        ("F32", 32), ("F16", 16), ("BF16", 16), ("Q8_0", 8), ("Q5_1", 5), ("Q4_K_S", 4), ("IQ4_XS", 4),
        ("IQ3_S", 3), ("Q3_K_M", 3), ("Q2_K", 2), ("TQ2_0", 2), ("TQ1_0", 1),
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


def test_an_ftype_that_is_for_experts_is_refused_of_a_model_without_any(
    tiny: TinyModel, tmp_path: Path
) -> None:
    """All of it would be Q8_0, under the name of 4 bits."""
    file = tmp_path / "x.gguf"
    with pytest.raises(
        AssetError, match=r"ftype MXFP4_MOE: llama.cpp has made Q8_0 of .* \(MXFP4 is for experts"
    ):
        quantize_gguf(file, report=lambda *_: None, gguf=str(tiny.gguf), ftype="MXFP4_MOE", threads=1)
    assert not file.exists()


NAMES = {2: "q4_0", 6: "q5_0", 8: "q8_0", 11: "q3_K", 12: "q4_K", 14: "q6_K", 21: "iq3_s", 39: "mxfp4"}


def tensors(row: int, **counts: int) -> list[LinearTensor]:
    numbers = {name.upper(): number for number, name in NAMES.items()}
    return [LinearTensor(name, count, numbers[name.upper()], row) for name, count in counts.items()]


@pytest.mark.parametrize(
    ("made", "ftype", "says"),
    [
        (tensors(256, q4_K=60, q6_K=40), "Q4_K_M", ""),
        (
            tensors(576, q4_K=20, q5_0=60, q8_0=20),
            "Q4_K_M",
            "Q4_K_M is in other types for the most part: Q5_0 60 %, Q8_0 2",
        ),
        (
            tensors(576, q5_0=996, q8_0=4),
            "Q4_K_M",
            "Q4_K_M is in other types for the most part: Q5_0 100 %; llama.cpp takes them",
        ),
        (tensors(256, iq3_s=80, q4_K=20), "IQ3_M", ""),
        (
            [*tensors(576, q4_0=75), *tensors(1536, q3_K=25)],  # of the embedded model: none in its type
            "Q2_K",
            "Q2_K is in other types for the most part: Q4_0 75 %, Q3_K 25 %",
        ),
        (
            tensors(64, q4_0=100),
            "TQ1_0",
            "TQ1_0 is in other types for the most part: Q4_0 100 %; llama.cpp takes them",
        ),
        (tensors(256, q8_0=20, mxfp4=80), "MXFP4_MOE", ""),
        (tensors(256, q8_0=100), "F16", ""),
        (tensors(256, q8_0=100), "", ""),
    ],
)
def test_types_that_stand_in_for_the_schemes_are_said(
    made: list[LinearTensor], ftype: str, says: str
) -> None:
    assert other_types(made, ftype, NAMES).startswith(says)
    assert bool(other_types(made, ftype, NAMES)) == bool(says)
    if ftype:
        check_applied(made, ftype, NAMES)


def test_what_is_made_of_a_narrow_model_is_said(tiny: TinyModel, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    quantize_gguf(file, report=lambda *_: None, gguf=str(tiny.gguf), ftype="Q8_0", threads=1)
    weights = llamacpp.load(file, {"device": "cpu", "ftype": "Q4_K_M"}, 1).weights()
    assert weights.says.startswith("Q4_K_M is in other types for the most part: Q8_0 100 %")
    assert not llamacpp.load(file, {"device": "cpu", "ftype": "Q4_K_M", "as_is": True}, 1).weights().says


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
