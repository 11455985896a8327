"""Proof that the gate sees: named faults, each put into the measuring process, each of which some gate must catch.

`python -m quantgate.proofs.faults` measures every fault of the catalogue and holds it against the committed
baselines, through
the same code that a case takes; what shows only in time or memory is held against clean processes beside it.

A fault is one function in `weights`, `computation`, `precision`, `generation`, `scoring`, `data`, `speed` or
`memory`. The judge, the metrics and
the backends know nothing of them: `worker` puts them in place, in front of the measuring process's own entry point.
"""
