"""What all records have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

FORMAT = 3
"""Version of the records on disk. A file with a larger one was written by a newer quantgate."""

Scalar = str | int | float | bool | None


class Record(BaseModel):
    """Base class: immutable; refuses unknown keys and non-finite floats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
