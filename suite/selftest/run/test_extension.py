"""A backend and a metric group are one file each: both are added to a copy of the engine and pass through the gate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from quantgate.paths import FIXTURES, IMPORT_ROOT

from selftest.tiny import TEXT, TinyModel

REPO = IMPORT_ROOT.parent

BACKEND = '''
"""uniform: every token is as likely as any other."""

import math

import numpy as np

from quantgate.backends.base import Sizes
from quantgate.backends.spec import BackendSpec, SchemeOptions


class Options(SchemeOptions):
    vocabulary: int


class Uniform:
    def __init__(self, checkpoint, options, threads):
        self.vocabulary = options["vocabulary"]

    def sizes(self):
        return Sizes(vocabulary=self.vocabulary)

    def facts(self):
        return {"kernels": "none"}

    def scores(self, sequences):
        counts = [len(sequence.ids) - sequence.start for sequence in sequences]
        return [(np.full(n, -math.log(self.vocabulary)), np.zeros(n, bool)) for n in counts]


BACKEND = BackendSpec(options=Options, capabilities=frozenset({"scores"}), load=Uniform)
'''

GROUP = '''
"""Surprise: nats that the first tokens of a text cost."""

from quantgate.backends.tree import TokenSequence
from quantgate.measure.groups import Column, Group
from quantgate.measure.scoring import score
from quantgate.jobs import Needs
from quantgate.records import Declared, Metric, Record


class Options(Record):
    text: str
    tokens: int = 16


def measure(session, parts):
    options = session.options("surprise", Options)
    ids = tuple(session.text(options.text).ids[: options.tokens])
    [[scored]] = score(session.backend, [[TokenSequence(ids, 1)]], len(ids))
    of = {"text": options.text, "tokens": options.tokens}
    return {"surprise": Metric(kind="exact", value=-scored.total, unit="nats", better="lower", conditions=of)}


GROUP = Group(
    options=Options,
    metrics={"surprise": Declared("exact")},
    measure=measure,
    family="quality",
    capabilities=frozenset({"scores"}),
    needs=lambda options: Needs(texts={options.text: options.tokens}),
    columns=(Column("surprise", "nats", 2, 9, 9, ("surprise",)),),
)
'''

CASE = """
import pytest


@pytest.mark.quantgate("surprise")
def test_surprise(quantgate_case):
    quantgate_case.check()
"""

MATRIX = """
[models.tiny]
license = "MIT"
weights = {{ path = "{weights}" }}
[backends.uniform]
checkpoint = "safetensors"
reference = "uniform/flat"
[backends.uniform.schemes]
flat = {{ bits = 32, vocabulary = 512 }}
[tiers.smoke]
time_limit = 60
cells = ["tiny/uniform/flat"]
[tiers.smoke.surprise]
text = "boolq"
[tiers.smoke.perplexity]
text = "boolq"
n_ctx = 64
windows = 4
[tiers.smoke.tokenizer]
text = "boolq"
characters = 100
"""

TOLERANCES = """
run_alpha = 0.01
[[tolerance]]
metric = "surprise"
relative = 0.01
"""

ADDED = {
    "suite/quantgate/backends/uniform.py": BACKEND,
    "suite/quantgate/measure/metrics/surprise.py": GROUP,
    "suite/test_surprise.py": CASE,
}


@pytest.mark.slow
def test_a_backend_and_a_metric_group_are_one_file_each(tiny: TinyModel, tmp_path: Path) -> None:
    house, user = tmp_path / "house", tmp_path / "user"
    shutil.copytree(
        IMPORT_ROOT / "quantgate", house / "suite/quantgate", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("test_perplexity.py", "test_tokenizer.py"):
        shutil.copy(IMPORT_ROOT / name, house / "suite")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(REPO / name, house)
    (house / "fixtures").symlink_to(FIXTURES)
    for name, text in ADDED.items():
        (house / name).write_text(text)
    user.mkdir()
    (user / "matrix.toml").write_text(MATRIX.format(weights=tiny.safetensors))
    (user / "tolerances.toml").write_text(TOLERANCES)
    (user / "text.txt").write_text(TEXT)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [
            *("-c", str(house / "pyproject.toml"), "--rootdir", str(house), str(house / "suite")),
            *(f"-pno:{plugin}" for plugin in ("cacheprovider", "hypothesispytest", "anyio")),  # faster
            *(f"--{name}={user / f'{name}.toml'}" for name in ("matrix", "tolerances")),
            *(f"--text={user / 'text.txt'}", f"--baselines={user / 'baselines'}"),
            *(f"--results={user / 'results'}", "--threads=1", *arguments),
        ]
        variables = {"QUANTGATE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": "", "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=user,
            env=os.environ | variables | {"PYTHONDONTWRITEBYTECODE": ""},  # the copy is compiled once
            capture_output=True,
            text=True,
            check=False,
        )

    first = run("--update-baselines", "--reason", "a test")
    assert first.returncode == 0, first.stdout
    assert "no tokenizer cases: uniform lacks the capability tokenizes" in first.stdout
    assert "surprise" in first.stdout
    again = run()
    assert again.returncode == 0, again.stdout
    assert "2 passed" in again.stdout
    file = house / "suite/quantgate/backends/uniform.py"
    file.write_text(BACKEND.replace("-math.log(self.vocabulary)", "-2 * math.log(self.vocabulary)"))
    broken = run()
    assert broken.returncode == 1, broken.stdout
    assert "surprise" in broken.stdout
    assert "1 failed, 1 passed" in broken.stdout, "perplexity has no tolerance here"
