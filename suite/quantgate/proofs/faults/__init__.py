"""Prove that the gates work: inject faults into the measuring process, each of which a gate must catch.

`python -m quantgate.proofs.faults` measures every fault of the catalogue and compares it with the committed baselines
by the code that judges every case. Faults that only time or memory shows are compared with clean processes instead.

A fault is one function in `weights`, `computation`, `precision`, `generation`, `writing`, `scoring`, `data`, `speed` or
`memory`.
Judge, metrics and backends do not know about faults: `worker` applies one before it starts the measuring process.
"""
