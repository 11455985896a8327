"""TOML files that people write: read and validated, with messages that name file, key and remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

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
    except (ValueError, RecursionError) as error:  # or a number of ten thousand digits, or nested too deep
        raise InputError(f"{path}: is not valid TOML: {error}") from None


def validate(model: type[M], data: Mapping[str, Any], path: Path, where: str = "") -> M:
    """Build `model` from `data`. Raises InputError that lists file, key, what is wrong, what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(e, path, where, model) for e in error.errors()]
        raise InputError("\n".join(lines)) from None


def _explain(error: Any, path: Path, where: str, model: type[BaseModel]) -> str:
    key = ".".join([*([where] if where else []), *(str(part) for part in error["loc"])])
    if error["type"] == "extra_forbidden":
        *parents, last = error["loc"]
        return f"{path}: {key}: unknown key. {allowed(str(last), _fields(model, parents))}"
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


def _fields(model: type[BaseModel], location: Iterable[Any]) -> list[str]:
    """Return the names of the fields at `location`, through models and dicts and lists of models."""
    current: Any = model
    for part in location:
        if hasattr(current, "model_fields"):
            current = current.model_fields[part].annotation if part in current.model_fields else None
        else:
            current = _inner_model(current)
    if not hasattr(current, "model_fields"):
        current = _inner_model(current)
    return list(getattr(current, "model_fields", ()))


def _inner_model(annotation: Any) -> Any:
    """Return the model in `dict[str, Model]`, `list[Model]` or `Model | None`; None: there is none."""
    return next((a for a in reversed(get_args(annotation)) if hasattr(a, "model_fields")), None)


def allowed(name: str, names: Iterable[str]) -> str:
    """Return the sentence that lists what may stand in place of `name`, the nearest first."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"
