"""Where weights and data come from: an asset, a hub repository at a revision, a local path."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from quantgate.cache.kept import keep, read_entry
from quantgate.checkpoint.contents import contents
from quantgate.config.data import FILES, PATTERNS, Data, Entry, TaskEntry, TextEntry
from quantgate.config.matrix import Model
from quantgate.config.sentences import allowed
from quantgate.config.source import Source
from quantgate.config.toml_input import read_toml, validate
from quantgate.errors import AssetError, InputError
from quantgate.files import files_at, hash_of, sha256_of
from quantgate.machine.builds import package_folder
from quantgate.paths import FIXTURES, cache_dir
from quantgate.supply.assets import Asset, fetch, load_assets
from quantgate.supply.documents import MAKERS
from quantgate.supply.maker import Maker
from quantgate.supply.rules import rules_beside

ASSETS = FIXTURES / "assets.toml"
TASKS = FIXTURES / "tasks.toml"
LOCATIONS = (*FILES, "nltk_data")
"""Keys of an entry that say where inside an asset its rows lie, or what its rules read."""
PLACES = ("file", *LOCATIONS, "path")
"""All keys that name files."""
ROW_CODE = ("supply/documents.py", "supply/rows.py")
"""The code that reads them."""
CHATS = FIXTURES / "chats"
"""Conversations that a tier can name: `<name>.toml`."""
TASK_FILES = FIXTURES / "tasks"
"""Tasks that lm-evaluation-harness lacks, in its format: `<name>.yaml`."""

DOWNLOAD = 10
"""The time limit of a download, as a multiple of the limit for making one thing."""


class Sources:
    """Locates and identifies what the matrix at `path` names. Identifying never fetches an asset or a repository.

    text: the user's own file, in place of every text. texts, tasks: those of the matrix, which go before those that are
    shipped. Methods raise AssetError and InputError, and what `maker` raises.
    """

    def __init__(
        self,
        path: Path,
        text: Path | None,
        maker: Maker,
        texts: Mapping[str, TextEntry] | None = None,
        tasks: Mapping[str, TaskEntry] | None = None,
    ) -> None:
        self._path = path
        self._user_text = text.absolute() if text else None  # makers work in a folder of their own
        self._maker = maker
        self._assets = load_assets(ASSETS)
        data = validate(Data, read_toml(TASKS), TASKS, strict=True)
        self._calibration = data.calibration.model_dump()
        self._entries: dict[str, dict[str, tuple[Path, Entry]]] = {"texts": {}, "tasks": {}}
        """By kind and name, an entry and the file that it stands in."""
        for file, kind, entries in (
            (TASKS, "texts", data.texts), (TASKS, "tasks", data.tasks), (path, "texts", texts), (path, "tasks", tasks)
        ):  # fmt: skip
            self._entries[kind] |= {name: (file, entry) for name, entry in (entries or {}).items()}
        self._hashes: dict[Path, str] = {}
        self.sha256 = functools.cache(sha256_of)
        """Of a file; a large one is read once a run."""

    def refused(self, *sources: Source | None) -> str:
        """Return which licence terms the user has yet to accept, and how; empty: none."""
        for source in sources:
            asset = self._assets.get(source.asset) if source and source.asset else None
            if asset and not asset.accepted:
                return f"{asset.licence}: set {asset.opt_in}=1 to accept"
        return ""

    def locate(self, source: Source) -> Path:
        """Return the file or folder of a source, fetched if necessary."""
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
            local = source.beside(self._path)
            assert local is not None
            folder = local
        path = folder / source.file if source.file else folder
        if not path.exists():
            raise AssetError(f"{path}: no such file or folder (named by {self._path})")
        return path

    def identity(self, source: Source) -> Any:
        """Return what pins the content of a source. A local path is hashed, as nothing else pins it."""
        if source.asset is not None:
            return [[p.sha256 for p in self.pinned(source.asset).parts], source.file]
        if source.hub is not None:
            return [source.hub, source.revision, source.file]
        path = self.locate(source)
        if path not in self._hashes:
            files = contents(path)
            # The name of a single file does not matter; the names of several files, and their folders, do.
            self._hashes[path] = hash_of(
                [[name if len(files) > 1 else "", self.sha256(file)] for name, file in files.items()]
            )
        return self._hashes[path]

    def model_hash(self, model: Model) -> str:
        """Identity of a model's weights before any quantization."""
        return hash_of([self.identity(source) for source in (model.weights, model.gguf) if source])

    def text_identity(self, name: str) -> Any:
        """Return what pins a text; for the user's file, its content alone."""
        if self._user_text is not None:
            return self.sha256(self._user_text)
        return self._pinned("texts", name)

    def text(self, name: str) -> dict[str, Any]:
        """Return the place of a text, for `quantgate.supply.encoder.read_text`."""
        if self._user_text is not None:
            return {"path": str(self._user_text)}
        return self._located("texts", name)

    def calibration_identity(self, name: str) -> Any:
        """Return what pins the sequences that quantizers are calibrated on."""
        return [self._pinned("texts", name), self._calibration]

    def calibration(self, name: str) -> dict[str, Any]:
        """Return the place and size of a calibration set for `quantgate.supply.calibration`. The user's text (`--text`)
        never replaces it."""
        return {"text": self._located("texts", name), **self._calibration}

    def task_identity(self, name: str) -> Any:
        """Return what pins a task's documents and, for one of `TASK_FILES` or of the user's, its prompts."""
        file, entry = TASK_FILES / f"{name}.yaml", self._pinned("tasks", name)
        return [entry, sha256_of(file)] if file.exists() and "file" not in entry else entry

    def task(self, name: str) -> dict[str, Any]:
        """Return the place of a task's documents; empty: lm-eval fetches them."""
        return self._located("tasks", name)

    def prompts_identity(self, name: str) -> str:
        """Return what pins a file of conversations."""
        return self.sha256(Path(self.prompts(name)["path"]))

    def prompts(self, name: str) -> dict[str, str]:
        """Return the place of the conversations that `prompts` of a tier names: a file of `fixtures/chats`, or one of
        the user's, `*.toml`, beside the matrix."""
        is_file = name.endswith(".toml")
        path = self._path.parent / name if is_file else CHATS / f"{name}.toml"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in CHATS.glob("*.toml")))
            problem = f"none of this name; there are {there}, or name a file, *.toml"
            if is_file:
                problem = f"{path}: no such file"
            raise InputError(f"{self._path}: prompts = {name!r}: {problem}")
        return {"path": str(path.absolute())}

    def check_task(self, name: str) -> None:
        """Raise InputError for a task that is neither in tasks.toml nor in the matrix nor in lm-evaluation-harness, and
        for data of it that should be here and are not."""
        there, entry = self._entry("tasks", name)
        self._pinned("tasks", name)
        if "file" not in entry and (there != TASKS or not entry):
            try:
                task_file(name)
            except InputError as error:
                raise InputError(
                    f"{self._path}: {error}; one of yours needs [tasks.{name}] with `file`"
                ) from error

    def _entry(self, kind: str, name: str) -> tuple[Path, dict[str, Any]]:
        """Return an entry as it was written, and its file. Raises InputError for an unknown text."""
        entries = self._entries[kind]
        if name in entries:
            file, entry = entries[name]
            written = entry.model_dump(exclude_unset=True)
            if "documents" in written and written["documents"] not in MAKERS:
                problem = f"cannot be {written['documents']!r}. {allowed(written['documents'], MAKERS)}"
                raise InputError(f"{file}: {kind}.{name}.documents: {problem}")
            return file, written
        if kind == "texts":
            raise InputError(
                f"{self._path}: no text {name!r}; {TASKS.name} has: {', '.join(entries)}; one of yours needs "
                f"[texts.{name}] here"
            )
        return TASKS, {}

    def _pinned(self, kind: str, name: str) -> dict[str, Any]:
        """Return an entry with the checksums of its asset, or of its files here."""
        there, entry = self._entry(kind, name)
        here = PLACES if "asset" not in entry else ("file",)
        for key, written in [(key, entry[key]) for key in here if key in entry]:
            path = _absolute(there.parent, written)
            files = rules_beside(path) if key == "file" else files_at(path, pattern=key in PATTERNS)
            if not files:
                raise InputError(f"{there}: {kind}.{name}.{key}: {written}: no such file or folder")
            entry[key] = hash_of([[written, [[file.name, self.sha256(file)] for file in files]]])
        if "asset" in entry:
            entry["asset"] = [part.sha256 for part in self.pinned(entry["asset"]).parts]
        return entry

    def _located(self, kind: str, name: str) -> dict[str, Any]:
        """Return an entry with absolute paths, its asset fetched if necessary."""
        there, entry = self._entry(kind, name)
        asset = entry.pop("asset", None)
        root = there.parent if asset is None else self.asset(asset)
        roots = {key: there.parent if key == "file" else root for key in PLACES if key in entry}
        return {**entry, **{key: str(_absolute(folder, entry[key])) for key, folder in roots.items()}}

    def pinned(self, name: str) -> Asset:
        """Return the pins of an asset. Raises InputError."""
        if name not in self._assets:
            raise InputError(f"{self._path}: no asset {name!r}; {ASSETS.name} has: {', '.join(self._assets)}")
        return self._assets[name]

    def asset(self, name: str) -> Path:
        """Return the folder of an asset, fetched if necessary."""
        maker, limit = self._maker, DOWNLOAD * self._maker.time_limit
        fetched = partial(fetch, name, self._assets, on_progress=maker.on_progress, limit=limit)
        return maker.once(self.pinned(name).folder, fetched)  # a download that fails takes minutes


