"""Run `gh`, GitHub's command line. Needs the standard library alone: scripts here run with a token that writes."""

from __future__ import annotations

import os
import subprocess


def gh(*arguments: str, text: str = "") -> str:
    """Run `gh`; `text` goes to its standard input."""
    return subprocess.run(["gh", *arguments], input=text, capture_output=True, text=True, check=True).stdout


def run_address() -> str:
    """Return the address of this run of the workflow."""
    env = os.environ
    return f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_REPOSITORY']}/actions/runs/{env['GITHUB_RUN_ID']}"
