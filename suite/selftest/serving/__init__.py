"""Tests of what talks to model servers."""
