"""What is installed here, and the code that measures: looked up once, where runs are forked from. A run that is to find
other libraries begins in a fresh interpreter (`Project.start`)."""

from __future__ import annotations

from quantgate.machine.builds import builds
from quantgate.machine.environment import MEASURING, code_hash, versions

versions()
builds()
code_hash(*MEASURING)
