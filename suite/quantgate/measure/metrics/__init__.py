"""One file per metric group. `suite/quantgate/measure/metrics/<group>.py` offers

`Options`: pydantic model of the keys that matrix.toml may give the group in a tier, with defaults;
`METRICS`: what it may give, by name (`quantgate.records.Declared`): a tolerance for what no group declares is refused;
`measure(session, parts) -> dict[str, Metric]`: the metrics of one loaded model, by full name. `parts` are the
parts of the group that the collected cases need (`arc_easy` of `accuracy/arc_easy`; empty: all of it).
A group that `Options` gives `processes` varies between processes; one with `in_turns` works turn by turn
(`Session.turns`), so that two processes can be measured side by side.
`needs(options) -> Needs`, where the group takes texts or tasks from the workload;
`expected(options) -> dict[str, Metric]`, where it knows the size of its samples beforehand: the gated metrics, but for
their values, so that a run can say what they are too few for.

Groups run in the order of `ORDER`: memory first, before anything else has left traces in the process.
These files import neither torch nor a backend, so that the parent process can validate options with them.
"""

from __future__ import annotations

ORDER = ["memory", "throughput"]
"""Groups that run first, in this order; the others follow by name."""
