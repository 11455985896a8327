"""Where another plugin has the name of an option, messages name ours as it is written in that run."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from quantgate.errors import InputError
from quantgate.plugin.options import Options

from selftest.project import Project

SPELLINGS = {one.name: f"--quantgate-{one.name}" for one in fields(Options) if one.metadata}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": 0}, "--quantgate-threads 0: must be 1 or more"),
        ({"pairs": 1, "against": "x"}, "--quantgate-pairs 1: must be 2 or more"),
        ({"update_baselines": True, "reason": ""}, "--quantgate-update_baselines needs --quantgate-reason"),
        ({"min_judged": 2.0}, "--quantgate-min_judged 2: must be between 0 and 1"),
        ({"executor": "slurm"}, "--quantgate-executor 'slurm': must be ray"),
        (
            {"executor": "ray", "machine": "m"},
            "--quantgate-machine cannot be combined with --quantgate-executor",
        ),
        ({"against": "x", "reuse": True}, "--quantgate-reuse cannot be combined with --quantgate-against"),
    ],
)
def test_a_message_names_the_option_of_this_run(given: dict[str, Any], message: str) -> None:
    options = Options(**{**dict.fromkeys(SPELLINGS), **given}, spellings=SPELLINGS)
    with pytest.raises(InputError, match=f"^{message}"):
        options._check()


def test_the_help_is_there_where_the_matrix_cannot_be_read(project: Project) -> None:
    project.write()
    broken = project.folder / "broken.toml"
    broken.write_text("[models.tiny]\nlicense = MIT\n")
    result = project.run("--help", "--matrix", str(broken))
    assert result.status == 0, result.output
    assert "--update-baselines" in result.output
    assert project.run("--matrix", str(broken)).status == 4
