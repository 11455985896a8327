"""The options of the command line: declare them under names that are free, refuse combinations that make no sense,
write them as words of a command."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
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

POPULAR = ("profile", "report", "text")
"""Options that other plugins have too: ours are `--quantgate-profile` ... In this checkout both spellings work."""

INPUTS = ("matrix", "tolerances", "text")
"""Options that name the user's own files."""
CIRCUMSTANCES = ("threads", "baselines", "machine", "against", "pairs")
"""The other options that change what is measured and how it is judged."""
PARTNERS = {
    **dict.fromkeys(("reason", "accept_regressions", "re_anchor"), "update_baselines"),
    "pairs": "against",
    "mixed_nodes": "executor",
}
"""Options that do nothing without another one."""
EXCLUDED = {
    "update_baselines": {
        "min_judged": "an update accepts values instead of judging them; remove one of them"
    },
    "executor": {
        "against": "an A/B run measures both environments on this machine, in turns",
        "machine": "it stands for this machine, but the nodes of the cluster do the measuring",
        "profile": "times of parallel processes do not add up to the wall time",
    },
    "against": dict.fromkeys(
        ("update_baselines", "machine", "require_baselines", "reuse", "history"),
        "an A/B run measures both environments now and leaves baselines alone",
    ),
}
"""By option, those that cannot be combined with it, and why."""

_DEST = "quantgate_"


# ruff: noqa: RUF009 - these functions make fields


def _flag(text: str) -> Any:
    return field(metadata={"help": text, "action": "store_true"})


def _value(metavar: str, text: str, **attributes: Any) -> Any:
    return field(metadata={"help": text, "metavar": metavar, **attributes})


