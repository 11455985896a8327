"""Operating characteristics of the gates: how often each finds a known effect, how often it alarms without one.

Recorded measurements are replayed with effects added and judged by the gate's own judge, at its own level
(`python -m quantgate.proofs.power`). Nothing here is imported by the gate.
"""
