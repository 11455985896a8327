"""Fixtures of the history's tests."""

from selftest.browser import browser

__all__ = ["browser"]
