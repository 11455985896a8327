"""The backend's own tokenizer gives the ids that the model's tokenizer gives."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("tokenizer")
def test_tokenizer(quantgate_case: Gate) -> None:
    quantgate_case.check()
