"""A damaged baseline is named by file, key and remedy."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from quantgate.baselines.git import ignored
from quantgate.baselines.store import baseline_path, read
from quantgate.errors import InputError
from quantgate.records import FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable

from selftest.baselines.accepted import CELL, TIER, WEIGHT_BYTES, measured, perplexity, replaced, update

DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "not toml": (replaced("value = ", "value ="[:-1]), r"smoke\.toml: corrupted: .*line \d+"),
    "not utf-8": (lambda s, r: s.write_bytes(b"\xff"), r"smoke\.toml: corrupted: "),
    "wrong key": (
        replaced("stderr = ", "sterr = "),
        r"smoke\.toml: metrics\.perplexity\.sterr: unknown key.*Did you mean 'stderr'",
    ),
    "wrong type": (replaced("value = 24.8", 'value = "much"'), r"smoke\.toml: metrics\.perplexity\.value: "),
    "missing key": (replaced('reason = "first"\n', ""), r"smoke\.toml: reason: "),
    "format 0": (replaced(f"format = {FORMAT}", "format = 0"), r"smoke\.toml: format: "),
    "copied cell": (
        replaced('Q4_K_M"', 'Q2_K"'),
        r"smoke\.toml: cell is '.*Q2_K', but the file's place .*Q4_K_M",
    ),
    "other raw file": (
        replaced('file = "smoke.', 'file = "../smoke.'),
        r"smoke\.toml: raw\.file: '\.\./smoke",
    ),
    "unknown origin": (
        replaced('kind = "exact"', 'kind = "exact", earlier = "x"'),
        r"smoke\.toml: metrics.memory/weight_bytes.earlier: there is no \[earlier\.x\]",
    ),
    "unknown conditions": (
        replaced('conditions = "perplexity"', 'conditions = "x"'),
        r"smoke\.toml: metrics\.perplexity\.conditions: 'x' is not in \[conditions\]",
    ),
    "conditions in place": (
        replaced('conditions = "perplexity"', "conditions = { n_ctx = 512 }"),
        r"smoke\.toml: metrics\.perplexity\.conditions: must be text in quotes, not a table",
    ),
    "a condition that is a list": (
        replaced("n_ctx = 512", "n_ctx = [512]"),
        r"smoke\.toml: conditions\.perplexity\.n_ctx",
    ),
    "samples in the summary": (
        replaced('kind = "exact"', 'kind = "exact", samples = [1.0]'),
        r"smoke\.toml: metrics\.\"memory/weight_bytes\"\.samples: unknown key",
    ),
    "raw missing": (
        lambda s, r: r.unlink(),
        r"smoke\.[0-9a-f]{12}\.json: cannot be read .*raw\.file of smoke\.toml \(does a \.gitignore",
    ),
    "raw truncated": (
        lambda s, r: r.write_bytes(r.read_bytes()[:-20]),
        r"smoke\.[0-9a-f]{12}\.json: truncated or changed: .*raw\.sha256 of smoke\.toml",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_baseline_says_file_key_and_remedy(tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    summary, raw = update(tmp_path, measured())
    damage(summary, raw)
    with pytest.raises(InputError) as caught:
        read(tmp_path, CELL, TIER)
    assert re.search(message, str(caught.value))
    named = str(caught.value).split(": ")[0]
    assert f"git checkout -- {named}`, or delete it and update again" in str(caught.value)


@pytest.mark.parametrize("file", [0, 1], ids=["summary", "raw file"])
def test_a_file_with_both_sides_of_a_merge_is_to_be_one_of_them(tmp_path: Path, file: int) -> None:
    path = update(tmp_path, measured())[file]
    text = path.read_text()
    path.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path, CELL, TIER)
    assert f"git checkout HEAD -- {path.parent}`, or MERGE_HEAD, or delete it" in str(caught.value)


def test_a_raw_file_that_git_lfs_has_not_fetched(tmp_path: Path) -> None:
    raw = update(tmp_path, measured())[1]
    raw.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"\.json: is a pointer of Git LFS, .*`git lfs pull`$"):
        read(tmp_path, CELL, TIER)


def test_line_ends_that_git_converted_are_no_damage(tmp_path: Path) -> None:
    """`core.autocrlf = true`, of which a repository's .gitattributes may know nothing."""
    files = update(tmp_path, measured())
    before = read(tmp_path, CELL, TIER)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    after = read(tmp_path, CELL, TIER)
    assert before is not None
    assert after is not None
    assert after.model_dump(exclude={"digests"}) == before.model_dump(exclude={"digests"})


def test_files_that_git_ignores_are_named(tmp_path: Path) -> None:
    files = update(tmp_path, measured())
    assert ignored(tmp_path, files) == [], "no repository"
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert ignored(tmp_path, files) == []
    (tmp_path / ".gitignore").write_text("*.json\n")
    assert ignored(tmp_path, files) == files[1:]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "value = 24.8",
            "value = 2.8",
            r"metrics\.perplexity: its line \(value = 2\.8\) .* written with smoke\.",
        ),
        (
            "value = 98362432",
            "value = 98362433",
            r"metrics\.memory/weight_bytes: its line \(value = 98362433\.0\)",
        ),
        ("stderr = 0.30000000000000004", "stderr = 0.3", r"metrics\.perplexity: its line"),
        ("n_ctx = 512", "n_ctx = 256", r"metrics\.perplexity: its line .* or its conditions are not those"),
        ("scale = 1.0", "scale = 1", r"metrics\.perplexity: its line"),
        ('better = "lower"', 'better = "higher"', "its line"),
        ('torch = "2.13.0"', 'torch = "2.12.0"', r"environment or earlier: not what was written"),
        ("seal = ", "# seal = ", r"environment or earlier: not what was written"),
    ],
)
def test_a_summary_edited_by_hand_is_damaged(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    text = summary.read_text()
    assert old in text
    summary.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=complaint) as caught:
        read(tmp_path, CELL, TIER)
    assert "git checkout" in str(caught.value)


