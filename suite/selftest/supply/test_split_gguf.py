"""GGUF files in parts, and headers without weights: in order and complete, or one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from quantgate.checkpoint.contents import contents
from quantgate.checkpoint.gguf_header import check_whole
from quantgate.errors import AssetError

from selftest.supply.test_contents import gguf_bytes, identity


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """The first part of a GGUF in three."""
    for number in range(3):
        part = tmp_path / f"x-{number + 1:05d}-of-00003.gguf"
        part.write_bytes(gguf_bytes({f"t{number}": [1.0, 2.0]}, {"split.no": number, "split.count": 3}))
    return tmp_path / "x-00001-of-00003.gguf"


def test_all_parts_of_a_split_gguf_are_its_identity(split: Path) -> None:
    before = identity(split)
    assert [f.name[2:7] for f in contents(split).values()] == ["00001", "00002", "00003"]
    part = split.with_name("x-00003-of-00003.gguf")
    part.write_bytes(gguf_bytes({"t2": [1.0, 3.0]}, {"split.no": 2, "split.count": 3}))
    assert identity(split) != before


def test_what_is_wrong_with_a_split_gguf(split: Path) -> None:
    second = split.with_name("x-00002-of-00003.gguf")
    with pytest.raises(
        AssetError, match=r"is part 2 of a split GGUF; name its first part, x-00001-of-00003.gguf"
    ):
        identity(second)
    whole = second.read_bytes()
    second.write_bytes(whole[:-28])
    with pytest.raises(
        AssetError, match=r"x-00002-of-00003.gguf: is cut off: t1 ends at byte \d+, the file at \d+"
    ):
        identity(split)
    second.unlink()
    with pytest.raises(AssetError, match=r"x-00002-of-00003.gguf: no such file: this part of the split GGUF"):
        identity(split)
    renamed = split.rename(split.with_name("model.gguf"))
    with pytest.raises(AssetError, match=r"model.gguf: is part 1 of a GGUF split into 3, which its name has"):
        identity(renamed)


def test_parts_in_another_order_than_their_names_say(split: Path) -> None:
    second, third = (split.with_name(f"x-0000{n}-of-00003.gguf") for n in (2, 3))
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    third.write_bytes(kept)
    with pytest.raises(
        AssetError, match=r"x-00002-of-00003.gguf: is part 3 of .* has to end with: NAME-00003-of-00003.gguf"
    ):
        identity(split)


def test_whole_files_with_names_of_parts(split: Path) -> None:
    """llama.cpp would load the first and leave the others out."""
    for part in contents(split).values():
        part.write_bytes(gguf_bytes({"t": [1.0]}, {}))
    with pytest.raises(
        AssetError, match=r"00001-of-00003.gguf: is a whole GGUF file with the name of a part"
    ):
        identity(split)


def test_parts_that_lack_tensors(split: Path) -> None:
    first = gguf_bytes({"t0": [1.0]}, {"split.no": 0, "split.count": 3, "split.tensors.count": 3})
    split.write_bytes(first)
    identity(split)
    last = split.with_name("x-00003-of-00003.gguf")
    last.write_bytes(gguf_bytes({}, {"split.no": 2, "split.count": 3}))
    with pytest.raises(AssetError, match="its parts hold 2 tensors together, and its header says 3; fetch"):
        contents(split)


def test_a_first_part_may_be_a_header_alone(split: Path) -> None:
    split.write_bytes(gguf_bytes({}, {"split.no": 0, "split.count": 3}))
    assert len(contents(split)) == 3


def test_a_header_without_tensors_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(gguf_bytes({}, {"a": 1}))
    with pytest.raises(
        AssetError, match=r"x.gguf: holds no tensors, at most a vocabulary; name the file with"
    ):
        identity(file)


def test_a_file_that_ends_before_its_data(tmp_path: Path) -> None:
    """The last tensor's entry is whole, and the padding after it is not."""
    file = tmp_path / "x.gguf"
    whole = gguf_bytes({"t": [1.0]}, {"a": 1})
    file.write_bytes(whole[: check_whole(_written(file, whole)).data - 1])
    with pytest.raises(AssetError, match=r"x.gguf: is cut off: t ends at byte \d+, the file at \d+; fetch"):
        identity(file)


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file
