"""What is installed here, the code that measures, the shipped tolerances: looked up once, where runs are forked from. A
run that is to find other libraries begins in a fresh interpreter (`Project.start`)."""

from __future__ import annotations

from quantgate.backends.spec import backends
from quantgate.machine.builds import builds
from quantgate.machine.environment import MEASURING, code_hash, versions
from quantgate.measure.groups import metric_groups
from quantgate.run.gates import idle_as_shipped

versions()
builds()
code_hash(*MEASURING)
idle_as_shipped()
for extensible in (backends, metric_groups):  # a run may have others, by entry points
    extensible.cache_clear()
