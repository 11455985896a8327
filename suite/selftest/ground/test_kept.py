"""What the cache keeps is held against checksums, and is bounded."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from quantgate.cache import kept
from quantgate.cache import prune as cache
from quantgate.cache.__main__ import main
from quantgate.cache.kept import damage, discard, entry_file, intact, keep, made
from quantgate.cache.prune import DAY, Thing, limit_bytes, remove, surplus, sweep, things
from quantgate.errors import InputError
from quantgate.locks import locked

from selftest.project import Project

F16 = "tiny/llamacpp/F16"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("QUANTGATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(root: Path, kind: str = "workloads", name: str = "a", age: float = 0.0, size: int = 100) -> Path:
    """A folder of two files, kept, last used `age` seconds ago."""
    path = root / kind / name
    (path / "deep").mkdir(parents=True)
    (path / "x.json").write_bytes(b"x" * (size - 10))
    (path / "deep" / "y.json").write_bytes(b"y" * 10)
    keep(path)
    os.utime(entry_file(path), (time.time() - age,) * 2)
    kept._checked.clear()  # as in another run
    return path


def same_time(file: Path, content: bytes) -> None:
    """Write other content and set the time of modification back."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


# --- checksums


def test_what_was_not_touched_is_intact(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert intact(make(root))
    assert not intact(root / "workloads" / "nothing")
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: same_time(p / "x.json", b"z" + b"x" * 89), "x.json has changed"),
        (lambda p: (p / "x.json").write_bytes(b"x" * 40), "x.json has 40 bytes, not 90"),
        (lambda p: (p / "deep/y.json").write_bytes(b""), "deep/y.json has 0 bytes, not 10"),
        (lambda p: (p / "deep/y.json").unlink(), "deep/y.json is missing"),
        (lambda p: (p / "more.safetensors").touch(), "more.safetensors was not there when it was made"),
        (lambda p: entry_file(p).unlink(), "has no checksums"),
        (lambda p: entry_file(p).write_bytes(b"["), "has no checksums"),
        (lambda p: as_file(p), "deep/y.json is missing"),
        (lambda p: shutil.rmtree(p / "deep"), "deep/y.json is missing"),
    ],
)
def test_a_change_is_named(
    root: Path, change: Callable[[Path], object], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = make(root)
    change(path)
    assert message in damage(path)
    assert not intact(path)
    assert not intact(path)
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: ")
    assert warning.endswith("; making it again")
    discard(path)
    assert not path.exists()
    assert not entry_file(path).exists()
    assert list(path.parent.iterdir()) == []


def test_a_large_file_is_hashed_where_its_time_is_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(root)
    monkeypatch.setattr(kept, "SMALL", 20)
    later = time.time() + 5
    os.utime(path / "x.json", (later, later))
    assert damage(path) == ""
    entry = json.loads(entry_file(path).read_bytes())
    assert entry["files"]["x.json"]["mtime_ns"] == (path / "x.json").stat().st_mtime_ns, (
        "not hashed next time"
    )
    kept._checked.clear()
    (path / "x.json").write_bytes(b"z" * 90)
    assert "x.json has changed" in damage(path)


def test_an_environment_is_compared_by_names_sizes_and_times(root: Path) -> None:
    path = make(root, "environments")
    keep(path, hashed=False)
    kept._checked.clear()
    (path / "__pycache__").mkdir()
    (path / "__pycache__" / "x.pyc").touch()
    assert damage(path) == ""
    kept._checked.clear()
    (path / "x.json").write_bytes(b"z" * 90)
    assert damage(path) == "files in it were changed, added or removed"


def test_a_changed_token_is_noticed_and_the_workload_made_anew(baselined: Project) -> None:
    cache_folder = baselined.take_cache(baselined.folder / "cache")
    # Other tests share the cache: what this project's own cell was given.
    job = json.loads((baselined.results / "smoke/tiny/llamacpp/F16~job.json").read_bytes())
    workload = cache_folder / "workloads" / Path(job["workload"]).name
    text = workload / "text-boolq.json"
    ids = json.loads(text.read_bytes())
    good = text.read_bytes()
    ids["ids"][5] ^= 1
    same_time(text, json.dumps(ids, separators=(",", ":")).encode()[: len(good)])
    checkpoint = cache_folder / "checkpoints" / Path(job["weights"]).name
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    result = baselined.run("-m", "perplexity", "-k", F16)
    assert result.status == 0, result.output
    assert f"{workload}: text-boolq.json " in result.output
    assert f"{checkpoint}: has 1,000 bytes, not " in result.output
    assert result.output.count("making it again") == 2
    assert text.read_bytes() == good


# --- the bound


def thing(name: str, size: int, used: float, kind: str = "checkpoints") -> Thing:
    return Thing(Path("/cache") / kind / name, size, used)


def names(listed: Iterable[Thing]) -> list[str]:
    return [one.path.name for one in listed]


def test_what_was_used_longest_ago_goes_first_and_no_more_than_has_to() -> None:
    listed = [thing("a", 5, 1), thing("b", 5, 2), thing("c", 5, 3)]
    assert [names(surplus(listed, limit, lambda _: False)) for limit in (15, 10, 9)] == [
        [],
        ["a"],
        ["a", "b"],
    ]


def test_what_is_old_goes_whatever_the_limit_and_counts_for_it() -> None:
    listed = [thing("a", 5, 1), thing("b", 5, 2), thing("c", 5, 3)]
    assert names(surplus(listed, 100, lambda one: one.path.name == "b")) == ["b"]
    assert names(surplus(listed, 10, lambda one: one.path.name == "a")) == ["a"]
    assert names(surplus(listed, 10, lambda one: one.path.name == "c")) == ["c"], "that is enough"


def test_log_probabilities_go_after_a_day_without_a_reader(root: Path) -> None:
    make(root, "logprobs", "old", 2 * DAY)
    stays = [make(root, "logprobs", "new", DAY / 2), make(root, name="other", age=2 * DAY)]
    assert names(cache.bound(time.time())) == ["old"]
    assert all(path.exists() for path in stays)


def test_a_run_bounds_the_cache_and_keeps_what_it_uses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, older, recent = make(root, name="old", age=3 * DAY), make(root, "hub", "older", 4 * DAY), make(root)
    monkeypatch.setenv("QUANTGATE_CACHE_LIMIT", "0.00000025")
    assert [t.path for t in cache.bound(time.time())] == [older]
    monkeypatch.setenv("QUANTGATE_CACHE_LIMIT", "0")
    with locked(root / "locks" / "old.lock", "make it"):
        pass
    assert [t.path for t in cache.bound(time.time())] == [old]
    assert [t.path for t in things(root)] == [recent]
    # Used three days ago by a run that began four days ago.
    mine = make(root, name="mine", age=3 * DAY)
    assert cache.bound(time.time() - 4 * DAY) == []
    assert mine.exists()


@pytest.mark.parametrize(
    ("kind", "name", "half"),
    [
        ("environments", "0123", "0123"),
        ("assets", "a-1.0-01-23", "a-1.0-01-23"),
        ("hub", "m-01", "m-01.partial"),
    ],
)
def test_what_is_being_made_stays(root: Path, kind: str, name: str, half: str) -> None:
    removed: list[Thing] = []

    def make_it() -> None:
        (root / kind / half).mkdir(parents=True)
        removed.extend(remove(things(root)))
        (root / kind / half).rename(root / kind / name)

    assert made(root / kind / name, "make it", make_it).exists()
    assert removed == []


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_CACHE_LIMIT", text)
    with pytest.raises(InputError, match="is not a number of gigabytes; write QUANTGATE_CACHE_LIMIT=50"):
        limit_bytes()


def test_what_a_killed_run_has_left_is_removed_but_not_what_is_being_made(root: Path) -> None:
    busy = root / "checkpoints" / ".m-Q4-abc.gguf.r4nd0m"
    young = root / "logprobs" / ".a-1.0.r4nd0m"
    leftovers = [
        *(root / kind / ".m-abc.r4nd0m" for kind in ("workloads", "tokenizers", "hub", "tools", "assets")),
        root / "tmp" / "asset",
        root / "environments" / "0123",
    ]
    for folder in (busy, young, *leftovers):
        folder.mkdir(parents=True)
        (folder / "half").touch()
    whole = [make(root), make(root, "environments")]
    with locked(root / "locks" / "m-Q4-abc.gguf.lock", "make it"):
        sweep(root)
    assert not any(folder.exists() for folder in leftovers)
    assert busy.exists()
    assert young.exists()
    assert [path.exists() for path in whole] == [True, True]
    os.utime(young, (time.time() - 2 * DAY,) * 2)
    sweep(root)
    assert not busy.exists()
    assert not young.exists()


def test_the_command_lists_and_removes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(root, name="new", size=2_000_000)
    make(root, name="old", age=40 * DAY, size=1_000_000)
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in listed[:2]] == ["workloads/old", "workloads/new"]
    assert listed[2] == f"0.003 GB in {root}"
    assert main(["--older-than", "30", "--dry-run"]) == 0
    assert "would be removed: 1, 0.001 GB" in capsys.readouterr().out
    assert len(things(root)) == 2
    assert main(["--older-than", "30"]) == 0
    assert [t.path.name for t in things(root)] == ["new"]
    assert main(["--max-size", "0.001"]) == 0
    assert things(root) == []
    assert main(["--max-size", "-1"]) == 4