def _absolute(folder: Path, written: str) -> Path:
    return (folder / Path(written).expanduser()).absolute()


def task_file(name: str) -> Path:
    """Return the YAML file of a task: ours, or that of lm-evaluation-harness. The files are searched as text, without
    importing the package, whose index of all tasks takes ten seconds. Raises InputError for an unknown task."""
    if (file := TASK_FILES / f"{name}.yaml").exists():
        return file
    harness = package_folder("lm_eval")
    if harness is None:
        raise InputError(f"task {name!r}: lm-eval is not installed: pip install lm-eval")
    return _defining(harness, name)


@functools.cache
def _defining(harness: Path, name: str) -> Path:
    definition, grouped = _line(rb"""^["']?task["']?:\s*""", name), False
    group = _line(rb"^(?:(?:group|tag):\s*|tag:\n(?:\s+- .*\n)*\s+- )", name)
    files = (harness / "tasks").rglob("*.yaml")
    for file in sorted(files, key=lambda file: (name not in str(file), file)):  # most are where it says so
        content = file.read_bytes()
        if definition.search(content):
            return file
        grouped = grouped or group.search(content) is not None
    problem = "lm-evaluation-harness has none of this name"
    if grouped:
        problem = "a group of tasks of lm-evaluation-harness, not a task: name those of it that you want"
    raise InputError(f"unknown task {name!r}: {problem} (`lm-eval ls tasks` lists them)")


def _line(before: bytes, name: str) -> re.Pattern[bytes]:
    """Return the pattern of a line with a name at its end, after another pattern."""
    return re.compile(before + rb"""["']?""" + re.escape(name).encode() + rb"""["']?\s*$""", re.MULTILINE)
