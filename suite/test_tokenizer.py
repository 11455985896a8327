"""The backend's own tokenizer gives the ids that the model's tokenizer gives."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.gate("tokenizer")
def test_tokenizer(gate: Gate) -> None:
    gate.check()
