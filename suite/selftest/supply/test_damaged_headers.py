"""Headers and configurations that are damaged on purpose: one sentence each, and nothing hangs."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from quantgate.checkpoint.gguf_header import read_header
from quantgate.checkpoint.nominal import nominal_bits
from quantgate.errors import AssetError

STRING, ARRAY, INT32 = 8, 9, 5


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(key: str, kind: int, value: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text(key) + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            _value("general.alignment", STRING, _text("x")),
            "its general.alignment is 'x', which is not a count",
        ),
        (_value("split.count", STRING, _text("two")), "its split.count is 'two', which is not a count"),
        (_value("split.no", INT32, struct.pack("<i", -3)), "its split.no is -3, which is not a count"),
        # A loop over as many strings as the file promises would not end in a year.
        (_value("tokens", ARRAY, struct.pack("<IQ", STRING, 1 << 60)), "bytes end within its header"),
        (_value("deep", ARRAY, struct.pack("<IQ", ARRAY, 1) * 3000), "bytes end within its header"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: bytes, message: str) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(header)
    with pytest.raises(AssetError) as caught:
        read_header(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("bits", "expected"), [(4, 4), ("4", 4), ("four", 0), ([4], 0), ({"w": 4}, 0), (-4, 0), (float("nan"), 0)]
)
def test_bits_of_a_configuration(tmp_path: Path, bits: object, expected: float) -> None:
    config = {"text_config": "none", "quantization_config": {"quant_method": "gptq", "bits": bits}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert nominal_bits(tmp_path) == expected


def test_a_part_of_a_configuration_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": "none", "dtype": "float32"}))
    assert nominal_bits(tmp_path) == 32
