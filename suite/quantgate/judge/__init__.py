"""Compare measurements with baselines: pure functions without I/O, clock or torch. Tolerances are data
(`fixtures/tolerances.toml`).

compare      the verdicts of a case: what pytest's cases, the fault catalogue and the power study call
judge        the verdict on one metric, and whether its units are still the baseline's
texts        whether written texts are still the baseline's; anchor: losses that add up over updates
confirm      the second look at a timing or peak that seems worse
expected     absolute gates
environment  what changed between two environments; kernels: values on several kinds of kernels
nested       statistics of timings and peaks, over processes; statistics: of paired samples
sensitivity  what a sample can show, before anything gets worse
coverage     how many gates were judged; causes: which verdicts have one cause
"""
