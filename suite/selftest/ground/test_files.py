"""Plain text of the user's own: what is read, and what is refused with the place that is wrong."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest
from quantgate.errors import InputError
from quantgate.files import read_plain_text

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "One line.\r\nAnother: naïve café.\n"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a mark"])
def test_text_is_read_as_it_is_without_its_mark(tmp_path: Path, mark: bytes) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(mark + TEXT.encode())
    assert read_plain_text(file) == TEXT


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            b"one\ncaf\xe9 au lait",
            r"is not UTF-8: byte 0xe9 at offset 7 \(line 2\): if it is Latin-1, convert it by `iconv -f LATIN1 .*text",
        ),
        (b"\xef\xbb\xbfcaf\xe9", r"byte 0xe9 at offset 6 \(line 1\)"),
        (TEXT.encode("utf-16"), r"is UTF-16, .*at offset 0\): convert it by `iconv -f UTF-16 "),
        (TEXT.encode("utf-32"), r"is UTF-32, not UTF-8 \(byte order mark at offset 0\)"),
        (TEXT.encode("utf-16-le"), "NUL byte at offset 1: .*iconv -f UTF-16LE"),
        (b"some\x00text", "NUL byte at offset 4"),
        (
            gzip.compress(b"text"),
            "text.txt: is packed by gzip: unpack it by `gunzip -c .*text.txt > .*text.txt.txt`",
        ),
        (b"\xed\xa0\x80", "byte 0xed at offset 0"),  # half of a surrogate pair
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
    ],
)
def test_what_is_no_plain_text_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(raw)
    with pytest.raises(InputError, match=message) as caught:
        read_plain_text(file)
    assert str(caught.value).startswith(f"{file}: ")
