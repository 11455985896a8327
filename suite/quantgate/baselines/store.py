"""Find and read the baselines of cells.

<root>/<model>/<backend>/<scheme>/<tier>.toml                the summary, read by reviewers in a diff
<root>/<model>/<backend>/<scheme>/<tier>.<sha>.json          values per window and item, named by the summary
<root>/<model>/<backend>/<scheme>/<tier>.<sha>.anchors.json  the same of the anchors
<root>/<model>/<backend>/<scheme>/<tier>@<machine>.toml      absolute timings (kind "rounds"), with raw file
<root>/machines/<machine>.toml                               what distinguishes that machine from others
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from quantgate.baselines.baseline import Baseline
from quantgate.baselines.file import read_file
from quantgate.baselines.toml_file import locked, parse_toml, write_toml
from quantgate.errors import InputError, QuantgateError
from quantgate.files import checked_name
from quantgate.judge.environment import changed_environment
from quantgate.judge.kernels import name_of
from quantgate.records import FORMAT, Metric, Record, Scalar, Scalars


def baseline_path(root: Path, cell: str, tier: str, machine: str | None = None) -> Path:
    """Return the summary file of a cell. All names can be part of a path: those of the matrix were checked when it was
    read, that of the machine by `check_machine`."""
    at = "" if machine is None else f"@{machine}"
    return root / cell / f"{tier}{at}.toml"


def read(root: Path, cell: str, tier: str, machine: str | None = None) -> Baseline | None:
    """Read the baseline of a cell, with the absolute timings of `machine` if one is named; None: no file.

    Raises InputError (file, key, remedy) for a file that is corrupted, incomplete or of a newer format.
    """
    general = read_file(baseline_path(root, cell, tier), cell, tier, None)
    if machine is None:
        return general
    timings = read_file(baseline_path(root, cell, tier, machine), cell, tier, machine)
    if general is None or timings is None:
        return general or timings
    return general.model_copy(
        update={
            "machine": machine,
            "metrics": general.metrics | timings.metrics,
            "kept": general.kept | {name: timings.origin(name) for name in timings.metrics},
            "anchors": general.anchors | timings.anchors,
            "digests": general.digests | timings.digests,
        }
    )


def without_cell(root: Path, tier: str, cells: Collection[str]) -> list[str]:
    """Return the ids of cells that have a baseline of this tier and are none of its `cells`: removed, or renamed."""
    there = (file.parent.relative_to(root).as_posix() for file in root.glob(f"*/*/*/{tier}.toml"))
    return sorted(cell for cell in there if cell not in cells)


class StoredBaselines:
    """The baselines of a tier below `root`, with the absolute timings of `machine` if one is named; each is read once.

    What a run judges by and what its update replaces is one and the same reading.
    """

    def __init__(self, root: Path, tier: str, machine: str | None = None) -> None:
        self._place = (root, tier, machine)
        self._read: dict[str, Baseline | QuantgateError | None] = {}

    def of(self, cell: str) -> Baseline | None:
        """Return the baseline of a cell, by its id; None where there is none. Raises QuantgateError, the same one each
        time, for one that cannot be read."""
        if cell not in self._read:
            root, tier, machine = self._place
            try:
                self._read[cell] = read(root, cell, tier, machine)
            except QuantgateError as error:
                self._read[cell] = error
        baseline = self._read[cell]
        if isinstance(baseline, QuantgateError):
            raise baseline
        return baseline

    def metrics(self, cells: Iterable[str]) -> dict[str, dict[str, Metric]]:
        """Return the metrics of each of the cells that has a baseline which can be read."""
        return {cell: baseline.metrics for cell, baseline in self._readable(cells)}

    def anchored(self, cells: Iterable[str]) -> dict[str, set[str]]:
        """Return, of each of these cells, the metrics that have an anchor other than the baseline itself."""
        return {cell: set(map(name_of, baseline.anchors)) for cell, baseline in self._readable(cells)}

    def _readable(self, cells: Iterable[str]) -> Iterator[tuple[str, Baseline]]:
        for cell in cells:
            with suppress(QuantgateError):  # the cases of the cell say why not
                if baseline := self.of(cell):
                    yield cell, baseline


class _Machine(Record):
    """The file of a machine that a user named (`--machine`), whose absolute timings are kept."""

    format: int
    name: str
    fingerprint: Scalars


def check_machine(root: Path, name: str, fingerprint: Mapping[str, Scalar], *, create: bool = False) -> None:
    """Check that this is the machine that `name` stands for. create: record a new name as this machine.

    Raises InputError naming the keys that differ, or where the machine is not recorded.
    """
    path = _machine_path(root, name)
    if create:
        with locked(root):
            if not path.exists():
                machine = _Machine(format=FORMAT, name=name, fingerprint=dict(sorted(fingerprint.items())))
                comment = f"Where the timings in *@{name}.toml were measured (--machine {name})"
                write_toml(path, comment, machine.model_dump())
    if changed := changed_environment(read_machine(root, name).fingerprint, fingerprint):
        raise InputError(
            f"{path}: this is not the machine recorded as {name!r}: {', '.join(changed)}; give it another name"
            f" (--machine), or delete that file and the *@{name}.toml baselines and update again"
        )


def read_machine(root: Path, name: str) -> _Machine:
    """Read the file of a machine. Raises InputError where the machine is not recorded, or the file is damaged."""
    path = _machine_path(root, name)
    if (parsed := parse_toml(path, _Machine)) is None:
        raise InputError(
            f"{path}: no machine {name!r} is recorded; --update-baselines --machine {name} records this one"
        )
    return parsed[0]


def _machine_path(root: Path, name: str) -> Path:
    return root / "machines" / f"{checked_name('machine', name)}.toml"
