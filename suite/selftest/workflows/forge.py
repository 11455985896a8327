"""What the scripts of the workflows call: a `gh` that keeps issues and comments in a file, in place of GitHub's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.paths import IMPORT_ROOT

GITHUB = IMPORT_ROOT.parent / ".github"

GH = """\
#!{python}
import json, pathlib, sys

file = pathlib.Path({state!r})
state = json.loads(file.read_text())
words = sys.argv[1:]
state["calls"].append(words)
text = sys.stdin.read() if "-" in words else ""


def value(name):
    return words[words.index(name) + 1]


if words[:2] == ["issue", "list"]:
    fields = value("--json").split(",")
    every = value("--state") == "all"
    chosen = [i for i in state["issues"] if (every or i["state"] == "OPEN") and i["label"] == value("--label")]
    print(json.dumps([{{field: issue[field] for field in fields}} for issue in chosen]))
elif words[:2] == ["issue", "create"]:
    number = len(state["issues"]) + 1
    issue = {{"number": number, "state": "OPEN", "label": value("--label"), "title": value("--title"), "body": text}}
    state["issues"].append({{**issue, "comments": []}})
elif words[0] == "issue":
    issue = state["issues"][int(words[2]) - 1]
    if words[1] == "edit":
        issue.update(title=value("--title"), body=text)
    elif words[1] in ("close", "reopen"):
        issue["state"] = "CLOSED" if words[1] == "close" else "OPEN"
        issue["comments"] += [value("--comment")] if "--comment" in words else []
    else:
        issue["comments"].append(text)
elif words[0] == "api" and "--paginate" in words:
    for comment in state["comments"]:
        print(json.dumps(comment))
elif words[0] == "api":
    body = json.loads(text)["body"]
    if value("--method") == "POST":
        state["comments"].append([len(state["comments"]) + 1, body, "Bot"])
    else:
        state["comments"][int(words[3].rpartition("/")[2]) - 1][1] = body
elif words[:2] != ["label", "create"]:
    sys.exit(f"unknown: {{words}}")
file.write_text(json.dumps(state))
"""


@dataclass(frozen=True)
class Forge:
    """A folder in which scripts run, with `gh` first on the path."""

    folder: Path

    def __post_init__(self) -> None:
        self._state.write_text(json.dumps({"calls": [], "issues": [], "comments": []}))
        program = self.folder / "bin" / "gh"
        program.parent.mkdir()
        program.write_text(GH.format(python=sys.executable, state=str(self._state)))
        program.chmod(0o755)

    @property
    def _state(self) -> Path:
        return self.folder / "forge.json"

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._state.read_text())
        return state

    def close(self, number: int) -> None:
        """Close an issue, as a person does."""
        state = self.state
        state["issues"][number - 1]["state"] = "CLOSED"
        self._state.write_text(json.dumps(state))

    def add_comment(self, text: str, author: str) -> None:
        state = self.state
        state["comments"].append([len(state["comments"]) + 1, text, author])
        self._state.write_text(json.dumps(state))

    @property
    def written(self) -> list[str]:
        """What was written so far: `issue edit`, `issue comment` ..."""
        kinds = [" ".join(words[:2]) for words in self.state["calls"]]
        return [kind for kind in kinds if kind not in ("issue list", "label create")]

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(GITHUB / "scripts" / script), *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": "o/r",
                "GITHUB_RUN_ID": "7",
                "GITHUB_SHA": "abc",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