def _named(text: str) -> Path:
    """Return a path that an option names. An empty one, of a variable that is not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("names nothing: give a path, or leave the option out")
    return Path(text)


def _path(metavar: str, text: str) -> Any:
    return _value(metavar, text, type=_named)


@dataclass(frozen=True)
class Options:
    """The options of one run, by the names of the command line. None, or empty: not given."""

    tier: str = _value(
        "NAME",
        "a tier of the matrix: which cells, and what is measured of them (default: %(default)s)",
        default="smoke",
    )
    matrix: Path | None = _path(
        "PATH",
        "models, tiers and schemes of your own (default: quantgate.toml, or pyproject.toml's table [tool.quantgate])",
    )
    tolerances: Path | None = _path("PATH", "your own tolerances.toml, instead of quantgate's")
    text: Path | None = _path(
        "PATH", "plain text file, in place of the tier's texts (perplexity, divergence, decoding, tokenizer)"
    )
    threads: int | None = _value(
        "N",
        "threads of each measuring process (default: one per usable core, or per whole core of a CPU quota)",
        type=int,
    )
    baselines: Path | None = _path("DIR", "where baselines are kept (default: baselines/)")
    require_baselines: bool = _flag("a case without baseline fails instead of being skipped")
    update_baselines: bool = _flag("make this run's measurements the baselines of the selected cells")
    reason: str = _value("TEXT", "why the baselines change; kept in them", default="")
    accept_regressions: bool = _flag("with --update-baselines: also values worse than tolerance")
    re_anchor: bool = _flag(
        "with --update-baselines: make these values the anchors, so that earlier losses no longer count"
    )
    machine: str | None = _value(
        "NAME", "gate absolute timings too: this machine is NAME, and its fingerprint must match"
    )
    against: str | None = _value(
        "PYTHON|VERSIONS",
        "A/B, without baselines: judge this environment against that of another python, or against one that is built "
        "with these versions ('transformers==5.17.0'); both are measured here, in turns",
    )
    pairs: int | None = _value(
        "N",
        f"with --against: in how many pairs of processes timings and memory peaks are taken (default: {PAIRS})",
        type=int,
    )
    executor: str | None = _value(
        "ray[=ADDRESS]",
        "measure the cells on the nodes of a Ray cluster: ADDRESS is HOST:PORT of its head; without it, the cluster "
        "that this machine belongs to, or else this machine alone",
    )
    mixed_nodes: bool = _flag("with --executor: also judge what nodes with other versions measured")
    min_judged: float | None = _value(
        "SHARE",
        "fail with exit status 14 if a smaller share of the gates was judged, 0 to 1: 0.9 is nine of ten",
        type=float,
    )
    results: Path | None = _path("DIR", "where measurements and logs go (default: .quantgate/)")
    reuse: bool = _flag("reuse measurements of an earlier or interrupted run where nothing has changed")
    report: Path | None = _path("DIR", "write report.html, report.md, report.json and comment.md there")
    history: Path | None = _path("DIR", "append this run to the history there, one new file for each run")
    profile: bool = _flag(
        "show at the end where the wall time went: by cell and phase, in forward passes and outside of them"
    )
    spellings: Mapping[str, str] = field(default_factory=dict)
    """How each option is written in this run."""

    @classmethod
    def of(cls, config: pytest.Config) -> Options:
        """Return the options of this run. Raises InputError for those that do not fit together."""
        values = {one.name: getattr(config.option, _DEST + one.name) for one in _declared()}
        spellings: Any = config.pluginmanager.get_plugin("quantgate-spellings")
        options = cls(**values, spellings=spellings.names)
        options._check()
        return options

    def flag(self, name: str) -> str:
        """Return how an option is written: `--update-baselines` for `update_baselines`."""
        return self.spellings[name]

    @property
    def address(self) -> str | None:
        """Of the Ray cluster that `--executor` names; None: it names none."""
        return (self.executor or "").partition("=")[2] or None

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
            flags = f"{self.flag('update_baselines')} needs {self.flag('reason')}"
            raise InputError(f'{flags} "why the values change"')
        for name, partner in PARTNERS.items():
            if getattr(self, name) and not getattr(self, partner):
                flag = self.flag(name)
                raise InputError(
                    f"{flag} has no effect without {self.flag(partner)}: add that, or remove {flag}"
                )
        if self.text is not None:
            if not self.text.is_file():
                raise InputError(f"{self.flag('text')} {self.text}: no such file")
            read_plain_text(self.text)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"{self.flag('threads')} {self.threads}: must be 1 or more")
        if self.pair_count < 2:
            raise InputError(
                f"{self.flag('pairs')} {self.pairs}: must be 2 or more; one pair does not show the noise"
            )
        for name in ("results", "baselines", "report", "history"):
            folder: Path | None = getattr(self, name)
            if folder is not None and folder.exists() and not folder.is_dir():
                raise InputError(f"{self.flag(name)} {folder}: is a file, not a folder; name another")
        for path in (self.matrix, self.tolerances, self.text, self.baselines, self.report, self.history):
            if path is not None and (problem := path_problem(path)):
                raise InputError(problem)
        if self.executor is not None and not re.fullmatch(r"ray(=.+)?", self.executor):
            flag = self.flag("executor")
            raise InputError(f"{flag} {self.executor!r}: must be ray, or ray=HOST:PORT of a cluster's head")
        if self.min_judged is not None and not 0 <= self.min_judged <= 1:
            flag = self.flag("min_judged")
            raise InputError(
                f"{flag} {self.min_judged:g}: must be between 0 and 1 (0.9 is nine gates of ten)"
            )
        for name, reasons in EXCLUDED.items():
            if self._has(name):
                self._refuse_with(self.flag(name), reasons)
        if self.against is not None:
            parse(self.against)

    def _has(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False

    def check_parallel(self, spread_by: str) -> None:
        """Refuse what cannot be combined with the processes of pytest-xdist or pytest-forked. spread_by: the options
        that ask for them. Raises InputError."""
        without = "; -n 0 ends what addopts of an ini file says" if spread_by == "-n" else ""
        reasons = {
            "update_baselines": "one process writes baselines",
            "against": "its processes take turns",
            "executor": "Ray spreads the cells",
            "profile": "times of parallel processes do not add up to the wall time",
        }
        self._refuse_with(spread_by, {name: f"{why}{without}" for name, why in reasons.items()})

    def _refuse_with(self, partner: str, reasons: Mapping[str, str]) -> None:
        """Raise InputError for an option that cannot be combined with `partner`. reasons: by the option's name."""
        for name, reason in reasons.items():
            if self._has(name):
                raise InputError(f"{self.flag(name)} cannot be combined with {partner}: {reason}")


@dataclass(frozen=True, eq=False)  # pytest 9.0 hashes plugins, and a mapping has no hash
class Spellings:
    """How each option is written in this run, by its name. A plugin, since pytest does not keep that."""

    names: Mapping[str, str]


def add_options(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add `--tier` ..., or `--quantgate-tier` ... where another plugin or a conftest.py has that name."""
    names = {}
    for one in _declared():
        tries = dict.fromkeys((spelling(one.name), f"--quantgate-{one.name.replace('_', '-')}"))
        names[one.name] = next(flag for flag in tries if _add(parser, flag, one.name, one.metadata))
    pluginmanager.register(Spellings(names), "quantgate-spellings")


def add_plain_spellings(parser: pytest.Parser) -> None:
    """Add `--profile`, `--report` and `--text` too, where they are free."""
    for one in _declared():
        if one.name in POPULAR:
            _add(parser, f"--{one.name}", one.name, {**one.metadata, "help": argparse.SUPPRESS})


def spelling(name: str) -> str:
    """Return how an option is written where its name is free."""
    return f"--{'quantgate-' if name in POPULAR else ''}{name.replace('_', '-')}"


def _declared() -> list[Field[Any]]:
    return [one for one in fields(Options) if one.metadata]


def _add(parser: pytest.Parser, flag: str, name: str, attributes: Mapping[str, Any]) -> bool:
    """Add an option as `flag`; return whether that was free."""
    group = parser.getgroup("quantgate", "quantgate: regression gate for quantized language models")
    try:
        group.addoption(flag, dest=_DEST + name, **attributes)
    except (ValueError, argparse.ArgumentError):
        return False
    return True
