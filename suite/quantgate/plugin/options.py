"""Declare the options of the command line, refuse what does not fit together, write them as words of a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from quantgate.errors import InputError
from quantgate.files import path_problem, read_plain_text
from quantgate.supply.environments import parse

PAIRS = 6
"""Default of --pairs. Even, so that each side begins equally often. In simulations of both stages
(`quantgate.judge.confirm`, tolerance 2.5 %), 6 pairs find 5 % fewer tokens/s with 95 % power where the ratios of pairs
have a standard deviation of 3 % and there is one gate, or of 2 % and there are a hundred."""

PARTNERS = {"reason": "update_baselines", "accept_regressions": "update_baselines", "pairs": "against"}
"""Options that do nothing without another one."""

INPUTS = ("matrix", "tolerances", "text")
"""Options that name the user's own files."""
CIRCUMSTANCES = ("threads", "baselines", "machine", "against", "pairs")
"""The other options that change what is measured and how it is judged."""


def add_options(parser: pytest.Parser) -> None:
    """Declare the options; README has them in one table."""
    group = parser.getgroup("quantgate", "quantgate: regression gate for quantized language models")
    add = group.addoption
    add(
        "--tier",
        default="smoke",
        help="which cells and workloads: smoke (default), nightly, full, or one of your matrix",
    )
    add("--matrix", type=Path, metavar="PATH", help="your own matrix.toml: models, tiers, schemes")
    add(
        "--tolerances",
        type=Path,
        metavar="PATH",
        help="your own tolerances.toml, instead of the one in fixtures/",
    )
    add(
        "--text",
        type=Path,
        metavar="PATH",
        help="plain text file that takes the place of the tier's texts (perplexity, divergence, decoding, tokenizer)",
    )
    add(
        "--threads",
        type=int,
        metavar="N",
        help="threads of each measuring process (default: the cores it may use, of a quota whole ones)",
    )
    add("--baselines", type=Path, metavar="DIR", help="where baselines are kept (default: baselines/)")
    add(
        "--require-baselines",
        action="store_true",
        help="a case without baseline fails instead of being skipped",
    )
    add(
        "--update-baselines",
        action="store_true",
        help="make this run's measurements the baselines of the selected cells",
    )
    add("--reason", default="", metavar="TEXT", help="why the baselines change; kept in them")
    add(
        "--accept-regressions",
        action="store_true",
        help="with --update-baselines: also values worse than tolerance",
    )
    add(
        "--machine",
        metavar="NAME",
        help="gate absolute timings too: this machine is NAME, and its fingerprint must match",
    )
    add(
        "--against",
        metavar="PYTHON|VERSIONS",
        help="A/B, without baselines: judge this environment against that of another python, or against one that "
        "is built with these versions ('transformers==5.17.0'); both are measured here, in turns",
    )
    add(
        "--pairs",
        type=int,
        metavar="N",
        help=f"with --against: pairs of processes that timings and memory peaks are taken in (default: {PAIRS})",
    )
    add(
        "--min-judged",
        type=float,
        metavar="SHARE",
        help="fail (exit status 14) where fewer of the gates were judged, 0 to 1: 0.9 is nine of ten",
    )
    add("--results", type=Path, metavar="DIR", help="where measurements and logs go (default: .quantgate/)")
    add(
        "--reuse",
        action="store_true",
        help="take measurements of an earlier or interrupted run where nothing has changed",
    )
    add("--report", type=Path, metavar="DIR", help="write report.md and report.json there")
    add(
        "--profile",
        action="store_true",
        help="show at the end where the wall time went: by cell and phase, in forward passes and outside of them",
    )


@dataclass(frozen=True)
class Options:
    """The options of one run, by the names of the command line. None, or empty: not given."""

    tier: str
    matrix: Path | None
    tolerances: Path | None
    text: Path | None
    threads: int | None
    baselines: Path | None
    require_baselines: bool
    update_baselines: bool
    reason: str
    accept_regressions: bool
    machine: str | None
    against: str | None
    pairs: int | None
    min_judged: float | None
    results: Path | None
    reuse: bool
    report: Path | None
    profile: bool

    @classmethod
    def of(cls, values: object) -> Options:
        """Take the options from pytest's. Raises InputError for those that do not fit together."""
        options = cls(**{field.name: getattr(values, field.name) for field in fields(cls)})
        options._check()
        return options

    @property
    def pair_count(self) -> int:
        """Pairs of processes of an A/B run."""
        return PAIRS if self.pairs is None else self.pairs

    @property
    def input_words(self) -> list[str]:
        """The user's own files, as words of a command."""
        return self._words(INPUTS)

    @property
    def words(self) -> list[str]:
        """Everything that changes what is measured and how it is judged, but for the tier, as words of a command."""
        return self._words((*INPUTS, *CIRCUMSTANCES))

    @property
    def command(self) -> str:
        """The beginning of a command that repeats a case: `pytest --tier smoke`."""
        return shlex.join(["pytest", "--tier", self.tier, *self.words])

    def _words(self, names: tuple[str, ...]) -> list[str]:
        # With `=`: pytest looks for its rootdir before it knows our options, and takes a path that stands alone for a
        # folder of tests.
        values = {name: getattr(self, name) for name in names}
        return [f"--{name}={value}" for name, value in values.items() if value is not None]

    def _check(self) -> None:
        if self.update_baselines and not self.reason.strip():
            raise InputError('--update-baselines needs --reason "why the values change"')
        for name, partner in PARTNERS.items():
            if getattr(self, name) and not getattr(self, partner):
                raise InputError(
                    f"{_flag(name)} does nothing without {_flag(partner)}: add that, or leave it out"
                )
        if self.text is not None:
            if not self.text.is_file():
                raise InputError(f"--text {self.text}: no such file")
            read_plain_text(self.text)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads {self.threads}: must be 1 or more")
        for name in ("results", "baselines", "report"):
            folder: Path | None = getattr(self, name)
            if folder is not None and folder.exists() and not folder.is_dir():
                raise InputError(f"--{name} {folder}: is a file, not a folder; name another")
        for path in (self.matrix, self.tolerances, self.text, self.baselines, self.report):
            if path is not None and (problem := path_problem(path)):
                raise InputError(problem)
        self._check_min_judged()
        self._check_against()

    def _check_min_judged(self) -> None:
        share = self.min_judged
        if share is None:
            return
        if not 0 <= share <= 1:
            raise InputError(f"--min-judged {share:g}: must be between 0 and 1 (0.9 is nine gates of ten)")
        if self.update_baselines:
            raise InputError(
                "--min-judged does not go with --update-baselines, which judges nothing that is new: leave one out"
            )

    def _check_against(self) -> None:
        if self.against is None:
            return
        for name in ("update_baselines", "machine", "require_baselines", "reuse"):
            if getattr(self, name):
                raise InputError(
                    f"--against does not go with {_flag(name)}: an A/B run measures both environments now and leaves "
                    "baselines alone"
                )
        if self.pair_count < 2:
            raise InputError(f"--pairs {self.pair_count}: must be 2 or more; one pair says nothing of noise")
        parse(self.against)


def check_parallel(options: Options) -> None:
    """Refuse what does not go with the processes of pytest-xdist. Raises InputError."""
    reasons: Mapping[str, Any] = {
        "update_baselines": "one process writes baselines",
        "against": "its processes take turns",
        "profile": "what runs side by side adds up to no wall time",
    }
    for name, reason in reasons.items():
        if getattr(options, name):
            raise InputError(f"{_flag(name)} does not go with -n: {reason}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
