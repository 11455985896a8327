"""Turn pydantic's errors into sentences for the person who wrote a value: what it must be, what it is instead, and the
nearest value that is allowed."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

MISSING = "is missing; add it"
_LONGEST = 60
"""Characters of a value that a sentence repeats."""

_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    list: "a list",
    tuple: "a list",
    dict: "a table",
}
_TYPE_ERRORS: dict[str, Any] = {
    **dict.fromkeys(("bool_type", "bool_parsing"), bool),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), int),
    **dict.fromkeys(("float_type", "float_parsing"), float),
    **dict.fromkeys(("string_type", "path_type"), str),
    **dict.fromkeys(("list_type", "tuple_type"), list),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), dict),
}
"""By pydantic's name of an error, what the value should have been."""
_BOUNDS = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be {} or more"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be {} or less"),
}


class WrongValueError(ValueError):
    """Raised by a validator for a key below the one that it validates."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem


class Mistake(NamedTuple):
    """key: dotted, as TOML writes it; empty: the whole table."""

    key: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.key}: {self.sentence}" if self.key else self.sentence


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Return what is wrong, a sentence for each key. Of a value that may be of several kinds, pydantic reports an error
    for each of them: here, one."""
    groups: dict[tuple[Any, ...], list[tuple[Any, _Place]]] = {}
    for one in error.errors(include_url=False):
        place = _place(model, one["loc"])
        key = (place.union_at is not None, *one["loc"][: place.union_at])
        groups.setdefault(key, []).append((one, place))
    mistakes: dict[Mistake, None] = {}
    for group in groups.values():
        chosen = [_mistake(one, place, model) for one, place in group if not _of_another_kind(one, place)]
        if not chosen:
            one, place = group[0]
            chosen = [Mistake(place.key, f"must be {_described(place.union)}, not {shown(one['input'])}")]
        mistakes.update(dict.fromkeys(chosen))
    return list(mistakes)


def allowed(name: str, names: Iterable[str]) -> str:
    """Return the sentence that lists what may stand in place of `name`, the nearest first."""
    names = sorted(names)
    close = nearest(name, names)
    hint = f"Did you mean {close!r}? " if close is not None else ""
    return f"{hint}Allowed: {', '.join(names)}" if names else "There are none"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant; one that differs in case alone comes first. None: none is near."""
    by_case: dict[str, str] = {}
    for one in names:
        by_case.setdefault(one.casefold(), one)
    if name.casefold() in by_case:
        return by_case[name.casefold()]
    close = difflib.get_close_matches(name.casefold(), by_case, n=1)
    return by_case[close[0]] if close else None


def shown(value: Any) -> str:
    """Return a value with its kind where that is text: `the text 'x'`."""
    return f"the text {plainly(value)}" if isinstance(value, str) else plainly(value)


def plainly(value: Any) -> str:
    """Return a value as a sentence names it; of a long one, the beginning."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _short(repr(value))
    if isinstance(value, int | float):
        return _short(str(value))
    if isinstance(value, Mapping):
        return "a table" if value else "an empty table"
    if isinstance(value, Sequence):
        return "a list" if value else "an empty list"
    if isinstance(value, datetime.date | datetime.time):
        return f"the date or time {value}"
    return _short(repr(value))


def dotted(parts: Iterable[str | int]) -> str:
    """Return a key as TOML writes it, with the number of an entry of a list, from 1 on."""
    key = ""
    for part in parts:
        if isinstance(part, int):
            key += f" (entry {part + 1})"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part) is not None
            key += ("." if key else "") + (part if bare else f'"{part}"')
    return key


class _Place(NamedTuple):
    """key: as `Mistake`. annotation: what the model says there; None: it says nothing. union: the kinds that a value
    on the way may be of; union_at: how many parts of the location lead to it."""

    key: str
    annotation: Any
    union: Any = None
    union_at: int | None = None


