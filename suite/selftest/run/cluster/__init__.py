"""Tests of the room: run/cluster."""
