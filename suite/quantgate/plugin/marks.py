"""The marks of cases. Of the mark `quantgate`, names that there are not would leave a metric unmeasured, without a
word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import signature
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from quantgate.config.sentences import allowed
from quantgate.measure.groups import group_name, metric_groups

if TYPE_CHECKING:
    from quantgate.plugin.wiring import Wiring


CASE = "quantgate_case"
"""The fixture that makes a function with the mark `quantgate` a case."""


def request_of(value: Any) -> str | None:
    """Return what a case asks for in its mark; None: not a case."""
    marks = getattr(value, "pytestmark", ()) if isinstance(value, FunctionType) else ()
    mark = next((mark for mark in marks if mark.name == "quantgate"), None)
    if mark is None or CASE not in signature(value).parameters:
        return None  # the mark alone is somebody else's
    return str(mark.args[0]) if mark.args else ""


def wrong_request(request: str) -> str:
    """Return what is wrong with the request of a case's mark; empty: nothing."""
    if (group := group_name(request)) in metric_groups():
        return ""
    return (
        f"@pytest.mark.quantgate({request!r}): no metric group {group!r}. {allowed(group, metric_groups())}"
    )


def parts_of(mark: pytest.Mark, options: Any) -> list[str]:
    """Return the parts of a metric group that have a case each: the entries of the option that a mark names by `each`;
    one empty part without it. Fails the collection for an option that there is not. options: of the group."""
    if (name := mark.kwargs.get("each")) is None:
        return [""]
    parts = getattr(options, name, None)
    if not isinstance(parts, list):
        lists = [key for key in type(options).model_fields if isinstance(getattr(options, key), list)]
        pytest.fail(
            f"@pytest.mark.quantgate({mark.args[0]!r}, each={name!r}): {name} is no option of the group that is a "
            f"list. {allowed(name, lists)}",
            pytrace=False,
        )
    return [str(part) for part in parts]


def without_cases(config: pytest.Config, wiring: Wiring) -> Iterator[str]:
    """Yield, where all tests were collected and not those of a path, which metric groups of the tier no test function
    asks for."""
    if config.args_source == pytest.Config.ArgsSource.ARGS or not wiring.with_cases:
        return
    where = f"{wiring.matrix.path}: tiers.{wiring.options.tier}"
    for group in wiring.tier.group_options:
        if group not in wiring.with_cases:
            yield (
                f"{where}.{group}: is not measured, since no test asks for it: add a function with "
                f"@pytest.mark.quantgate({group!r}) that calls quantgate_case.check()"
            )


def register_marks(config: pytest.Config, names: Iterable[str]) -> None:
    """Register those marks that nobody has registered yet."""
    registered = {line.partition(":")[0] for line in config.getini("markers")}
    for name in sorted({*names} - registered):
        config.addinivalue_line(
            "markers", f"{name}: cases of this model, backend, scheme, nominal bits or metric"
        )


def exempting(config: pytest.Config) -> list[pytest.MarkDecorator]:
    """Return the marks by which other plugins leave the cases alone: pytest-timeout's limits are made for unit tests, a
    tier has its own; the measuring processes are given their work by sockets, which pytest-socket forbids."""
    there = config.pluginmanager.hasplugin
    timeout = [pytest.mark.timeout(0)] if there("timeout") else []
    return [*timeout, *([pytest.mark.enable_socket] if there("socket") else [])]
