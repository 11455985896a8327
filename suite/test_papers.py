"""What papers found about quantized models is still what is measured here."""

import pytest
from quantgate.proofs.papers.plugin import FindingCase


@pytest.mark.papers
def test_finding(quantgate_finding: FindingCase) -> None:
    quantgate_finding.check()
