"""Where weights and data come from: an asset, a hub repository at a revision, a local path."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantgate.cache.kept import keep, read_entry
from quantgate.checkpoint.contents import contents
from quantgate.config.matrix import Model, Source
from quantgate.config.toml_input import read_toml
from quantgate.errors import AssetError, InputError
from quantgate.files import hash_of
from quantgate.paths import FIXTURES, cache_dir
from quantgate.supply.assets import Asset, fetch, load_assets, sha256_of
from quantgate.supply.maker import Maker

ASSETS = FIXTURES / "assets.toml"
TASKS = FIXTURES / "tasks.toml"
LOCATIONS = ("folder", "folders", "jsonl", "csv", "yaml")
"""Keys of an entry of tasks.toml that say where inside an asset its rows lie."""
ROWS = ("supply/documents.py", "supply/continuation.py", "supply/yaml_rows.py")
"""The code that reads them."""
OWN_TASKS = FIXTURES / "tasks"
"""Tasks that lm-evaluation-harness has not, in its own format: `<name>.yaml`."""


DOWNLOAD = 10
"""A download may take so many times the limit of making a thing."""


class Sources:
    """Locates and identifies what the matrix at `path` names. Identifying never fetches an asset or a repository.

    text: the user's own file, in place of every text. Methods raise AssetError and InputError, and what `maker` raises.
    """

    def __init__(self, path: Path, text: Path | None, maker: Maker) -> None:
        self._path = path
        self._user_text = text.absolute() if text else None  # makers work in a folder of their own
        self._maker = maker
        self._assets = load_assets(ASSETS)
        self._data = read_toml(TASKS)
        self._fetched: dict[str, Path | AssetError] = {}
        self._hashes: dict[Path, str] = {}

    def refused(self, model: Model) -> str:
        """Which licence terms the user has not accepted yet, and how to; empty when there are none."""
        for source in (model.weights, model.gguf):
            asset = self._assets.get(source.asset) if source and source.asset else None
            if asset and not asset.accepted:
                return f"{asset.licence}: set {asset.opt_in}=1 to accept"
        return ""

    def locate(self, source: Source) -> Path:
        """The file or folder of a source, fetched where needed."""
        if source.asset is not None:
            folder = self.asset(source.asset)
        elif source.hub is not None:
            key = hash_of([source.hub, source.revision, source.file])
            folder = cache_dir() / "hub" / f"{source.hub.replace('/', '--')}-{key}"
            if folder.exists() and read_entry(folder) is None:
                keep(folder)  # fetched by an earlier version, which renamed it when it was whole
            arguments = {"hub": source.hub, "revision": source.revision, "file": source.file}
            self._maker.make(
                folder,
                f"fetch {source.hub}",
                "quantgate.supply.checkpoints:hub_checkpoint",
                lambda: arguments,
                time_limit=DOWNLOAD * self._maker.time_limit,
            )
        else:
            folder = self._local(source)
        path = folder / source.file if source.file else folder
        if not path.exists():
            raise AssetError(f"{path}: no such file or folder (named by {self._path})")
        return path

    def identity(self, source: Source) -> Any:
        """What pins the content of a source; a local path is hashed, as nothing else pins it."""
        if source.asset is not None:
            return [[p.sha256 for p in self.pinned(source.asset).parts], source.file]
        if source.hub is not None:
            return [source.hub, source.revision, source.file]
        path = self.locate(source)
        if path not in self._hashes:
            files = contents(path)
            # A file's own name is not part of what it holds; the names of several files, and their folders, are.
            self._hashes[path] = hash_of(
                [[name if len(files) > 1 else "", sha256_of(file)] for name, file in files.items()]
            )
        return self._hashes[path]

    def model_hash(self, model: Model) -> str:
        """Identity of a model's weights before any quantization."""
        return hash_of([self.identity(source) for source in (model.weights, model.gguf) if source])

    def text_identity(self, name: str) -> Any:
        """What pins a text; the user's own file by its content alone, wherever it lies."""
        if self._user_text is not None:
            return sha256_of(self._user_text)
        return self._entry("texts", name, self._checksums)

    def text(self, name: str) -> dict[str, Any]:
        """Where a text lies, for `quantgate.supply.workload`."""
        return self._entry("texts", name, self.asset)

    def calibration_identity(self, name: str) -> Any:
        """What pins the sequences that quantizers are calibrated on."""
        return [self._entry("calibration", name, self._checksums), self._data["calibration"]]

    def calibration(self, name: str) -> dict[str, Any]:
        """Where a calibration set lies and what is taken of it, as `quantgate.supply.calibration` takes it: the
        user's own
        text (`--text`) never takes its place."""
        return {"text": self._entry("calibration", name, self.asset), **self._data["calibration"]}

    def task_identity(self, name: str) -> Any:
        """What pins a task's documents, and of a task of our own its prompts."""
        own = OWN_TASKS / f"{name}.yaml"
        entry = self._entry("tasks", name, self._checksums)
        return [entry, sha256_of(own)] if own.exists() else entry

    def task(self, name: str) -> dict[str, Any]:
        """Where a task's documents lie; empty: lm-eval finds them itself."""
        return self._entry("tasks", name, self.asset)

    def check_task(self, name: str) -> None:
        """Raise InputError for a task that neither tasks.toml nor lm-evaluation-harness knows."""
        if name not in self._data["tasks"]:
            task_file(name)

    def _entry(self, kind: str, name: str, place: Callable[[str], Any]) -> dict[str, Any]:
        if kind == "texts" and self._user_text is not None:
            return {"path": str(self._user_text), "sha256": sha256_of(self._user_text)}
        table = self._data["tasks" if kind == "tasks" else "texts"]
        if kind != "tasks" and name not in table:
            raise InputError(f"{self._path}: no text {name!r}. Known in {TASKS.name}: {', '.join(table)}")
        entry = dict(table.get(name, {}))
        asset = entry.pop("asset", None)
        if asset is None:
            return entry
        root = place(asset)
        if not isinstance(root, Path):
            return {**entry, "asset": root}
        return {**entry, **{k: str(root / entry[k]) for k in LOCATIONS if k in entry}}

    def _checksums(self, asset: str) -> list[str]:
        return [p.sha256 for p in self.pinned(asset).parts]

    def pinned(self, name: str) -> Asset:
        """What is pinned of an asset. Raises InputError."""
        if name not in self._assets:
            raise InputError(
                f"{self._path}: no asset {name!r}. Known in {ASSETS.name}: {', '.join(self._assets)}"
            )
        return self._assets[name]

    def asset(self, name: str) -> Path:
        """The folder of an asset, fetched where needed."""
        if name not in self._fetched:
            self.pinned(name)
            try:
                self._fetched[name] = fetch(
                    name,
                    self._assets,
                    progress=self._maker.on_progress,
                    limit=DOWNLOAD * self._maker.time_limit,
                )
            except AssetError as error:
                self._fetched[name] = error  # a download that fails takes minutes: once a run is enough
        outcome = self._fetched[name]
        if isinstance(outcome, AssetError):
            raise outcome
        return outcome

    def _local(self, source: Source) -> Path:
        """A path of the matrix file is relative to that file."""
        assert source.path is not None
        return (self._path.parent / source.path.expanduser()).absolute()


def task_file(name: str) -> Path:
    """The YAML file of a task: ours, or that of lm-evaluation-harness, found by reading, without importing the package:
    its own index of all tasks takes ten seconds. Raises InputError: unknown task."""
    if (own := OWN_TASKS / f"{name}.yaml").exists():
        return own
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"task {name!r}: lm-eval is not installed: pip install lm-eval")
    line = re.compile(
        rb"""^["']?task["']?:\s*["']?""" + re.escape(name).encode() + rb"""["']?\s*$""", re.MULTILINE
    )
    for file in sorted((Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml")):
        if line.search(file.read_bytes()):
            return file
    raise InputError(
        f"unknown task {name!r}: lm-evaluation-harness has none of this name (`lm-eval ls tasks` lists them)"
    )
