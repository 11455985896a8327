"""The model agrees with the texts that its reference wrote as often as before. No more of its own texts are endless or
end in a loop, and in the baseline's environment they repeat token by token."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("generation")
def test_generation(quantgate_case: Gate) -> None:
    quantgate_case.check()
