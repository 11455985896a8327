"""What all records have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

FORMAT = 3
"""Version of the records on disk. A file with a larger one was written by a newer quantgate."""

Scalar = str | int | float | bool | None


def _without_none(table: dict[str, Scalar]) -> dict[str, Scalar]:
    return {key: value for key, value in table.items() if value is not None}


Scalars = Annotated[dict[str, Scalar], AfterValidator(_without_none)]
"""Scalars by name. A key of None is dropped: TOML cannot hold it, and an absent key means the same."""


class Record(BaseModel):
    """Base class: immutable; refuses unknown keys and non-finite floats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
