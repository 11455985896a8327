"""Whole runs of a model with a chat template: texts and tasks asked through it and without."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from selftest.plugin.runs import F16, Q4
from selftest.supply.copies import edit

if TYPE_CHECKING:
    from pathlib import Path

    from selftest.project import Project
    from selftest.tiny import TinyModel

REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def with_template(project: Project, tiny: TinyModel, template: str = REFUSES_SYSTEM) -> None:
    folder: Path = shutil.copytree(tiny.safetensors, project.folder / "chatty")
    edit(folder / "tokenizer_config.json", chat_template=template)
    project.matrix["models"]["tiny"]["weights"]["path"] = str(folder)


def test_texts_go_through_the_template_and_what_does_not_is_noted_once_for_the_model(
    project: Project, tiny: TinyModel
) -> None:
    with_template(project, tiny)
    tier = project.matrix["tiers"]["smoke"]
    tier["perplexity"] |= {"chat": True}
    tier["divergence"] = {"text": "boolq", "n_ctx": 32, "windows": 16}
    (project.folder / "mine.toml").write_text('chats = ["How?", "Why?"]')
    tier["generation"] = {"prompts": "mine.toml", "items": 2, "tokens": 2, "chat": False}
    result = project.run("-m", "perplexity or divergence or generation")
    assert result.status == 0, result.output
    conditions = project.measurement(Q4).metrics["perplexity"].conditions
    assert conditions["chat"] is True
    assert conditions["template"]
    assert "chat" not in project.measurement(Q4).metrics["divergence/kl_mean"].conditions
    output = " ".join(result.output.split())
    assert (
        output.count("the model has a chat template, which generation does not use; chat = true uses it") == 1
    )
    assert "tiny: the model has a chat template" in output


def test_a_template_that_refuses_leaves_the_other_cases(project: Project, tiny: TinyModel) -> None:
    with_template(project, tiny)
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["perplexity"] |= {"chat": True, "system": "Be brief."}
    (project.folder / "mine.toml").write_text('chats = ["How?", ["Why?", "So.", "When?"]]')
    tier["generation"] = {"prompts": "mine.toml", "items": 2, "tokens": 2, "system": "Be brief."}
    result = project.run("-m", "perplexity or tokenizer or generation")
    assert result.status == 10, result.output
    assert result.failed() == [f"generation[{F16}]", f"perplexity[{F16}]"]
    assert result.verdict(F16, "generation").text.startswith(
        "prompts 'mine.toml': the model's chat template refuses"
    )
    assert result.verdict(F16, "perplexity").text.startswith(
        "a text with chat = true: the model's chat template refuses a conversation of system, user "
        "(TemplateError: no system role): leave `system` out"
    )


def test_in_a_comparison_of_environments_too_each_case_says_what_it_lacks_itself(project: Project) -> None:
    """Of a model without a template nothing can be measured on either side, so no process is started."""
    tier = project.matrix["tiers"]["smoke"]
    tier["cells"] = [F16]
    tier["perplexity"] |= {"chat": True}
    tier["generation"] = {"items": 2, "tokens": 2}
    result = project.run("--against", sys.executable, "-m", "perplexity or generation")
    assert result.status == 10, result.output
    assert result.processes == []
    for request, begin in (("perplexity", "a text with chat = true"), ("generation", "prompts 'everyday'")):
        assert (
            result.verdict(F16, request).text == f"{begin}: the model has no chat template: set chat = false"
        )
