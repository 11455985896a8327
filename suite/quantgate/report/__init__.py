"""Reports of a run, for people and machines: terminal, Markdown, JSON, and progress while it runs.

Everything here takes the judge's verdicts and a `RunInfo`, and decides nothing. `rich` is imported by `terminal` and
`profile` only, because `pytest --collect-only` imports this module and has to stay fast.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from quantgate import __version__
from quantgate.errors import InputError
from quantgate.files import write_atomic
from quantgate.records import Record, Scalar, Verdict

JOB_SUMMARY_LIMIT = 1024 * 1024
"""Bytes that GitHub takes as the summary of one step; it drops a larger one as a whole."""


class RunInfo(Record):
    """What a report says about the run itself; everything else follows from the verdicts."""

    tier: str
    seconds: float = 0.0
    machine: str = ""
    """One line of text: processor, threads, memory, GPU."""
    environment: dict[str, Scalar] = Field(default_factory=dict)
    """What the environments of all cells have in common."""
    environments: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """The rest of each cell's environment: what its backend adds, what differs."""
    exit_status: str = ""
    """As text: `1 (regression)`."""
    skipped: list[tuple[str, str]] = Field(default_factory=list)
    """(cell, reason) of the cells that this machine cannot run."""
    notes: list[tuple[str, str]] = Field(default_factory=list)
    """(cell, sentence) of the cells that were measured in an unusual way."""
    version: str = __version__
    commit: str = ""
    matrix: str = ""
    """Path of the user's own matrix (`--matrix`); empty for the built-in one."""
    updating: bool = False
    """Whether this run's values become the baseline."""
    against: str = ""
    """For an A/B run: the other environment, as `--against` names it."""
    changed: list[str] = Field(default_factory=list)
    """What differs from the environment of the baselines, or from the other side of an A/B run."""
    bits: dict[str, float] = Field(default_factory=dict)
    """Nominal bits by cell, which cells may have in common."""
    min_judged: float | None = None
    """Share of the gates that had to be judged (`--min-judged`)."""
    options: list[str] = Field(default_factory=list)
    """The options that an update has to repeat: `--matrix PATH`, `--quantgate-text=PATH` ..."""


def write_report(folder: Path, verdicts: list[Verdict], info: RunInfo) -> list[Path]:
    """Write `report.md` and `report.json`, each in one step, and return them. Raises InputError naming the folder."""
    from quantgate.report.as_json import to_json
    from quantgate.report.markdown import to_markdown

    texts = {"report.md": to_markdown(verdicts, info), "report.json": to_json(verdicts, info)}
    try:
        for name, text in texts.items():
            write_atomic(folder / name, text.encode())
    except OSError as error:
        raise InputError(
            f"cannot write the report into {folder}: {error.strerror or error}. "
            "Name a writable folder with --quantgate-report DIR, or free some space there."
        ) from error
    return [folder / name for name in texts]


def append_job_summary(path: str | Path, markdown: str) -> None:
    """Append to the file that $GITHUB_STEP_SUMMARY names; the step may have written to it before. Raises InputError."""
    path = Path(path)
    try:
        written = path.stat().st_size if path.exists() else 0
        if written + len(markdown.encode()) > JOB_SUMMARY_LIMIT:
            markdown = (
                "The quantgate report does not fit into this summary (GitHub takes 1 MiB for a step).\n"
            )
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown)
    except OSError as error:
        raise InputError(
            f"cannot append to the job summary {path}: {error.strerror or error}. "
            "GITHUB_STEP_SUMMARY has to name a writable file; unset it to go without the summary."
        ) from error
