"""The versions between two pins of a package: releases from pip's index, commits from its git repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from quantgate.bisect.search import Change, Pins
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.supply.pip import run_pip

_AT = re.compile(r"git\+(?P<url>[^#]+?)@(?P<commit>[^@/#]+)(?P<rest>#.*)?")
"""Of a pin of a git repository."""


@dataclass
class Versions:
    """Lists the versions of packages. repositories: the folder for clones. say: takes what goes wrong, as then only the
    two ends of a package are compared."""

    repositories: Path
    say: Callable[[str], None]
    _paths: dict[Change, list[str]] = field(default_factory=dict)

    def steps(self, change: Change) -> list[str]:
        """Return the pins from the good one (excluded) to the bad one (included), in the order of versions or commits;
        the bad one alone where no others are to be had."""
        if change not in self._paths:
            try:
                self._paths[change] = self._between(change)
            except InputError as error:
                self.say(f"{change.package}: {error}; only its two ends are compared")
                self._paths[change] = [change.bad] if change.bad is not None else []
        return self._paths[change]

    def _between(self, change: Change) -> list[str]:
        assert change.bad is not None
        if change.good is None:
            return [change.bad]
        old, new = git_pin(change.good), git_pin(change.bad)
        if old and new and old.url == new.url:
            commits = commits_between(new.url, old.commit, new.commit, self.repositories)
            return [new.at(commit) for commit in commits[:-1]] + [change.bad]
        good, bad = Requirement(change.good), Requirement(change.bad)
        if good.url or bad.url:
            return [change.bad]
        ends = [next(iter(one.specifier)).version for one in (good, bad)]
        releases = between(released(change.package), *ends)
        return [f"{bad.name}=={release}" for release in releases] + [change.bad]


def between(releases: Sequence[str], good: str, bad: str) -> list[str]:
    """Return the releases between two versions, without these, in the order from `good` to `bad`. Pre-releases count
    only where one of the two is one. Raises InputError for a version that is none."""
    try:
        first, last = Version(good), Version(bad)
    except InvalidVersion as error:
        raise InputError(f"{error}") from None
    early = first.is_prerelease or last.is_prerelease
    low, high = sorted((first, last))
    versions = {Version(text): text for text in releases}
    chosen = [v for v in sorted(versions) if low < v < high and (early or not v.is_prerelease)]
    return [versions[v] for v in (chosen if first < last else reversed(chosen))]


def released(package: str) -> list[str]:
    """Return the releases of a package that pip can install here, by its settings (index, links, proxy), without
    yanked ones. Raises InputError with pip's reason."""
    lines: list[str] = []
    arguments = ["index", "versions", package, "--json", "--pre"]
    status = run_pip(arguments, lines.append)
    for line in lines:
        if line.startswith("{"):
            return list(json.loads(line)["versions"])
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    reason = errors[0] if errors else f"exit status {status}"
    raise InputError(f"its releases cannot be listed ({reason})")


class GitPin(NamedTuple):
    """A pin of a git repository. rest: `#subdirectory=...`."""

    package: str
    url: str
    commit: str
    rest: str

    def at(self, commit: str) -> str:
        """Return the pin of another commit."""
        return f"{self.package} @ git+{self.url}@{commit}{self.rest}"


def git_pin(pin: str) -> GitPin | None:
    """Return what a pin of a git repository says; None: it is of none, or names no commit."""
    requirement = Requirement(pin)
    match = _AT.fullmatch(requirement.url or "")
    return GitPin(requirement.name, match["url"], match["commit"], match["rest"] or "") if match else None


def at_commits(pins: Pins) -> dict[str, str]:
    """Return pins with commits in place of the branches and tags of git repositories: tomorrow these may be others, and
    what was built and judged of them is not. Raises InputError where a repository does not answer."""
    gits = {package: (pin, git_pin(pin)) for package, pin in pins.items()}
    return {name: git.at(commit_of(git.url, git.commit)) if git else pin for name, (pin, git) in gits.items()}


def commit_of(url: str, name: str) -> str:
    """Return the commit that a branch or a tag is at now; of anything else, such as a commit, its name."""
    if re.fullmatch("[0-9a-f]{40}", name):
        return name
    # The second is what a tag with a message stands for.
    places = [f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"]
    lines = _git(Path(), "ls-remote", "--", url, *places).splitlines()
    commits = {place: commit for commit, _, place in (line.partition("\t") for line in lines)}
    return next((commits[place] for place in places if place in commits), name)


def commits_between(url: str, good: str, bad: str, folder: Path) -> list[str]:
    """Return the commits after `good` up to `bad`, the oldest first, along the first parents: merged branches are one
    step. folder: for the clone, of the history alone. Raises InputError."""
    clone = folder / hash_of(url)
    if not clone.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{clone.name}.{os.getpid()}"
        _git(Path(), "clone", "--quiet", "--bare", "--filter=tree:0", "--", url, str(part))
        part.rename(clone)
    elif any(_lacks(clone, commit) for commit in (good, bad)):
        _git(clone, "fetch", "--quiet", "origin", "+refs/*:refs/*")
    for commit in (good, bad):
        if _lacks(clone, commit):
            raise InputError(f"{url} has no commit {commit}")
    if _run_git(clone, "merge-base", "--is-ancestor", good, bad).returncode != 0:
        raise InputError(f"commit {good} is not an ancestor of {bad} in {url}")
    return _git(clone, "rev-list", "--first-parent", "--reverse", f"{good}..{bad}").split()


def _lacks(clone: Path, commit: str) -> bool:
    options = ("rev-parse", "--quiet", "--verify", "--end-of-options")
    return _run_git(clone, *options, f"{commit}^{{commit}}").returncode != 0


def _run_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _git(folder: Path, *arguments: str) -> str:
    """Return what git prints. Raises InputError with its last line where it fails."""
    done = _run_git(folder, *arguments)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(f"git {arguments[0]}: {last[0]}")
    return done.stdout
