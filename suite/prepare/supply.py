"""What a cell's process is given: its checkpoint and its workload, made in the cache where missing.

Runs in the parent, which decides from file names alone; the making is done in processes of its own. The name of
whatever is made contains a hash of all that went into it: source, scheme, producer's version and build.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from suite.assets import Asset, cache_dir, fetch, load_assets, sha256_of
from suite.errors import AssetError, InputError
from suite.files import hash_of, write_atomic
from suite.matrix import FIXTURES, Cell, Matrix, Model, Source, Tier, read_toml
from suite.records import Preparation
from suite.run.environment import llama_library_hash, suite_code_hash, versions
from suite.run.isolate import run_isolated

ASSETS = FIXTURES / "assets.toml"
TASKS = FIXTURES / "tasks.toml"
TIME_LIMIT = 3600.0
"""Seconds that making one thing may take; a hub download of a large model is the longest."""

OnProgress = Callable[[str, float, float], None]


class Supply:
    """Checkpoints and workloads of one matrix and tier. Methods raise AssetError, InputError, MeasurementError."""

    def __init__(self, matrix: Matrix, tier: Tier, threads: int, logs: Path, on_progress: OnProgress, text: Path | None):
        self._matrix = matrix
        self._tier = tier
        self._threads = threads
        self._logs = logs
        self._on_progress = on_progress
        self._own_text = text
        self._assets = load_assets(ASSETS)
        self._fetched: dict[str, Path] = {}
        self._hashes: dict[Path, str] = {}
        self._errors: dict[str, Exception] = {}

    def available(self, model: Model) -> str:
        """Why this model is left out on this machine; empty when it is not."""
        for source in (model.weights, model.gguf):
            asset = self._assets.get(source.asset) if source and source.asset else None
            if asset and not asset.accepted:
                return f"{asset.licence}: set {asset.opt_in}=1 to accept them"
        return ""

    def checkpoint(self, cell: Cell) -> Path:
        """The folder of safetensors or the GGUF file that the cell's backend loads."""
        model = self._matrix.models[cell.model]
        if cell.checkpoint == "safetensors":
            return self._safetensors(cell.model, model)
        if model.gguf is None:
            raise InputError(f"{self._matrix.path}: models.{cell.model}.gguf: is missing; {cell.id} needs a GGUF file")
        ftype = cell.options.get("ftype")
        if not isinstance(ftype, str):
            raise InputError(f"{self._matrix.path}: backends.{cell.backend}.schemes.{cell.scheme}.ftype: is missing")
        full = self._quantized(cell.model, self._locate(model.gguf), self.source_hash(cell.model), "F16")
        return full if ftype == "F16" else self._quantized(cell.model, full, self.source_hash(cell.model), ftype)

    def source_hash(self, name: str) -> str:
        """Identity of the model's weights before any quantization."""
        model = self._matrix.models[name]
        return hash_of([self._identity(s) for s in (model.weights, model.gguf) if s])

    def workload_hash(self, name: str) -> str:
        """Identity of the workload of one model: what was asked for, and what the makers were."""
        return hash_of([self.source_hash(name), self._workload_arguments(name, located=False), _makers(["transformers", "tokenizers", "lm_eval", "datasets"])])

    def workload(self, name: str) -> Path:
        """The folder with tokenized texts and tasks of one model."""
        output = cache_dir() / "workloads" / f"{name}-{self.workload_hash(name)}"
        if not output.exists():
            self._make(output, f"tokenize texts and tasks for {name}", "suite.prepare.workload:make_workload",
                       lambda: self._workload_arguments(name, located=True))  # fmt: skip
        return output

    def _safetensors(self, name: str, model: Model) -> Path:
        if model.weights is not None:
            return self._locate(model.weights)
        assert model.gguf is not None
        gguf = self._locate(model.gguf)
        key = hash_of([self.source_hash(name), "safetensors", _makers(["transformers", "gguf"])])
        output = cache_dir() / "checkpoints" / f"{name}-safetensors-{key}"
        if not output.exists():
            self._make(output, f"make safetensors of {name}", "suite.prepare.checkpoints:safetensors_from_gguf",
                       lambda: {"gguf": str(gguf)})  # fmt: skip
        return output

    def _quantized(self, name: str, source: Path, source_hash: str, ftype: str) -> Path:
        key = hash_of([source_hash, ftype, _makers(["llama-cpp-python"]), llama_library_hash()])
        output = cache_dir() / "checkpoints" / f"{name}-{ftype}-{key}.gguf"
        if not output.exists():
            self._make(output, f"quantize {name} to {ftype}", "suite.prepare.checkpoints:quantize_gguf",
                       lambda: {"gguf": str(source), "ftype": ftype, "threads": self._threads})  # fmt: skip
        return output

    def _locate(self, source: Source) -> Path:
        """Fetch the source where needed; its folder, or the file it names."""
        if source.asset is not None:
            folder = self._fetch(source.asset)
        elif source.hub is not None:
            key = hash_of([source.hub, source.revision, source.file])
            folder = cache_dir() / "hub" / f"{source.hub.replace('/', '--')}-{key}"
            if not folder.exists():
                arguments = {"hub": source.hub, "revision": source.revision, "file": source.file}
                self._make(folder, f"fetch {source.hub}", "suite.prepare.checkpoints:hub_checkpoint", lambda: arguments)
        else:
            assert source.path is not None
            folder = source.path.expanduser()
            if not folder.is_absolute():
                folder = self._matrix.path.parent / folder
        found = folder / source.file if source.file else folder
        if not found.exists():
            raise AssetError(f"{found}: no such file or folder (named by {self._matrix.path})")
        return found

    def _identity(self, source: Source) -> Any:
        """What pins the content of a source; a local path is hashed, as nothing else pins it."""
        if source.asset is not None:
            asset = self._assets.get(source.asset)
            if asset is None:
                raise InputError(f"{self._matrix.path}: no asset {source.asset!r}. Known: {', '.join(self._assets)}")
            return [[p.sha256 for p in asset.parts], source.file]
        if source.hub is not None:
            return [source.hub, source.revision, source.file]
        return self._content_hash(self._locate(source))

    def _content_hash(self, path: Path) -> str:
        if path not in self._hashes:
            files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*.json")])
            if not files:
                raise AssetError(f"{path}: holds no safetensors (other formats are not loaded: they can run code)")
            self._hashes[path] = hash_of([sha256_of(f) for f in files])
        return self._hashes[path]

    def _fetch(self, name: str) -> Path:
        if name not in self._fetched:
            def show(text: str, done: int, total: int) -> None:
                self._on_progress(text, done, total)

            self._fetched[name] = fetch(name, self._assets, progress=show)
        return self._fetched[name]

    def _workload_arguments(self, name: str, *, located: bool) -> dict[str, Any]:
        """Arguments of the workload's maker; with `located`, files are fetched and named by their path."""
        model = self._matrix.models[name]
        options = self._tier.workload
        data = read_toml(TASKS)
        entry = lambda kind, key: _located(self._data_entry(data, kind, key), self._fetch if located else None, self._assets)  # noqa: E731
        texts, tasks, lines = {}, {}, None
        if "perplexity" in options:
            own = options["perplexity"]
            from suite.measure.perplexity import Options, text_tokens

            texts[own["text"]] = {**entry("texts", own["text"]), "tokens": text_tokens(Options.model_validate(own))}
        if "accuracy" in options:
            from suite.measure.accuracy import Options as AccuracyOptions

            accuracy = AccuracyOptions.model_validate(options["accuracy"])
            tasks = {t: {**entry("tasks", t), "items": accuracy.items} for t in accuracy.tasks}
        if "tokenizer" in options:
            own = options["tokenizer"]
            lines = {**entry("texts", own["text"]), "characters": own.get("characters", 20000)}
        arguments: dict[str, Any] = {"add_bos": model.add_bos, "texts": texts, "tasks": tasks, "lines": lines}
        if located:
            source = model.weights or model.gguf
            assert source is not None
            arguments["tokenizer"] = str(self._locate(source))
        return arguments

    def _data_entry(self, data: dict[str, Any], kind: str, key: str) -> dict[str, Any]:
        if kind == "texts" and self._own_text is not None:
            return {"path": str(self._own_text), "sha256": sha256_of(self._own_text)}
        if kind == "texts" and key not in data["texts"]:
            raise InputError(f"{self._matrix.path}: no text {key!r}. Known in {TASKS.name}: {', '.join(data['texts'])}")
        return dict(data[kind].get(key, {}))

    def _make(self, output: Path, title: str, maker: str, arguments: Callable[[], dict[str, Any]]) -> None:
        """Run a maker unless another run makes the same thing meanwhile. A failure is remembered for this run."""
        if str(output) in self._errors:
            raise self._errors[str(output)]
        locks = cache_dir() / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(locks / f"{output.name}.lock"):
                if output.exists():
                    return
                job = Preparation(title=title, maker=maker, arguments=arguments(), output=output)
                self._on_progress(title, 0, 1)
                run_isolated(
                    job,
                    self._logs / f"{output.name}.log",
                    timeout=TIME_LIMIT,
                    on_progress=lambda phase, done, total: self._on_progress(f"{title}: {phase}", done, total),
                )
        except Exception as error:
            self._errors[str(output)] = error
            raise


def _located(entry: dict[str, Any], fetch_asset: Callable[[str], Path] | None, assets: dict[str, Asset]) -> dict[str, Any]:
    """A data entry with its asset's files as paths; or, for hashing, with the asset's checksums."""
    entry = dict(entry)
    name = entry.pop("asset", None)
    if name is None:
        return entry
    if fetch_asset is None:
        return {**entry, "asset": [p.sha256 for p in assets[name].parts]}
    root = fetch_asset(name)
    return {**entry, **{k: str(root / entry[k]) for k in ("folder", "jsonl") if k in entry}}


def _makers(packages: list[str]) -> list[Any]:
    return [versions()[p] for p in packages] + [suite_code_hash("prepare")]
