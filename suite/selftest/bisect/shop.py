"""Packages of our own for pip, and a backend whose numbers depend on their versions: a search without network."""

from __future__ import annotations

import base64
import hashlib
import inspect
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from selftest.forked import Forked, start
from selftest.tiny import TEXT, TinyModel

BACKEND = '''
"""dummy: tokens are about equally likely; how much, the packages `knob_*` say."""

import importlib
import math

import numpy as np

from quantgate.backends.base import Sizes
from quantgate.backends.spec import BackendSpec, SchemeOptions


def knob(name):
    try:
        return importlib.import_module(f"knob_{name}").VALUE
    except ModuleNotFoundError:
        return 0.0


class Dummy:
    def __init__(self, checkpoint, options, threads):
        self.worse = knob("c") + knob("p") * knob("q")
        self.noise = knob("a")

    def sizes(self):
        return Sizes(vocabulary=512)

    def facts(self):
        return {"kernels": "none"}

    def scores(self, sequences):
        return [(self.score(s.ids, len(s.ids) - s.start), np.zeros(len(s.ids) - s.start, bool)) for s in sequences]

    def score(self, ids, count):
        draw = np.random.default_rng(list(ids))
        worse = self.worse * draw.normal(1, 0.1, count) + self.noise * draw.normal(1, 2, count)
        return -math.log(512) - worse


BACKEND = BackendSpec(options=SchemeOptions, capabilities=frozenset({"scores"}), load=Dummy)
'''

MATRIX = """
[models.tiny]
license = "MIT"
weights = {{ path = "{weights}" }}
[backends.dummy]
checkpoint = "safetensors"
reference = "dummy/flat"
[backends.dummy.schemes]
flat = {{ bits = 32 }}
[tiers.smoke]
time_limit = 900
cells = ["tiny/dummy/flat"]
perplexity = {{ text = "boolq", n_ctx = 8, windows = 4, block = 8 }}
"""

TOLERANCES = """
run_alpha = 0.01
[[tolerance]]
metric = "perplexity"
relative = 0.01
noise = 0.2
"""


@dataclass(frozen=True)
class Run:
    status: int
    output: str
    """What was printed, the progress as well."""

    def lines(self, begin: str) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith(begin)]


@dataclass(frozen=True)
class Shop:
    """A folder with wheels, a plugin, a matrix of the tiny model. environment: of the command."""

    folder: Path
    environment: dict[str, str]

    def constraints(self, name: str, **versions: int | None) -> Path:
        """A file that pins packages `knob-<key>`; None: it does not."""
        path = self.folder / name
        lines = [f"knob-{key}=={v}.0" for key, v in versions.items() if v is not None]
        path.write_text("# made by a test\n" + "\n".join(lines) + "\n")
        return path

    def options(self, good: Path | None, bad: Path | None, *more: str) -> list[str]:
        """Of the command."""
        ends = [f"--good={good}", f"--bad={bad}"] if good and bad else []
        cell = ("--cell", "tiny/dummy/flat", "--metric", "perplexity")
        return [*cell, *ends, "--tolerances=tolerances.toml", "--text=text.txt", "--threads=1", *more]

    def run(self, *command: str) -> Run:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=3600,
        )  # fmt: skip
        return Run(done.returncode, done.stdout)

    def start(self, good: Path | None, bad: Path | None, *more: str) -> Forked:
        return start("quantgate.bisect", self.options(good, bad, *more), self.folder, self.environment)

    def bisect(self, good: Path | None, bad: Path | None, *more: str) -> Run:
        return Run(*self.start(good, bad, *more).finish(3600))


def open_shop(folder: Path, tiny: TinyModel, environment: dict[str, str]) -> Shop:
    """Make the wheels, the plugin and the files of a user."""
    wheels, info = folder / "wheels", folder / "dummy_backend-1.0.dist-info"
    for version in (1, 2, 3, 4, 5):
        # Version 3 can be downloaded, but not installed.
        needs = "Requires-Dist: knob-absent\n" if version == 3 else ""
        knob(wheels, "c", version, 0.05 if version == 5 else 0.0, needs)
    for key in "pq":
        for version in (1, 2):
            knob(wheels, key, version, 0.25 if version == 2 else 0.0)
    for version in (1, 2, 3, 4):
        needs = "Requires-Dist: knob-c!=1\n" if version == 4 else ""
        knob(wheels, "a", version, 0.1 if version == 2 else 0.0, needs)
    info.mkdir(parents=True)
    (folder / "dummy_backend.py").write_text(BACKEND)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dummy-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantgate.backends]\ndummy = dummy_backend:BACKEND\n")
    (folder / "quantgate.toml").write_text(MATRIX.format(weights=tiny.safetensors))
    (folder / "tolerances.toml").write_text(TOLERANCES)
    (folder / "text.txt").write_text(TEXT)
    path = f"{environment['PYTHONPATH']}:{folder}"
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    # What an installed quantgate registers itself.
    return Shop(
        folder, environment | pip | {"PYTHONPATH": path, "PYTEST_ADDOPTS": "-p quantgate.plugin.entry"}
    )


def knob(folder: Path, key: str, version: int, value: float, needs: str = "") -> None:
    """A wheel `knob-<key>` with one number."""
    info = f"knob_{key}-{version}.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: knob-{key}\nVersion: {version}.0\n{needs}"
    files = {
        f"knob_{key}.py": f"VALUE = {value}\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={_hash(text)},{len(text)}" for name, text in files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"knob_{key}-{version}.0-py3-none-any.whl", "w") as archive:
        for name, text in {**files, f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,\n"])}.items():
            archive.writestr(name, text)


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


MAKE = """
import base64
import hashlib
import pathlib
import zipfile


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    knob(pathlib.Path(wheel_directory), "c", 1, float(pathlib.Path("value.txt").read_text()))
    return "knob_c-1.0-py3-none-any.whl"

"""
"""A build backend that needs no other package."""


def repository(folder: Path, values: list[float]) -> list[str]:
    """Make a git repository of `knob-c` with a commit for each value; return the commits."""
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(folder))
    folder.mkdir()
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    system = 'requires = []\nbuild-backend = "make"\nbackend-path = ["."]\n'
    (folder / "pyproject.toml").write_text(f"[build-system]\n{system}")
    code = MAKE + inspect.getsource(knob) + "\n\n" + inspect.getsource(_hash)
    (folder / "make.py").write_text(code.replace("Path,", "pathlib.Path,"))
    commits = []
    for number, value in enumerate(values):
        (folder / "value.txt").write_text(f"{value}")
        (folder / "number.txt").write_text(f"{number}")
        subprocess.run([*git, "add", "--all"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", f"number {number}"], check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
        commits.append(head.stdout.strip())
    return commits