def _place(model: type[BaseModel], location: Sequence[str | int]) -> _Place:
    """Follow a location through the annotations. After a value of several kinds pydantic names the kind that it tried,
    which is no key."""
    current: Any = model
    keys: list[str | int] = []
    union: Any = None
    union_at: int | None = None
    for number, part in enumerate(location):
        current = _plain(current)
        if _is_union(current):
            if union_at is None:
                union, union_at = current, number
            deeper = number + 1 < len(location)
            current = next((a for a in get_args(current) if not deeper or _has_parts(_plain(a))), None)
        elif part == "[key]":
            current = None
        else:
            keys.append(part)
            current = _inner(current, part)
    return _Place(dotted(keys), _plain(current), union, union_at)


def _inner(annotation: Any, part: str | int) -> Any:
    """Return what stands under one key, or at one place of a list."""
    if hasattr(annotation, "model_fields"):
        fields = annotation.model_fields
        return fields[part].annotation if part in fields else None
    arguments = get_args(annotation)
    return arguments[-1] if arguments and _has_parts(annotation) else None


def _plain(annotation: Any) -> Any:
    """Return an annotation without its constraints, and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - made of a list
    return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _has_parts(annotation: Any) -> bool:
    return hasattr(annotation, "model_fields") or get_origin(annotation) in (dict, list, tuple, Mapping)


def _of_another_kind(error: Any, place: _Place) -> bool:
    """Return whether an error, at a value of several kinds, says no more than that it is not of the one tried."""
    here = place.union_at is not None and len(error["loc"]) <= place.union_at + 1
    return here and (error["type"] in _TYPE_ERRORS or error["type"] == "literal_error")


def _described(annotation: Any) -> str:
    """Return what a value has to be: `a whole number or 'auto'`."""
    annotation = _plain(annotation)
    if _is_union(annotation):
        return " or ".join(dict.fromkeys(_described(kind) for kind in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if hasattr(annotation, "model_fields"):
        return _KINDS[dict]
    return _KINDS.get(get_origin(annotation) or annotation, _KINDS[str])


def _mistake(error: Any, place: _Place, model: type[BaseModel]) -> Mistake:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        fields = getattr(_place(model, error["loc"][:-1]).annotation, "model_fields", ())
        return Mistake(place.key, f"unknown key. {allowed(name, fields)}")
    if kind == "missing":
        return Mistake(place.key, MISSING)
    if kind == "value_error":
        cause = context["error"]
        if isinstance(cause, WrongValueError):
            return Mistake(".".join(filter(None, (place.key, cause.key))), cause.problem)
        return Mistake(place.key, str(cause))
    if kind == "literal_error":
        choices = [str(choice) for choice in get_args(place.annotation)] or re.findall(
            "'([^']*)'", context["expected"]
        )
        return Mistake(place.key, f"cannot be {plainly(value)}. {allowed(str(value), choices)}")
    if kind in _TYPE_ERRORS:
        needed = _KINDS[_TYPE_ERRORS[kind]]
        if get_origin(place.annotation) is list and hasattr(get_args(place.annotation)[0], "model_fields"):
            needed = f"tables, [[{place.key}]]"
        return Mistake(place.key, f"must be {needed}, not {shown(value)}")
    if kind in _BOUNDS:
        bound, text = _BOUNDS[kind]
        return Mistake(place.key, f"{text.format(_number(context[bound]))}, not {shown(value)}")
    if kind == "finite_number":
        return Mistake(place.key, f"must be a finite number, not {shown(value)}")
    if kind in ("too_short", "string_too_short"):
        count = context["min_length"]
        many = f"must have {count} or more entries, not {len(value)}"
        return Mistake(place.key, many if count > 1 else "must not be empty")
    if kind == "string_pattern_mismatch":
        return Mistake(place.key, f"must match {context['pattern']}, which {plainly(value)} does not")
    sentence = re.sub("^Input should be", "must be", error["msg"])
    return Mistake(place.key, f"{sentence[0].lower()}{sentence[1:]}, not {shown(value)}")


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
