"""The history of a gate: what each run measured, as series over runs, and the events in them.

`record` turns a run into a file, `store` appends it to a folder, `series` reads a folder, `events` finds what happened.
"""
