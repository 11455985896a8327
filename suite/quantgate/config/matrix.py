"""Which cells exist: reads and validates matrix.toml (models, backends, schemes, tiers)."""

from __future__ import annotations

from fnmatch import filter as matching
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from quantgate.checkpoint.nominal import nominal_bits
from quantgate.config.data import TaskEntry, TextEntry, check_data_names
from quantgate.config.resources import Resources
from quantgate.config.sentences import allowed
from quantgate.config.source import Checkpoint, Source
from quantgate.errors import InputError
from quantgate.files import checked_name
from quantgate.paths import FIXTURES
from quantgate.records import Record, Rounding

MATRIX = FIXTURES / "matrix.toml"

Form = Literal["safetensors", "gguf", "compressed", "none"]
"""What a backend loads. `compressed`: safetensors that llmcompressor quantizes for it. `none`: nothing that is here, as
of a server that runs elsewhere."""


class Model(Record):
    """A checkpoint and its licence."""

    license: str = Field(min_length=1)
    weights: Source | None = None
    gguf: Source | None = None
    checkpoints: dict[str, Checkpoint] = Field(default_factory=dict)
    """By `backend/scheme`, what that cell loads as it is."""
    resources: dict[str, Resources] = Field(default_factory=dict)
    """By `backend/scheme` or a pattern, what such cells of this model take; a later entry before an earlier one."""
    add_bos: bool | None = None
    """Put the beginning-of-sequence token before each text and context; None: no, even if the tokenizer would."""

    @model_validator(mode="after")
    def _some(self) -> Model:
        if self.weights is None and self.gguf is None:
            raise ValueError("give weights, gguf or both")
        return self

    @property
    def tokenizer_source(self) -> Source:
        """Where the tokenizer comes from: the weights, or a model without them its GGUF."""
        source = self.weights or self.gguf
        assert source is not None
        return source


class Scheme(BaseModel):
    """One way to hold the weights. Keys beyond these go to the backend as they are."""

    model_config = {"extra": "allow", "frozen": True}
    bits: float | None = Field(default=None, gt=0, le=64)
    """None, for a scheme with `as_is`: as the checkpoint says."""
    as_is: bool = False
    """The scheme quantizes nothing: only models that name a checkpoint under it have such a cell."""
    device: Literal["cpu", "cuda"] = "cpu"
    minimum_share: float | None = Field(default=None, ge=0, le=1)
    """Share of the weights of linear layers that this scheme's precision has to hold (`memory/quantized_share`);
    None: as its backend says."""
    reference: str | None = None
    """This scheme's own reference, `backend/scheme`: a GPU cell is not timed against a CPU cell."""
    checkpoint: Form | None = None
    """What it loads, where that is not what its backend does."""
    in_process: str | None = None
    """Of a served scheme, the `backend/scheme` that runs the same weights in process: both have to agree."""
    rounding: Rounding = "activations"
    """Which tolerances it is held to; by default the widest."""
    resources: Resources = Resources()
    """What its cells take, for any model."""

    @property
    def scheme_options(self) -> dict[str, Any]:
        """What the backend is given."""
        options = {"bits": self.bits, "device": self.device, **(self.model_extra or {})}
        if self.as_is:
            options["as_is"] = True
        elif self.bits is None:
            del options["bits"]
        return options


class BackendEntry(Record):
    """Schemes of a backend, the kind of checkpoint it loads, and the cell that timings and divergence are compared
    with. minimum_share: of schemes that state none."""

    checkpoint: Form
    reference: str
    minimum_share: float | None = Field(default=None, ge=0, le=1)
    schemes: dict[str, Scheme]


class Tier(Record):
    """A set of cells, and by metric group the options of what is measured of them."""

    time_limit: float = Field(gt=0, le=10_000_000)
    cells: list[str]
    group_options: dict[str, Record]
    group_cells: dict[str, list[str]] = Field(default_factory=dict)
    """By metric group, ids or patterns of those cells that it is measured of; of a group that is not here, all."""

    def leaves_out(self, cell_id: str, group: str) -> bool:
        """Return whether a metric group is measured of other cells of the tier alone."""
        patterns = self.group_cells.get(group)
        return patterns is not None and not any(fnmatchcase(cell_id, pattern) for pattern in patterns)


class Cell(Record):
    """Model x backend x scheme. `id` is also its path below baselines/."""

    model: str
    backend: str
    scheme: str
    bits: float
    """0: the scheme leaves them to a checkpoint that is not on this machine yet, or cannot be read."""
    scheme_options: dict[str, Any]
    checkpoint: Form
    reference: str
    rounding: Rounding = "activations"
    minimum_share: float | None = None
    as_is: Checkpoint | None = None
    """What it loads as it is; None: what is made from the model's checkpoint."""
    resources: Resources = Resources()
    in_process: str = ""
    """Id of the cell that runs the same weights in process; empty: nothing is compared with it."""

    @property
    def id(self) -> str:
        return f"{self.model}/{self.backend}/{self.scheme}"

    @property
    def marks(self) -> list[str]:
        """Names that -m and -k know this cell by."""
        bits = [f"bits{self.bits:g}"] if self.bits else []
        return [self.model, self.backend, self.scheme, *bits]


NO_WORK = {"as_is", "resources", "in_process"}  # of a cell: the files have an identity of their own


def selecting(cell_id: str) -> str:
    """What -m selects this cell by, and no other: -k would take `nf4-dq` with `nf4`."""
    return " and ".join(cell_id.split("/"))


