"""Describe a run itself, for the reports: machine, environments, what was left out and why."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from quantgate.baselines.store import without_cell
from quantgate.judge.anchor import ANCHOR
from quantgate.judge.environment import changed_environment
from quantgate.machine.environment import Environment, commit_of, instruction_sets
from quantgate.measure.groups import TEMPLATE
from quantgate.plugin.wiring import Wiring
from quantgate.records import Scalar
from quantgate.report import RunInfo
from quantgate.words import plural

if TYPE_CHECKING:
    from quantgate.plugin.finish import Outcome


def run_info(wiring: Wiring, outcome: Outcome, status: int) -> RunInfo:
    """Describe the run itself, for the reports."""
    common, rest = in_common(outcome.environments)
    options, place = wiring.options, wiring.fingerprint
    return RunInfo(
        tier=options.tier,
        run=wiring.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        place=machine_class(wiring),
        seconds=time.monotonic() - wiring.begin,
        machine=machine_in_words(place)
        + (f", {plural(len(wiring.machines.nodes), 'node')}" if wiring.machines else ""),
        environment=common,
        environments=rest,
        min_judged=options.min_judged,
        exit_status=str(status),
        skipped=list(wiring.skipped.items()),
        left_out=outcome.left_out,
        notes=list(
            dict.fromkeys(
                [*outcome.notes, *_without_verdict(outcome), *notes_of(wiring), *_no_longer_gated(wiring)]
            )
        ),
        commit=commit_of(wiring.root, "--short") or "",
        matrix=str(options.matrix or ""),
        updating=options.update_baselines,
        against=options.against or "",
        changed=_changed(wiring, outcome),
        bits=wiring.bits,
        options=options.words,
    )


def machine_in_words(place: Mapping[str, Any]) -> str:
    """Return processor, cores, memory and threads; nodes of a cluster that differ have a text in place of a number."""
    cores = place["cores"]
    many = plural(cores, "core") if isinstance(cores, int) else f"{cores} cores"
    return f"{place['cpu']}, {many}, {place['memory_gb']} GB, {plural(place['threads'], 'thread')}"


def notes_of(wiring: Wiring) -> Iterator[tuple[str, str]]:
    """Yield the notes of the records, each with the id of its cell, or with the model whose note it is; then why a
    measured cell has no cases of a metric group."""
    for cell, record in (wiring.measurer.finished() if wiring.needs else {}).items():
        for about, note in record.notes.items():
            yield (cell.partition("/")[0] if about == TEMPLATE else cell), note
    for (cell, group), why in wiring.without.items():
        if cell in wiring.needs:
            yield cell, f"no {group} cases: {why}"


def _without_verdict(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Yield a note for each case that failed and has no verdict, so that no sentence on the verdicts tells of it."""
    for case in outcome.failed:
        if case not in outcome.cases:
            yield case, "failed before it came to a verdict: see its traceback, of a fixture or a plugin"


def _no_longer_gated(wiring: Wiring) -> Iterator[tuple[str, str]]:
    """Yield a note for each baseline that no cell of the tier has: nothing else says that its cell is gone. Not where
    another matrix than the repository's own is held against its baselines, nor in an A/B run."""
    options = wiring.options
    if options.against is None and (options.matrix is None or options.baselines is not None):
        gone = f"has a baseline, but is no cell of tier {options.tier}: if that is meant, delete the baseline"
        for cell in without_cell(wiring.baselines, options.tier, wiring.cells):
            yield cell, gone


def machine_class(wiring: Wiring) -> dict[str, Scalar]:
    """Return what timings and kernels depend on, so that values of different machines are not compared as a series."""
    facts = {key: wiring.fingerprint[key] for key in ("cpu", "cores", "cpu_quota", "os", "threads")}
    image = os.environ.get("ImageOS")  # noqa: SIM112 - so GitHub spells it
    isa = wiring.fingerprint.get("isa") or instruction_sets()
    others = {"isa": isa, "image": image, "name": wiring.options.machine}
    return {**facts, **{key: value for key, value in others.items() if value}}


def in_common(
    environments: Mapping[str, Mapping[str, Scalar]],
) -> tuple[dict[str, Scalar], dict[str, dict[str, Scalar]]]:
    """Return what all environments have in common, and the rest of each."""
    first, *others = environments.values() or [{}]
    common = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    rest = {name: {k: v for k, v in one.items() if k not in common} for name, one in environments.items()}
    return common, {name: one for name, one in rest.items() if one}


def _changed(wiring: Wiring, outcome: Outcome) -> list[str]:
    """List what differs from the environment of the baselines, or from the other one of an A/B run: versions and builds
    of its libraries, and what the measuring processes recorded."""
    lines = [line for v in outcome.verdicts if not v.metric.endswith(ANCHOR) for line in v.environment]
    if wiring.against is not None:
        lines = [*changed_environment(wiring.against.libraries, Environment().libraries), *lines]
    return list(dict.fromkeys(lines))
