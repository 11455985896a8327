"""What the files of the two ends pin, and the versions between two pins."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from quantgate.bisect.ends import in_order, is_here, read_pins, split, version_of, with_here
from quantgate.bisect.search import Change, changes_between
from quantgate.bisect.steps import Versions, at_commits, between, commits_between, git_pin, released
from quantgate.errors import InputError

from selftest.bisect.shop import knob, repository

FREEZE = """\
# pip freeze
torch==2.13.0+cpu
Llama_CPP.python==0.3.36   # compiled
transformers @ git+https://h/t@abc
-e git+https://h/quantgate@1234#egg=quantgate
hashed==1.0 \\
    --hash=sha256:0123
old==1.0 ; python_version < "3"
quantgate==0.1
"""


def test_what_pip_freeze_prints_is_read(tmp_path: Path) -> None:
    file = tmp_path / "freeze.txt"
    file.write_text(FREEZE)
    assert read_pins(file) == {
        "torch": "torch==2.13.0+cpu",
        "llama-cpp-python": "Llama_CPP.python==0.3.36",
        "transformers": "transformers @ git+https://h/t@abc",
        "hashed": "hashed==1.0",
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch>=2", "line 2: 'torch>=2' names no single version: write NAME==VERSION"),
        ("torch==2.*", "names no single version"),
        ("torch", "names no single version"),
        ("torch=2", r"'torch=2' is not a requirement \(.*\): write NAME==VERSION"),
        ("-r other.txt", "line 2: -r is an option of pip"),
        ("a==1\nA==2", "line 3: a is pinned twice, as a==1 and A==2"),
    ],
)
def test_a_line_that_pins_nothing_is_refused_with_its_number(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "c.txt"
    file.write_text(f"\n{line}\n")
    with pytest.raises(InputError, match=words) as caught:
        read_pins(file)
    assert str(file) in str(caught.value)


def test_what_an_end_does_not_pin_is_as_it_is_here() -> None:
    here = {"torch": "torch==2.13.0+cpu", "numpy": "numpy==2.4"}
    ends = {"torch": "torch==2.13.0", "x": "x==1"}, {"numpy": "numpy==2.5", "x": "x==2", "new": "new==1"}
    good, bad = with_here(*ends, here)
    assert good == {"torch": "torch==2.13.0+cpu", "numpy": "numpy==2.4", "x": "x==1", "new": "new==1"}
    assert changes_between(good, bad) == [
        Change("numpy", "numpy==2.4", "numpy==2.5"), Change("x", "x==1", "x==2"),
    ]  # fmt: skip
    assert is_here("torch==2.13.0", here)
    assert not is_here("torch==2.12.0", here)
    assert not is_here("absent==1", here)


def test_only_what_differs_or_is_here_is_installed_and_the_rest_is_kept_to() -> None:
    here = {"torch": "torch==2.13.0", "numpy": "numpy==2.4"}
    pins = {"torch": "torch==2.13.0", "numpy": "numpy==2.5", "new": "new==1", "ruff": "ruff==0.1"}
    needed, others = split(pins, [Change("new", None, "new==1")], here)
    assert needed == ["new==1", "numpy==2.5"]
    assert others == ["ruff==0.1", "torch==2.13.0"]


def test_a_package_comes_right_after_those_that_it_needs() -> None:
    needs = {"transformers": ["tokenizers", "hub", "absent"], "tokenizers": ["hub"], "hub": ["transformers"]}
    names = ["aaa", "hub", "tokenizers", "transformers", "zzz"]
    order = in_order(names, lambda name: needs.get(name, []))
    assert sorted(order) == names
    assert order == ["aaa", "tokenizers", "transformers", "hub", "zzz"], "a circle is cut where it is entered"
    needs["hub"] = []
    assert in_order(names, lambda name: needs.get(name, [])) == [
        "aaa",
        "hub",
        "tokenizers",
        "transformers",
        "zzz",
    ]


def test_versions() -> None:
    assert version_of("torch==2.13.0+cpu") == "2.13.0+cpu"
    assert version_of("x @ git+https://h/x@abc") == "git+https://h/x@abc"


# --- releases ---------------------------------------------------------------------------------------


def test_releases_between_are_in_the_order_of_versions() -> None:
    listed = ["1.10", "1.9", "1.2", "2.0", "2.0rc1", "1.9.post1", "3.0"]
    assert between(listed, "1.2", "2.0") == ["1.9", "1.9.post1", "1.10"]
    assert between(listed, "2.0", "1.2") == ["1.10", "1.9.post1", "1.9"]
    assert between(listed, "1.9", "2.0rc1") == ["1.9.post1", "1.10"]
    assert between([*listed, "2.0b1"], "1.10", "2.0rc1") == ["2.0b1"]
    with pytest.raises(InputError, match="nonsense"):
        between(listed, "nonsense", "2.0")


def test_releases_are_what_pip_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2, 10, 11):
        knob(tmp_path, "a", version, 0.0)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "constraints.txt").write_text("knob-a==2.0\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    assert sorted(released("knob-a")) == ["1.0", "10.0", "11.0", "2.0"]
    lines: list[str] = []
    versions = Versions(tmp_path, lines.append)
    assert versions.steps(Change("knob-a", "knob-a==1.0", "knob-a==11.0")) == [
        "knob-a==2.0", "knob-a==10.0", "knob-a==11.0",
    ]  # fmt: skip
    assert lines == []
    # A package that is not to be had: its two ends are compared, and the reason is said.
    assert versions.steps(Change("absent", "absent==1", "absent==2")) == ["absent==2"]
    assert re.match(r"absent: its releases cannot be listed \(No matching .*\); only its two ends", lines[0])
    assert versions.steps(Change("knob-a", None, "knob-a==2.0")) == ["knob-a==2.0"]
    assert versions.steps(Change("knob-a", "knob-a==1.0", "knob-a @ file:///x")) == ["knob-a @ file:///x"]


# --- commits ----------------------------------------------------------------------------------------


def test_commits_lie_along_the_first_parents(tmp_path: Path) -> None:
    first, second, third = repository(tmp_path / "r", [0.0, 0.1, 0.2])
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(tmp_path / "r"))
    for arguments in (
        ("checkout", "--quiet", "-b", "side", second),
        ("commit", "--quiet", "--allow-empty", "--message", "on the side"),
        ("tag", "aside"),
        ("checkout", "--quiet", "main"),
        ("merge", "--quiet", "--no-edit", "side"),
    ):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    url = f"file://{tmp_path}/r"
    commits = commits_between(url, first, "main", tmp_path / "clones")
    assert commits[:2] == [second, third]
    assert len(commits) == 3, "the merge is one step"
    with pytest.raises(InputError, match=f"commit aside is not an ancestor of {third}"):
        commits_between(url, "aside", third, tmp_path / "clones")
    with pytest.raises(InputError, match="has no commit nonsense"):
        commits_between(url, "nonsense", "main", tmp_path / "clones")
    with pytest.raises(InputError, match="git clone: "):
        commits_between(f"file://{tmp_path}/absent", "a", "b", tmp_path / "clones")
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "later"], check=True)
    subprocess.run([*git, "tag", "later"], check=True)
    assert len(commits_between(url, first, "later", tmp_path / "clones")) == 4, "fetched again"
    pins = [f"t @ git+{url}@{commit}#subdirectory=python" for commit in (first, third)]
    steps = Versions(tmp_path / "clones", print).steps(Change("t", *pins))
    assert steps == [pins[0].replace(first, second), pins[1]]


def test_a_branch_is_searched_at_the_commit_that_it_is_at_now(tmp_path: Path) -> None:
    first, second = repository(tmp_path / "r", [0.0, 0.1])
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(tmp_path / "r"))
    subprocess.run([*git, "tag", "--annotate", "v1", "--message", "one", first], check=True)
    source = f"k @ git+file://{tmp_path}/r@"

    def at(name: str) -> str:
        return at_commits({"k": f"{source}{name}#subdirectory=a"})["k"]

    assert at("main") == f"{source}{second}#subdirectory=a"
    assert at("v1") == f"{source}{first}#subdirectory=a"
    assert at(first[:10]) == f"{source}{first[:10]}#subdirectory=a", "a commit"
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "later"], check=True)
    assert at("main") not in (f"{source}{first}#subdirectory=a", f"{source}{second}#subdirectory=a")
    pins = {"a": "a==1", "b": f"b @ git+file://{tmp_path}/absent@{first}"}
    assert at_commits(pins) == pins, "nothing is looked up"
    with pytest.raises(InputError, match="git ls-remote: "):
        at_commits({"b": f"b @ git+file://{tmp_path}/absent@main"})


@pytest.mark.parametrize(
    ("pin", "parts"),
    [
        ("x @ git+https://h/x@abc", ("x", "https://h/x", "abc", "")),
        ("x @ git+ssh://git@h/x@v1.0#subdirectory=a", ("x", "ssh://git@h/x", "v1.0", "#subdirectory=a")),
        ("x @ git+https://h/x", None),
        ("x @ https://h/x.whl", None),
        ("x==1.0", None),
    ],
)
def test_a_pin_of_a_repository(pin: str, parts: tuple[str, str, str, str] | None) -> None:
    assert git_pin(pin) == parts
