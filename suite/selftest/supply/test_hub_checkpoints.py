"""Checkpoints of a hub: fetched once at their commit, and only what is loaded; what cannot be had is the error of its
cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quantgate.paths import IMPORT_ROOT
from quantgate.records import Status

from selftest.hub import COMMIT, Hub, files_of
from selftest.project import Project
from selftest.tiny import TinyModel

NF4, F16 = "tiny/bitsandbytes/nf4", "tiny/llamacpp/F16"
FOREIGN = {
    "modeling_mine.py": b"raise SystemExit('was run')",
    "pytorch_model.bin": b"pickled",
    "x.onnx": b"x",
}


@pytest.fixture
def hub(tiny: TinyModel) -> Hub:
    """The tiny model as safetensors beside what is never loaded, and its GGUF beside another."""
    files = {"mine.gguf": tiny.gguf.read_bytes(), "other.gguf": b"GGUF"}
    return Hub({"me/mine": {**files_of(tiny.safetensors), **FOREIGN}, "me/files": files})


Wanted = tuple[str, str, str | None]
"""Repository, revision, file."""


def fetched(hub: Hub, folder: Path, *wanted: Wanted) -> list[str]:
    """Fetch to `0`, `1` and so on, in a process of its own, as the maker does; returns the errors, "" for none."""
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from quantgate.errors import AssetError\n"
        "from quantgate.supply.checkpoints import hub_checkpoint\n"
        "errors = []\n"
        "for n, (hub, revision, file) in enumerate(json.loads(sys.argv[1])):\n"
        "    try:\n"
        "        hub_checkpoint(Path(str(n)), report=lambda *_: None, hub=hub, revision=revision, file=file)\n"
        "        errors.append('')\n"
        "    except AssetError as error:\n"
        "        errors.append(str(error))\n"
        "print(json.dumps(errors))\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    with hub.serving() as address:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(wanted)],
            env=kept
            | {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "NO_PROXY": "127.0.0.1"}
            | {"PYTHONPATH": str(IMPORT_ROOT)},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    errors: list[str] = json.loads(done.stdout)
    return errors


def test_what_is_loaded_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    """Of a folder what a library loads, of a repository of files the one that is named."""
    assert fetched(hub, tmp_path, ("me/mine", COMMIT, None), ("me/files", COMMIT, "mine.gguf")) == ["", ""]
    loaded = hub.repositories["me/mine"].keys() - FOREIGN.keys()
    assert sorted(hub.requests) == ["me/files/mine.gguf", *sorted(f"me/mine/{name}" for name in loaded)]
    assert {name: (tmp_path / "0" / name).read_bytes() for name in loaded} == {
        name: hub.repositories["me/mine"][name] for name in loaded
    }
    assert not any((tmp_path / "0" / name).exists() for name in FOREIGN)
    assert (tmp_path / "1" / "mine.gguf").read_bytes() == hub.repositories["me/files"]["mine.gguf"]


MISSING = {
    ("me/files", COMMIT, "mine-Q5_K_M.gguf"): f"repository me/files at {COMMIT} has no mine-Q5_K_M.gguf",
    ("me/files", COMMIT, "other.gguf"): "other.gguf: is cut off or damaged",
    ("me/mine", "f" * 40, None): f"repository me/mine at {'f' * 40} cannot be fetched (",
    ("me/nobody", COMMIT, None): "check the network and HF_TOKEN, or point the matrix at a local `path`",
}


def test_what_a_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    errors = fetched(hub, tmp_path, *MISSING)
    for number, (error, message) in enumerate(zip(errors, MISSING.values(), strict=True)):
        assert message in error
        assert "\n" not in error
        assert not (tmp_path / str(number)).exists()


@pytest.mark.slow
def test_a_run_whose_every_checkpoint_is_on_a_hub(project: Project, hub: Hub, tmp_path: Path) -> None:
    project.environment |= {
        "QUANTGATE_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "hf"),
        "NO_PROXY": "127.0.0.1",
    }
    project.matrix["models"]["tiny"] = {
        "license": "Apache-2.0",
        "weights": {"hub": "me/mine", "revision": COMMIT},
        "gguf": {"hub": "me/files", "revision": COMMIT, "file": "mine.gguf"},
    }
    project.matrix["tiers"]["smoke"].update(cells=[NF4, F16], time_limit=300.0)
    project.matrix["tiers"]["smoke"]["memory"]["processes"] = 1
    with hub.serving() as address:
        result = project.run("-m", "memory or tokenizer", HF_ENDPOINT=address)
    assert {v.status for v in result.verdicts} == {Status.NO_BASELINE}, result.output
    assert set(result.measured) == {NF4, F16}
    # The commit pins them: nobody is asked again, and the tokenizer makes other texts of what was fetched.
    project.matrix["tiers"]["smoke"]["tokenizer"]["characters"] = 200
    again = project.run("-m", "tokenizer", "-k", "F16", HF_ENDPOINT="http://127.0.0.1:9")
    assert {v.status for v in again.verdicts} == {Status.NO_BASELINE}, again.output
