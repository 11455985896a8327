"""The reusable action, which actionlint does not look into: its inputs, and what its steps run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftest.workflows.forge import GITHUB

ACTION = GITHUB / "actions" / "quantgate"
DATA: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text())
STEPS: dict[str, Any] = {step["name"]: step for step in DATA["runs"]["steps"]}


def test_each_input_is_used_and_each_one_that_is_used_is_declared() -> None:
    text = (ACTION / "action.yml").read_text()
    assert set(re.findall(r"\binputs\.(\w+)", text)) == set(DATA["inputs"])
    assert set(re.findall(r"\bsteps\.(\w+)", text)) == {step["id"] for step in STEPS.values() if "id" in step}
    for name, one in DATA["inputs"].items():
        assert one["description"], name
        assert isinstance(one["default"], str), f"{name}: GitHub turns all else into text"


def test_steps_name_their_shell_and_no_script_holds_an_expression() -> None:
    assert DATA["runs"]["using"] == "composite"
    for name, step in STEPS.items():
        assert step["shell"] == "bash", name
        assert "${{" not in step["run"], f"{name}: an input would be read as code"


def test_the_scripts_that_it_runs_are_there() -> None:
    paths = re.findall(r'"\$ACTION/(\S+?)"', json.dumps(DATA).replace('\\"', '"'))
    assert len(paths) == 2
    for path in paths:
        assert (ACTION / path).exists(), path


def gate(folder: Path, **inputs: str) -> tuple[int, list[str], str]:
    """Run the step; return its exit status, the arguments that the command got, and the step's outputs."""
    given = {name: one["default"] for name, one in DATA["inputs"].items()} | inputs
    env = {}
    for name, text in STEPS["Measure and judge"]["env"].items():
        (key,) = re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text).groups()  # type: ignore[union-attr]
        env[name] = given[key]
    program = folder / "command"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "open('arguments.json', 'w').write(json.dumps(sys.argv[1:]))\nsys.exit(int(os.environ.get('END', '0')))\n"
    )
    program.chmod(0o755)
    env["COMMAND"] = given["command"] or str(program)
    output = folder / "output"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS["Measure and judge"]["run"]],
        cwd=folder, env={**os.environ, **env, "GITHUB_OUTPUT": str(output)}, check=False,
    )  # fmt: skip
    return done.returncode, json.loads((folder / "arguments.json").read_text()), output.read_text()


def test_without_inputs_it_measures_the_smoke_tier(tmp_path: Path) -> None:
    status, arguments, output = gate(tmp_path)
    assert arguments == ["--tier", "smoke", "--quantgate-report=report"]
    assert (status, output) == (0, "status=0\n")
    assert (tmp_path / "report").is_dir()


def test_inputs_reach_pytest_whole(tmp_path: Path) -> None:
    _, arguments, _ = gate(
        tmp_path, matrix="my models/m.toml", tier="nightly", baselines="b", report="r", selection="Q4 and not $(id)",
        options="--threads 2 --text='a b.txt' `id`",
    )  # fmt: skip
    assert arguments == [
        *("--tier", "nightly", "--quantgate-report=r", "--matrix=my models/m.toml", "--baselines=b"),
        *("-k", "Q4 and not $(id)", "--threads", "2", "--text=a b.txt", "`id`"),
    ]


def test_the_command_may_have_arguments(tmp_path: Path) -> None:
    _, arguments, _ = gate(tmp_path, command=f"{tmp_path}/command -e suite --")
    assert arguments[:4] == ["-e", "suite", "--", "--tier"]


def test_its_exit_status_is_that_of_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("END", "13")
    status, _, output = gate(tmp_path)
    assert (status, output) == (13, "status=13\n")


def test_workflows_name_inputs_that_there_are() -> None:
    users: Counter[str] = Counter()
    for file in sorted((GITHUB / "workflows").glob("*.yml")):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job.get("steps", ()):
                if (used := step.get("uses", "")).startswith("./"):
                    users[Path(used).name] += 1
                    inputs = yaml.safe_load((GITHUB.parent / used / "action.yml").read_text())["inputs"]
                    required = {name for name, one in inputs.items() if one["required"]}
                    assert required <= set(step["with"]) <= set(inputs), file.name
    assert users == {"quantgate": 2, "environment": 6}
