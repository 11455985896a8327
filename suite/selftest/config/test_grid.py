"""Grids of schemes: every combination, named; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from quantgate.config.reading import expand_grids, schemes_of
from quantgate.errors import InputError
from quantgate.proofs.papers.section import is_simulated
from quantgate.run.inputs import load_matrix


def test_every_combination_once_in_order() -> None:
    grid = {
        "name": "{kind}{bits}-b{block}",
        "dtype": "float32",
        "kind": ["int", "float"],
        "block": 64,
        "bits": [3, 4],
    }
    schemes = schemes_of("here", [grid])
    assert list(schemes) == ["int3-b64", "int4-b64", "float3-b64", "float4-b64"]
    assert schemes["float3-b64"] == {"dtype": "float32", "kind": "float", "block": 64, "bits": 3}


def test_grids_stand_beside_what_is_written_out() -> None:
    entry: dict[str, Any] = {
        "schemes": {"fp16": {"bits": 16}},
        "grid": [{"name": "a{bits}", "bits": [3, 4]}, {"name": "b{bits}", "bits": 5}],
    }
    expand_grids(Path("m.toml"), {"one": entry, "two": {"schemes": {}}})
    assert list(entry["schemes"]) == ["fp16", "a3", "a4", "b5"]
    assert "grid" not in entry


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ("x", "m.toml: backends.b.grid: must be tables, [[backends.b.grid]], not the text 'x'"),
        ([3], "m.toml: backends.b.grid (entry 1): must be a table, not 3"),
        (
            [{"name": "a", "bits": 3}, {"name": "b{bits}", "bits": []}],
            "m.toml: backends.b.grid (entry 2).bits: must not be empty, as the grid would make no scheme",
        ),
        (
            [{"bits": [3]}],
            'm.toml: backends.b.grid (entry 1).name: is missing; give a pattern such as "int{bits}-b{block}"',
        ),
        (
            [{"name": "a{bit}", "bits": [3]}],
            "m.toml: backends.b.grid (entry 1).name: 'a{bit}' has {bit}, and the grid has no key 'bit'. "
            "Did you mean 'bits'? Allowed: bits",
        ),
        (
            [{"name": "a{bits", "bits": [3]}],
            "m.toml: backends.b.grid (entry 1).name: 'a{bits' is not a pattern",
        ),
        (
            [{"name": "a{bits}", "bits": [3, 4], "block": [64, 128]}],
            "m.toml: backends.b.grid (entry 1).name: makes 'a3' twice: put every key that varies into the pattern",
        ),
        (
            [{"name": "{bits}p", "bits": [8, 16]}],
            "m.toml: backends.b.grid: makes '16p', which backends.b.schemes already has: remove one",
        ),
    ],
)
def test_what_is_refused(grids: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        expand_grids(Path("m.toml"), {"b": {"schemes": {"16p": {}}, "grid": grids}})
    assert str(caught.value).startswith(message)


def test_the_grid_of_the_paper_is_whole() -> None:
    cells = load_matrix().cells("papers")
    grid = [c for c in cells if c.backend == "kbit" and c.scheme not in ("fp16", "nf4-b64", "fp4-b64")]
    axes = [
        {c.model for c in grid},
        {c.scheme_options["data_type"] for c in grid},
        {c.scheme_options["block"] for c in grid},
        {c.scheme_options["bits"] for c in grid},
    ]
    assert [len(axis) for axis in axes] == [4, 4, 4, 6]
    assert len(grid) == 384
    assert all(is_simulated(c) for c in grid)
    references = {c.reference for c in grid}
    assert references < {c.id for c in cells}
    assert not any(is_simulated(c) for c in cells if c.id in references)
