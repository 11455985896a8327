"""TOML files that people write: read and validated, with messages that name file, key and remedy."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantgate.config.sentences import Mistake, mistakes
from quantgate.errors import InputError
from quantgate.files import decoded

M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises InputError: missing, unreadable, malformed (with line and column)."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # or a path with a NUL
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', error)})") from None
    try:
        return tomllib.loads(decoded(path, raw))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: is not valid TOML: its lists and tables are nested too deep") from None
    except ValueError:  # Python's limit, which it words for programmers
        raise InputError(f"{path}: is not valid TOML: it has a number of thousands of digits") from None


def validate(
    model: type[M], data: Mapping[str, Any], path: Path, where: str = "", *, strict: bool = False
) -> M:
    """Build `model` from `data`. strict: no text stands for a number. Raises InputError that lists file, key, what is
    wrong, what is allowed."""
    try:
        return model.model_validate(data, strict=strict or None)
    except ValidationError as error:
        below = (
            Mistake(".".join(filter(None, (where, one.key))), one.sentence) for one in mistakes(error, model)
        )
        raise InputError("\n".join(f"{path}: {one}" for one in below)) from None
