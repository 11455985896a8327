"""Tests of the history: files of runs, series, events."""
