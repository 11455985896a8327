"""The pytest plugin: options, cases, and what happens when a run begins and ends."""