def _resources(model: Model, scheme: Scheme, name: str) -> Resources:
    """Return what a cell takes: as its scheme states, and in its place as the entries of its model do that match
    `backend/scheme` (`name`), in their order. A scheme of the CPU takes no GPU, and one of CUDA takes one at least."""
    resources = scheme.resources
    for pattern, stated in model.resources.items():
        if fnmatchcase(name, pattern):
            resources = resources.model_copy(update=stated.model_dump(exclude_none=True))
    gpus = (resources.gpus or 1) if scheme.device == "cuda" else None
    return resources.model_copy(update={"gpus": gpus})


class Matrix(Record):
    """The validated file. `path` is for messages and the reproducing command."""

    path: Path
    models: dict[str, Model]
    backends: dict[str, BackendEntry]
    tiers: dict[str, Tier]
    texts: dict[str, TextEntry] = Field(default_factory=dict)
    tasks: dict[str, TaskEntry] = Field(default_factory=dict)

    def cell(self, cell_id: str) -> Cell:
        model, backend, scheme = cell_id.split("/")
        entry = self.backends[backend]
        chosen = entry.schemes[scheme]
        options, bits = chosen.scheme_options, chosen.bits
        as_is = self.models[model].checkpoints.get(f"{backend}/{scheme}")
        if as_is is not None:
            local = as_is.beside(self.path)
            bits = bits or (nominal_bits(local) if local else 0)
            options |= {"bits": chosen.bits, "as_is": True}
        return Cell(
            model=model,
            backend=backend,
            scheme=scheme,
            bits=bits or 0,
            scheme_options=options,
            checkpoint=chosen.checkpoint or entry.checkpoint,
            reference=f"{model}/{chosen.reference or entry.reference}",
            rounding=chosen.rounding,
            minimum_share=entry.minimum_share if chosen.minimum_share is None else chosen.minimum_share,
            as_is=as_is,
            in_process=f"{model}/{chosen.in_process}" if chosen.in_process else "",
            resources=_resources(self.models[model], chosen, f"{backend}/{scheme}"),
        )

    def tier(self, name: str) -> Tier:
        """Return a tier to measure. Raises InputError: there is none of this name, or nothing in it."""
        tier = self._tier(name)
        if not tier.cells:
            raise InputError(f'{self.path}: tiers.{name}.cells: must not be empty; all cells are ["*/*/*"]')
        if not tier.group_options:
            raise InputError(
                f"{self.path}: tiers.{name}: measures nothing; add a metric group, such as [tiers.{name}.perplexity]"
            )
        return tier

    def _tier(self, name: str) -> Tier:
        if name not in self.tiers:
            raise InputError(f"{self.path}: no tier {name!r}. {allowed(name, self.tiers)}")
        return self.tiers[name]

    def cells(self, tier: str) -> list[Cell]:
        """Cells of a tier in the order of the file; a pattern stands for all ids it matches."""
        possible, chosen = self._possible(), dict[str, None]()
        for pattern in self._tier(tier).cells:
            chosen |= dict.fromkeys([pattern] if pattern in possible else matching(possible, pattern))
        return [self.cell(cell_id) for cell_id in chosen]

    def roundings(self) -> dict[str, Rounding]:
        """What each possible cell rounds, by its id."""
        return {cell_id: scheme.rounding for cell_id, scheme in self._possible().items()}

    @property
    def schemes(self) -> dict[str, Scheme]:
        """All schemes by `backend/scheme`."""
        return {
            f"{b}/{name}": one for b, entry in self.backends.items() for name, one in entry.schemes.items()
        }

    def _possible(self) -> dict[str, Scheme]:
        """By its id, the scheme of each cell that there can be."""
        schemes = self.schemes
        return {
            f"{model}/{name}": one
            for model, entry in self.models.items()
            for name, one in schemes.items()
            if not one.as_is or name in entry.checkpoints
        }

    def check_names(self) -> None:
        """Raise InputError for a name that cannot be part of a cell's id, which is also its path."""
        for kind, names in (("models", self.models), ("tiers", self.tiers)):
            for name in names:
                checked_name(f"{self.path}: {kind}:", name)
        for backend, entry in self.backends.items():
            for scheme in entry.schemes:
                checked_name(f"{self.path}: backends.{backend}.schemes:", scheme)
        check_data_names(str(self.path), self.texts, self.tasks)

    def check_patterns(self) -> None:
        """Raise InputError for a cell pattern that matches nothing, naming the part that is unknown."""
        possible = self._possible()
        for name, tier in self.tiers.items():
            for pattern in tier.cells:
                if pattern not in possible and not matching(possible, pattern):
                    raise InputError(
                        f"{self.path}: tiers.{name}.cells: {pattern!r} {self._why_unknown(pattern)}"
                    )
            ids = [cell.id for cell in self.cells(name)] if tier.group_cells else []
            for group, patterns in tier.group_cells.items():
                for pattern in patterns:
                    if not matching(ids, pattern):
                        raise InputError(
                            f"{self.path}: tiers.{name}.{group}.cells: {pattern!r} matches no cell of the tier. "
                            f"{allowed(pattern, ids)}"
                        )

    def _why_unknown(self, pattern: str) -> str:
        parts = pattern.split("/")
        if len(parts) != 3:
            return "is not of the form model/backend/scheme."
        model, backend, scheme = parts
        if not any(fnmatchcase(m, model) for m in self.models):
            return f"names a model that this file does not have: {model!r}. {allowed(model, self.models)}"
        if not any(fnmatchcase(b, backend) for b in self.backends):
            return f"names an unknown backend: {backend!r}. {allowed(backend, self.backends)}"
        schemes = [s for b, e in self.backends.items() if fnmatchcase(b, backend) for s in e.schemes]
        if any(fnmatchcase(s, scheme) for s in schemes):
            return f"names a scheme with as_is: add {backend}/{scheme} to models.{model}.checkpoints"
        return f"names a scheme that {backend} does not have: {scheme!r}. {allowed(scheme, schemes)}"