def test_lines_of_two_updates_do_not_go_together(tmp_path: Path) -> None:
    """A merge by lines takes the value of one and the raw file of the other."""
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    ours = summary.read_text()
    update(tmp_path, measured(metrics={"perplexity": perplexity(25.0), "memory/weight_bytes": WEIGHT_BYTES}))
    theirs = summary.read_text()
    line = re.compile(r"^perplexity = .*$", re.MULTILINE)
    summary.write_text(line.sub(line.findall(ours)[0], theirs))
    with pytest.raises(InputError, match=r"metrics.perplexity: its line \(value = 24\.8\)"):
        read(tmp_path, CELL, TIER)


def test_a_metric_without_a_seal_is_damaged(tmp_path: Path) -> None:
    """Nothing says then that its line in the summary is the one that was written."""
    summary, raw = update(tmp_path, measured())
    text = re.sub(r',?\n  "seal": "[0-9a-f]+"', "", raw.read_text())
    old, new = (hashlib.sha256(one.encode()).hexdigest() for one in (raw.read_text(), text))
    raw.with_name(f"smoke.{new[:12]}.json").write_text(text)
    summary.write_text(summary.read_text().replace(old, new).replace(old[:12], new[:12]))
    with pytest.raises(InputError, match=r"metrics\.[a-z/_]+: its line"):
        read(tmp_path, CELL, TIER)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("format = " + "9" * 5000, "corrupted"),
        ("format = 2\nx = " + "[" * 20000 + "]" * 20000, "corrupted"),
        ("format = 2\ncell = 1e999", "cell"),
    ],
    ids=["digits", "nested", "infinite"],
)
def test_a_summary_that_no_parser_takes_is_damaged(tmp_path: Path, text: str, complaint: str) -> None:
    summary = baseline_path(tmp_path, CELL, TIER)
    summary.parent.mkdir(parents=True)
    summary.write_text(text)
    with pytest.raises(InputError, match=rf"(?s){complaint}.*git checkout"):
        read(tmp_path, CELL, TIER)


@pytest.mark.parametrize(
    "raw",
    [
        "[" * 50000 + "]" * 50000,
        "[1]",
        '{"perplexity": 1}',
        '{"perplexity": {"samples": [1' + "0" * 400 + "]}}",
    ],
    ids=["nested", "list", "number", "digits"],
)
def test_a_raw_file_that_is_something_else_is_damaged(tmp_path: Path, raw: str) -> None:
    """Though the summary names it by its hash."""
    update(tmp_path, measured())
    summary = baseline_path(tmp_path, CELL, TIER)
    new = hashlib.sha256(raw.encode()).hexdigest()
    text = re.sub(r"[0-9a-f]{64}", new, summary.read_text())
    summary.write_text(re.sub(r"smoke\.[0-9a-f]{12}", f"smoke.{new[:12]}", text))
    summary.with_name(f"smoke.{new[:12]}.json").write_text(raw)
    with pytest.raises(InputError, match="not what quantgate writes"):
        read(tmp_path, CELL, TIER)


def test_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    replaced(f"format = {FORMAT}\n", f"format = {FORMAT + 1}\nunheard_of = 1\n")(summary, raw)
    with pytest.raises(InputError, match=rf"smoke\.toml: format = {FORMAT + 1} .*newer quantgate.*; upgrade"):
        read(tmp_path, CELL, TIER)


def test_older_format_names_both_ways_out(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    replaced(f"format = {FORMAT}\n", "format = 1\n")(summary, raw)
    with pytest.raises(InputError) as caught:
        read(tmp_path, CELL, TIER)
    assert str(caught.value) == (
        f"{summary}: format = 1 was written by an older quantgate (this one reads 2 to {FORMAT}); "
        "check out the file that belongs to this version, or delete it and update again"
    )


def test_raw_file_edited_together_with_its_hash(tmp_path: Path) -> None:
    summary, raw = update(tmp_path, measured())
    sha256 = hashlib.sha256(b"{").hexdigest()
    replaced(raw.name, f"smoke.{sha256[:12]}.json")(summary, raw)
    summary.write_text(re.sub(r'sha256 = ".*"', f'sha256 = "{sha256}"', summary.read_text()))
    summary.with_name(f"smoke.{sha256[:12]}.json").write_text("{")
    with pytest.raises(InputError, match=r"\.json: not what quantgate writes: "):
        read(tmp_path, CELL, TIER)


def test_unreadable_summary(tmp_path: Path) -> None:
    baseline_path(tmp_path, CELL, TIER).mkdir(parents=True)
    with pytest.raises(InputError, match=r"smoke\.toml: cannot be read \(Is a directory\)"):
        read(tmp_path, CELL, TIER)
