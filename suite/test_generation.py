"""What the model writes is what its reference would write, as often as before; of the texts that it writes itself, no
more go on without an end or fall into a loop, and in the baseline's environment they are the same token by token."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("generation")
def test_generation(quantgate_case: Gate) -> None:
    quantgate_case.check()
