"""Read and record how much unchanged code varies: between instruction sets, and from process to process.

`fixtures/noise.json` is made from result folders of real runs: `python -m quantgate.proofs.power --record DIR ...
--other DIR`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from quantgate.errors import InputError
from quantgate.files import write_atomic
from quantgate.paths import FIXTURES
from quantgate.proofs.power.nested import split
from quantgate.proofs.power.study import ELSEWHERE, HERE
from quantgate.records import Measurement, Metric, Record
from quantgate.run.against import alternation
from quantgate.run.merge import merge

NOISE = FIXTURES / "noise.json"
REFERENCES = ("transformers/fp32", "llamacpp/F16")
"""Two libraries that compute the same weights; their difference stands in where no other is recorded."""

DEFAULT = "fp32 against F16"

Cells = Mapping[str, Mapping[str, Metric]]


class Sitting(Record):
    """One run on unchanged code: timings and peaks of each cell, process by process, in order."""

    cells: dict[str, Measurement]


class Noise(Record):
    """Recorded variation. origin: what the paired differences were taken between. paired: the differences of each unit,
    by cell and metric. place: where they occur."""

    origin: str = DEFAULT
    paired: dict[str, dict[str, list[float]]] = Field(default_factory=dict)
    sittings: list[Sitting] = Field(default_factory=list)
    place: str = ELSEWHERE

    def without_differences(self) -> Noise:
        """Return the noise with paired differences of zero: on one machine measurements repeat to the last digit."""
        zeros = {c: {n: [0.0] * len(v) for n, v in metrics.items()} for c, metrics in self.paired.items()}
        return self.model_copy(update={"paired": zeros, "place": HERE, "origin": "the same numbers again"})

    def differences(self, cell: str, name: str) -> list[float]:
        """Return the differences of one paired metric. Raises InputError where none are recorded."""
        try:
            return self.paired[cell][name]
        except KeyError:
            raise InputError(
                f"{NOISE.name}: no harmless differences of {name} of {cell}; --record them"
            ) from None


def load_noise(cells: Cells, path: Path = NOISE) -> Noise:
    """Read the record. Cells without recorded differences get those between the model's two reference cells.

    Raises InputError for a file that is not what `--record` writes.
    """
    try:
        noise = Noise.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; `python -m quantgate.proofs.power --record DIR` makes it"
        ) from None
    except ValidationError as error:
        raise InputError(
            f"{path}: not what --record writes: {error.errors()[0]['msg']}; record anew"
        ) from None
    paired = {cell: _between_references(cell, cells) | noise.paired.get(cell, {}) for cell in cells}
    return noise.model_copy(update={"paired": paired})


def _between_references(cell: str, cells: Cells) -> dict[str, list[float]]:
    model = cell.split("/")[0]
    one, other = (cells.get(f"{model}/{reference}", {}) for reference in REFERENCES)
    return differences(one, other)


def differences(old: Mapping[str, Metric], new: Mapping[str, Metric]) -> dict[str, list[float]]:
    """Return new minus old of the metrics that are deterministic on one machine, by name: of each unit of a paired
    metric, or of the value of a level without samples. Metrics of other units are left out."""
    values = {}
    for name, metric in old.items():
        other = new.get(name)
        if other is None or other.conditions != metric.conditions:
            continue
        if metric.kind == "paired":
            values[name] = [b - a for a, b in zip(metric.samples or (), other.samples or (), strict=True)]
        elif metric.kind == "level" and not metric.samples:
            values[name] = [other.value - metric.value]
    return values


def read_results(folder: Path) -> dict[str, Measurement]:
    """Read the records of one run, by cell id; `folder` belongs to a tier (`.quantgate/smoke`). An A/B run of equal
    environments counts as one run: the processes of both sides in their order.

    Raises InputError where there are none.
    """
    records = {}
    for file in sorted(folder.glob("*/*/*.json")):
        if "~" not in file.name:
            one = Measurement.model_validate_json(file.read_bytes())
            if one.complete:
                other = file.with_name(f"{file.stem}~old.json")
                old = Measurement.model_validate_json(other.read_bytes()) if other.exists() else None
                # An earlier A/B run may have left a file beside the record of a later plain run.
                records[one.cell] = _in_turns(old, one) if old is not None and old.run == one.run else one
    if not records:
        raise InputError(f"{folder}: no measurements; name the folder of a tier, such as .quantgate/smoke")
    return records


def _in_turns(old: Measurement, new: Measurement) -> Measurement:
    """Merge both sides of an A/B run, process by process in their order."""
    metrics = dict(new.metrics)
    for group in {name.split("/")[0] for name, metric in new.metrics.items() if metric.nested}:
        sides = {"old": split(old, group), "new": split(new, group)}
        (run,) = {m.beside for n, m in new.metrics.items() if m.nested and n.startswith(f"{group}/")}
        order = alternation(len(sides["new"]), f"{run} {new.cell}")
        turns = [sides[side][number] for number, pair in enumerate(order) for side in pair]
        metrics |= {n: m.model_copy(update={"beside": None}) for n, m in merge(turns).metrics.items()}
    return new.model_copy(update={"metrics": metrics})


def record(folders: Iterable[Path], others: Iterable[Path], cells: Cells, path: Path = NOISE) -> Noise:
    """Write `path`: timings and peaks of the runs in `folders`, and the paired differences between the runs in `others`
    (each under another instruction set or build) and the baselines."""
    paired: dict[str, dict[str, list[float]]] = {}
    kernels = []
    for run in map(read_results, others):
        kernels += [str(result.environment.get("kernels")) for result in run.values()]
        for cell, result in run.items():
            for name, values in differences(cells.get(cell, {}), result.metrics).items():
                paired.setdefault(cell, {}).setdefault(name, []).extend(map(_short, values))
    origin = (
        f"other kernels ({' | '.join(dict.fromkeys(kernels))}) against the baselines" if kernels else DEFAULT
    )
    noise = Noise(
        origin=origin, paired=paired, sittings=[_sitting(read_results(folder)) for folder in folders]
    )
    # A line per metric.
    text = noise.model_dump_json(exclude_defaults=True).replace('{"value"', '\n{"value"')
    write_atomic(path, text.encode() + b"\n")
    return noise


def _sitting(run: Mapping[str, Measurement]) -> Sitting:
    """Keep only what varies between processes, and of the environment only what identifies the machine."""
    return Sitting(
        cells={
            cell: result.model_copy(
                update={
                    "metrics": {
                        name: metric.model_copy(
                            update={
                                "conditions": {},
                                "samples": [_short(s) for s in metric.samples],
                                "raw": {k: v for k, v in metric.raw.items() if k == "tokens"},
                            }
                        )
                        for name, metric in result.metrics.items()
                        if metric.nested and metric.samples
                    },
                    "environment": {k: v for k, v in result.environment.items() if k in MACHINE},
                    "requests": [],
                    "phases": {},
                }
            )
            for cell, result in run.items()
        }
    )


def _short(value: float) -> float:
    """Round to six digits, more than the noise justifies."""
    return float(f"{value:.6g}")


MACHINE = ("cpu", "cores", "os", "threads", "kernels", "governor", "torch", "llama.cpp")
