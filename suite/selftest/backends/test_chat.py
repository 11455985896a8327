"""Conversations by a checkpoint's own template: a GGUF file's, by llama.cpp, against the model's, by transformers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.supply.chat import make_conversations
from quantgate.supply.encoder import Encoder

from selftest.supply.copies import edit, set_metadata

if TYPE_CHECKING:
    from quantgate.items import Conversation

    from selftest.tiny import TinyModel

TEMPLATE = (
    "{{ bos_token }}{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}{% if loop.index0 and m['role'] == messages[loop.index0 - 1]['role'] %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{{ strftime_now('%d %b %Y') }}\n"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
LLAMA = {"device": "cpu"}
FLOATS = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def folder(tiny: TinyModel, tmp_path: Path) -> Path:
    return shutil.copytree(tiny.safetensors, tmp_path / "copy")


def with_template(source: Path, target: Path, template: str, *, bos: bool = False) -> Path:
    """Write a copy of a GGUF file that carries this template."""
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", str(source), str(target)]
    subprocess.run([*command, "--chat-template", template, "--force"], check=True, capture_output=True)
    if bos:
        set_metadata(target, "tokenizer.ggml.add_bos_token", True)
    return target


def expected(folder: Path, template: str, add_bos: bool | None = None) -> list[Conversation]:
    if add_bos:
        edit(folder / "tokenizer_config.json", add_bos_token=True)
    encoder = Encoder(folder, add_bos)
    encoder.tokenizer.chat_template = template
    return make_conversations(encoder)


def different(backend: Any, conversations: list[Conversation]) -> list[str]:
    return [one.name for one in conversations if backend.chat(one.messages, one.tools) != one.ids]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.removeprefix("{{ bos_token }}")])
def test_llama_cpp_gives_the_ids_of_the_models_template(
    template: str, bos: bool, tiny: TinyModel, folder: Path, tmp_path: Path
) -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    conversations = expected(folder, template, bos)
    file = with_template(tiny.gguf, tmp_path / "chat.gguf", template, bos=bos)
    assert different(LlamaCpp(file, LLAMA, 1), conversations) == []
    refused = [one.name for one in conversations if one.ids is None]
    assert refused == ["two questions in a row"]
    if bos:
        assert all(one.ids.count(0) == 1 for one in conversations[:3] if one.ids)
    assert len(conversations) >= 12


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (("{{ m['role'] }}: {{", "{{ m['role'] }}:{{"), ["one question", "tools"]),
        (("m in messages %}", "m in messages if m['role'] != 'system' %}"), ["system message"]),
        (("{{ tools | tojson }}", "{{ tools }}"), ["tools", "a tool's answer"]),
        (("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}"), ["one question"]),
    ],
)
def test_a_file_with_another_template_is_seen(
    change: tuple[str, str], names: list[str], tiny: TinyModel, folder: Path, tmp_path: Path
) -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    conversations = expected(folder, TEMPLATE, add_bos=True)
    assert change[0] in TEMPLATE
    file = with_template(tiny.gguf, tmp_path / "chat.gguf", TEMPLATE.replace(*change), bos=True)
    assert set(names) <= set(different(LlamaCpp(file, LLAMA, 1), conversations))


def test_a_file_without_a_template_differs_everywhere(tiny: TinyModel, folder: Path) -> None:
    from quantgate.backends.runtime.llamacpp import LlamaCpp

    conversations = [one for one in expected(folder, TEMPLATE) if one.ids is not None]
    assert len(different(LlamaCpp(tiny.gguf, LLAMA, 1), conversations)) == len(conversations)


def test_a_folder_as_it_is_may_carry_another_template(folder: Path, tmp_path: Path) -> None:
    from quantgate.backends.runtime.transformers import Transformers

    conversations = expected(folder, TEMPLATE)
    other = shutil.copytree(folder, tmp_path / "other")
    edit(other / "tokenizer_config.json", chat_template=TEMPLATE)
    assert different(Transformers(other, FLOATS, 1), conversations) == []
    edit(other / "tokenizer_config.json", chat_template=TEMPLATE.replace("assistant:", "model:"))
    assert "one question" in different(Transformers(other, FLOATS, 1), conversations)
