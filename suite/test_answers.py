"""As many questions of the tier's tasks are answered correctly in writing as before, and as many answers have the form
that the task asks for: in each task, and in all tasks together."""

import pytest
from quantgate.plugin.case import Gate


@pytest.mark.quantgate("answers", each="tasks")
def test_answers(quantgate_case: Gate) -> None:
    quantgate_case.check()


@pytest.mark.quantgate("answers/pooled")
def test_all_answers(quantgate_case: Gate) -> None:
    quantgate_case.check()
