"""TOML files that people write: read and validated, with messages that name file, key and remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quantgate.errors import InputError

M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises InputError: missing, unreadable, malformed (with line and column)."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # malformed, a number of ten thousand digits, nested a thousand times
        raise InputError(f"{path}: is not valid TOML: {error}") from None


def validate(model: type[M], data: Mapping[str, Any], path: Path, where: str = "") -> M:
    """Build `model` from `data`. Raises InputError that lists file, key, what is wrong, what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e, path, where, model) for e in error.errors()]
        raise InputError("\n".join(lines)) from None


def _explain(error: Any, path: Path, where: str, model: type[BaseModel]) -> str:
    key = ".".join([*([where] if where else []), *(str(p) for p in error["loc"])])
    if error["type"] == "extra_forbidden":
        fields = _fields(model, error["loc"][:-1])
        return f"{path}: {key}: unknown key. {allowed(str(error['loc'][-1]), fields)}"
    if error["type"] == "missing":
        return f"{path}: {key}: is missing; add it"
    hint = ""
    if error["type"] == "literal_error":
        choices = re.findall("'([^']*)'", error["ctx"]["expected"])
        hint = "".join(
            f". Did you mean {close!r}?"
            for close in difflib.get_close_matches(str(error["input"]), choices, n=1)
        )
    return f"{path}: {key}: {error['msg']} (got {error['input']!r}){hint}"


def _fields(model: type[BaseModel], loc: Iterable[Any]) -> list[str]:
    """Names of the fields at `loc`: follows model and dict-of-model annotations."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation if part in current.model_fields else None
        else:
            current = _last_model(current)
        if current is None:
            return []
    last = current if isinstance(current, type) else _last_model(current)
    return list(last.model_fields) if isinstance(last, type) and issubclass(last, BaseModel) else []


def _last_model(annotation: Any) -> Any:
    models = [
        a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)
    ]
    return models[-1] if models else None


def allowed(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"
