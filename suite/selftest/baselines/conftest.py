"""Lock files of the tests of baselines."""

from __future__ import annotations

import tempfile

import pytest


@pytest.fixture(autouse=True)
def _locks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files go where pytest cleans up, for the processes that a test starts too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("locks")))
    monkeypatch.setattr(tempfile, "tempdir", None)
