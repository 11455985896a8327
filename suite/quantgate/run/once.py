"""Compute a value once a key and give the same value, or the same error, each time after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from quantgate.errors import QuantgateError, unexpected
from quantgate.run.record_files import file_error

T = TypeVar("T")


def once(results: dict[str, T | QuantgateError], key: str, compute: Callable[[], T]) -> T:
    """Return `results[key]`, computed where it is missing. Raises QuantgateError, the same one each time."""
    if key not in results:
        try:
            results[key] = compute()
        except QuantgateError as error:
            results[key] = error
        except OSError as error:
            results[key] = file_error(error)
        except Exception as error:
            results[key] = unexpected(error)
    result = results[key]
    if isinstance(result, QuantgateError):
        raise result
    return result
