"""The comment of a pull request is posted once and replaced in place."""

from __future__ import annotations

from pathlib import Path

from selftest.workflows.forge import Forge


def post(forge: Forge, text: str) -> None:
    (forge.folder / "comment.md").write_text(text)
    done = forge.run("comment.py", "comment.md", PULL_REQUEST="3", COMMIT="0123456789abcdef")
    assert done.returncode == 0, done.stderr


def test_each_run_replaces_the_comment_of_the_one_before(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    mark = "<!-- quantgate smoke -->"
    forge.add_comment("what do you think?", "User")
    forge.add_comment(f"{mark}\nquoted by a person", "User")
    post(forge, f"{mark}\n**nothing moved**\n")
    post(forge, f"{mark}\n**1 regression**\n")
    post(forge, f"{mark}\n**1 regression**\n")
    assert [text for _, text, _ in forge.state["comments"]] == [
        "what do you think?",
        f"{mark}\nquoted by a person",
        f"{mark}\n**1 regression**\n\n[Run](https://github.com/o/r/actions/runs/7) of commit 0123456789ab\n",
    ]
    calls = [words for words in forge.state["calls"] if "--method" in words]
    assert [words[2:4] for words in calls] == [
        ["POST", "repos/o/r/issues/3/comments"], ["PATCH", "repos/o/r/issues/comments/3"],
    ]  # fmt: skip


def test_two_gates_have_a_comment_each(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    for name in ("smoke", "smoke mine.toml", "smoke"):
        post(forge, f"<!-- quantgate {name} -->\n{name}\n")
    assert len(forge.state["comments"]) == 2
