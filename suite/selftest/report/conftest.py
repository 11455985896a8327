"""Fixtures of the reports' tests."""

from selftest.browser import browser

__all__ = ["browser"]
