"""Estimate the operating characteristics of the gates: detection rates of effects of known size, and false alarms.

`python -m quantgate.proofs.power` replays recorded measurements with effects added, and judges them by
`quantgate.judge.compare` at the level of a whole run.
"""
