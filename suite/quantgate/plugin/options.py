"""Refuse options that do not fit together, and write them as words of a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from quantgate.errors import InputError
from quantgate.files import path_problem, read_plain_text
from quantgate.plugin.flags import PAIRS, spelling
from quantgate.supply.environments import parse

PARTNERS = {"reason": "update_baselines", "accept_regressions": "update_baselines", "pairs": "against"}
"""Options that do nothing without another one."""

INPUTS = ("matrix", "tolerances", "text")
"""Options that name the user's own files."""
CIRCUMSTANCES = ("threads", "baselines", "machine", "against", "pairs")
"""The other options that change what is measured and how it is judged."""


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
    spellings: Mapping[str, str] = field(default_factory=dict)
    """How an option is written in this run, where that is not the usual way."""

    @classmethod
    def of(cls, values: Mapping[str, Any], spellings: Mapping[str, str]) -> Options:
        """Take the options by their names. Raises InputError for those that do not fit together."""
        names = [one.name for one in fields(cls) if one.name != "spellings"]
        options = cls(**{name: values[name] for name in names}, spellings=spellings)
        options._check()
        return options

    def flag(self, name: str) -> str:
        """Return how an option is written: `--update-baselines` for `update_baselines`."""
        return self.spellings.get(name) or spelling(name)

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
        return shlex.join(["pytest", self.flag("tier"), self.tier, *self.words])

    def _words(self, names: tuple[str, ...]) -> list[str]:
        # With `=`: pytest looks for its rootdir before it knows our options, and takes a path that stands alone for a
        # folder of tests.
        values = {name: getattr(self, name) for name in names}
        return [f"{self.flag(name)}={value}" for name, value in values.items() if value is not None]

    def _check(self) -> None:
        if self.update_baselines and not self.reason.strip():
            raise InputError('--update-baselines needs --reason "why the values change"')
        for name, partner in PARTNERS.items():
            if getattr(self, name) and not getattr(self, partner):
                raise InputError(
                    f"{self.flag(name)} does nothing without {self.flag(partner)}: add that, or leave it out"
                )
        if self.text is not None:
            if not self.text.is_file():
                raise InputError(f"{self.flag('text')} {self.text}: no such file")
            read_plain_text(self.text)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads {self.threads}: must be 1 or more")
        for name in ("results", "baselines", "report"):
            folder: Path | None = getattr(self, name)
            if folder is not None and folder.exists() and not folder.is_dir():
                raise InputError(f"{self.flag(name)} {folder}: is a file, not a folder; name another")
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
                    f"--against does not go with {self.flag(name)}: an A/B run measures both environments now and "
                    "leaves baselines alone"
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
            raise InputError(f"{options.flag(name)} does not go with -n: {reason}")
