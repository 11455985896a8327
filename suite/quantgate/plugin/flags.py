"""Declare the options of the command line under names that are free. The README has them in one table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

PAIRS = 6
"""Default of --pairs. Even, so that each side begins equally often. In simulations of both stages
(`quantgate.judge.confirm`, tolerance 2.5 %), 6 pairs find 5 % fewer tokens/s with 95 % power where the ratios of pairs
have a standard deviation of 3 % and there is one gate, or of 2 % and there are a hundred."""

OPTIONS: dict[str, dict[str, Any]] = {
    "tier": {
        "default": "smoke",
        "metavar": "NAME",
        "help": "which cells and workloads: smoke (default), nightly, full, or one of your matrix",
    },
    "matrix": {
        "type": Path,
        "metavar": "PATH",
        "help": "models, tiers and schemes of your own (default: quantgate.toml, or pyproject.toml's table "
        "[tool.quantgate])",
    },
    "tolerances": {
        "type": Path,
        "metavar": "PATH",
        "help": "your own tolerances.toml, instead of quantgate's",
    },
    "text": {
        "type": Path,
        "metavar": "PATH",
        "help": "plain text file, in place of the tier's texts (perplexity, divergence, decoding, tokenizer)",
    },
    "threads": {
        "type": int,
        "metavar": "N",
        "help": "threads of each measuring process (default: the cores it may use, of a quota whole ones)",
    },
    "baselines": {
        "type": Path,
        "metavar": "DIR",
        "help": "where baselines are kept (default: baselines/)",
    },
    "require-baselines": {
        "action": "store_true",
        "help": "a case without baseline fails instead of being skipped",
    },
    "update-baselines": {
        "action": "store_true",
        "help": "make this run's measurements the baselines of the selected cells",
    },
    "reason": {"default": "", "metavar": "TEXT", "help": "why the baselines change; kept in them"},
    "accept-regressions": {
        "action": "store_true",
        "help": "with --update-baselines: also values worse than tolerance",
    },
    "machine": {
        "metavar": "NAME",
        "help": "gate absolute timings too: this machine is NAME, and its fingerprint must match",
    },
    "against": {
        "metavar": "PYTHON|VERSIONS",
        "help": "A/B, without baselines: judge this environment against that of another python, or against one that "
        "is built with these versions ('transformers==5.17.0'); both are measured here, in turns",
    },
    "pairs": {
        "type": int,
        "metavar": "N",
        "help": f"with --against: pairs of processes that timings and memory peaks are taken in (default: {PAIRS})",
    },
    "min-judged": {
        "type": float,
        "metavar": "SHARE",
        "help": "fail (exit status 14) where fewer of the gates were judged, 0 to 1: 0.9 is nine of ten",
    },
    "results": {
        "type": Path,
        "metavar": "DIR",
        "help": "where measurements and logs go (default: .quantgate/)",
    },
    "reuse": {
        "action": "store_true",
        "help": "take measurements of an earlier or interrupted run where nothing has changed",
    },
    "report": {"type": Path, "metavar": "DIR", "help": "write report.md and report.json there"},
    "profile": {
        "action": "store_true",
        "help": "show at the end where the wall time went: by cell and phase, in forward passes and outside of them",
    },
}

POPULAR = ("profile", "report", "text")
"""Options that other plugins have too: ours are `--quantgate-profile` ... In this checkout both spellings work."""

_DEST = "quantgate_"


class Spellings:
    """How each option is written in this run. A plugin, since pytest tells none."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names


def add_options(parser: pytest.Parser, plugins: pytest.PytestPluginManager) -> None:
    """Add `--tier` ..., or `--quantgate-tier` ... where another plugin or a conftest.py has that name."""
    group, spellings = _group(parser), {}
    for name, attributes in OPTIONS.items():
        tries = dict.fromkeys((spelling(name), f"--quantgate-{name}"))
        spellings[name.replace("-", "_")] = next(s for s in tries if _add(group, s, name, attributes))
    plugins.register(Spellings(spellings), "quantgate-spellings")


def add_plain_spellings(parser: pytest.Parser) -> None:
    """Add `--profile`, `--report` and `--text` too, where they are free."""
    for name in POPULAR:
        _add(_group(parser), f"--{name}", name, {**OPTIONS[name], "help": argparse.SUPPRESS})


def spelling(name: str) -> str:
    """Return how an option is written where its name is free."""
    return f"--{'quantgate-' if name in POPULAR else ''}{name.replace('_', '-')}"


def values(config: pytest.Config) -> dict[str, Any]:
    """Return the values of the options by name: `tier`, `update_baselines` ..."""
    options = vars(config.option).items()
    return {name.removeprefix(_DEST): value for name, value in options if name.startswith(_DEST)}


def spellings(config: pytest.Config) -> dict[str, str]:
    """Return how each option is written in this run, by its name."""
    plugin: Any = config.pluginmanager.get_plugin("quantgate-spellings")
    return dict(plugin.names)


def _group(parser: pytest.Parser) -> pytest.OptionGroup:
    return parser.getgroup("quantgate", "quantgate: regression gate for quantized language models")


def _add(group: pytest.OptionGroup, flag: str, name: str, attributes: dict[str, Any]) -> bool:
    """Add an option as `flag`; return whether that was free."""
    try:
        group.addoption(flag, dest=_DEST + name.replace("-", "_"), **attributes)
    except (ValueError, argparse.ArgumentError):
        return False
    return True
