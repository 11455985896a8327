"""The next-token distributions do not move further from the reference's than they were. A reference has no case."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("divergence", references=False)
def test_divergence(quantgate_case: Gate) -> None:
    quantgate_case.check()
