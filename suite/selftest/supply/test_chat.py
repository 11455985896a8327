"""Chat prompts: files of conversations, the model's template rendered once, one beginning-of-sequence token, ends."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quantgate.checkpoint.template import render
from quantgate.errors import InputError
from quantgate.supply.chat import (
    encode_chat,
    ends_of,
    make_conversations,
    make_opening,
    make_prompts,
    read_chats,
)
from quantgate.supply.encoder import Encoder
from quantgate.supply.sources import CHATS

from selftest.supply.copies import edit

if TYPE_CHECKING:
    from selftest.tiny import TinyModel

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
)


def encoder_of(folder: Path, template: str | None, add_bos: bool | None = None) -> Encoder:
    if add_bos is not None:
        edit(folder / "tokenizer_config.json", add_bos_token=True)
    encoder = Encoder(folder, add_bos)
    encoder.tokenizer.chat_template = template
    return encoder


def spec(path: Path, text: str = 'chats = ["How?", ["One.", "Two.", "Three?"]]', **further: Any) -> Any:
    path.write_text(text)
    return {"path": str(path), "items": 2, "chat": True, "system": None, **further}


def test_chats_go_through_the_template_once_and_their_tokens_are_a_condition(
    folder: Path, tmp_path: Path
) -> None:
    encoder = encoder_of(folder, TEMPLATE)
    prompts = make_prompts("mine", spec(tmp_path / "c.toml"), encoder)
    texts = [encoder.tokenizer.decode(ids) for ids in prompts.items]
    assert texts == [
        "user: How?\nassistant:",
        "user: One.\nassistant: Two.\nuser: Three?\nassistant:",
    ]
    assert (prompts.chat, prompts.ends) == (True, [0])
    other = make_prompts("mine", spec(tmp_path / "c.toml", system="Be brief."), encoder)
    assert encoder.tokenizer.decode(other.items[0]) == "system: Be brief.\nuser: How?\nassistant:"
    assert other.token_hash != prompts.token_hash
    changed = encoder_of(folder, TEMPLATE.replace("assistant:", "bot:"))
    assert make_prompts("mine", spec(tmp_path / "c.toml"), changed).template != prompts.template


def test_without_chat_the_bare_text_is_asked(folder: Path, tmp_path: Path) -> None:
    encoder = encoder_of(folder, TEMPLATE)
    prompts = make_prompts("mine", spec(tmp_path / "c.toml", chat=False), encoder)
    assert [encoder.tokenizer.decode(ids) for ids in prompts.items] == ["How?", "Three?"]
    assert prompts.template == ""


@pytest.mark.parametrize(
    ("template", "system", "text"),
    [
        (TEMPLATE, None, "user:"),  # the space is a part of the text's first token, or nobody's
        (TEMPLATE, "Be brief.", "system: Be brief.\nuser:"),
        ("{{ bos_token }}" + TEMPLATE, None, "user:"),
        ("{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] | trim }}{% endfor %}", None, "[user]\n"),
        ("{{ strftime_now('%Y') }}\n{{ messages[-1]['content'] }}", None, "2025\n"),
    ],
)
@pytest.mark.parametrize("add_bos", [None, True])
def test_a_text_is_a_users_message_as_the_template_begins_it(
    folder: Path, template: str, system: str | None, text: str, add_bos: bool | None
) -> None:
    encoder = encoder_of(folder, template, add_bos)
    opening = make_opening(system, encoder)
    begins = add_bos or template.startswith("{{ bos_token }}")
    assert opening.ids.count(0) == begins == (opening.ids[0] == 0)
    assert encoder.tokenizer.decode(opening.ids[begins:]).removesuffix(" ") == text
    assert opening.template == make_opening(None, encoder).template


@pytest.mark.parametrize(
    ("template", "system", "message"),
    [
        (None, None, "the model has no chat template: set chat = false"),
        (REFUSES, "Be brief.", "refuses a conversation of system, user .*: leave `system` out"),
        ("{{ bos_token }}{{ bos_token }}" + TEMPLATE, None, "begins with two beginning-of-sequence tokens"),
        (
            "{{ messages[-1]['content'] | upper }}",
            None,
            "template changes what the last message says, or leaves",
        ),
        (
            "{{ messages[-1]['role'] }}",
            None,
            "or leaves it out, so that it cannot go on: mend the template, or set",
        ),
        ("{{ 1 // 0 }}", None, "of user .ZeroDivisionError: .*: mend the template, or set chat = false"),
        (
            "{{ messages[0]['content'] }}{{ 1 // 0 }}",
            None,
            "refuses a conversation of user .*ZeroDivisionError.*chat = false",
        ),
    ],
)
def test_a_text_that_the_template_does_not_take_is_an_error_that_says_so(
    folder: Path, template: str | None, system: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=f"a text with chat = true: .*{message}") as caught:
        make_opening(system, encoder_of(folder, template, add_bos=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "{{ bos_token }}"])
def test_a_model_that_wants_a_bos_has_one_whoever_puts_it(folder: Path, prefix: str) -> None:
    encoder = encoder_of(folder, prefix + TEMPLATE, add_bos=True)
    ids = encode_chat(encoder, [{"role": "user", "content": "How?"}])
    assert (ids[0], ids.count(0)) == (0, 1)
    assert encoder.tokenizer.decode(ids[1:]) == "user: How?\nassistant:"


@pytest.mark.parametrize("add_bos", [None, True])
def test_a_template_with_two_bos_is_refused_whether_the_model_wants_one_or_not(
    folder: Path, tmp_path: Path, add_bos: bool | None
) -> None:
    encoder = encoder_of(folder, "{{ bos_token }}{{ bos_token }}" + TEMPLATE, add_bos)
    with pytest.raises(InputError, match="prompts 'mine': the model's chat template begins with two"):
        make_prompts("mine", spec(tmp_path / "c.toml"), encoder)


def test_a_template_that_prints_the_date_is_the_same_every_day(folder: Path) -> None:
    encoder = encoder_of(folder, "\n{{ strftime_now('%d %b %Y, %-d') }}|{{ date_string }}|" + TEMPLATE)
    text = render(encoder.tokenizer, [{"role": "user", "content": "How?"}])
    assert text == "\n01 Jan 2025, 1|01 Jan 2025|user: How?\nassistant:"
    assert str(datetime.datetime.now(datetime.UTC).year) not in text


def test_a_template_that_refuses_a_role_says_so_and_drops_nothing(folder: Path, tmp_path: Path) -> None:
    encoder = encoder_of(folder, REFUSES)
    message = (
        r"prompts 'mine': .* refuses a conversation of system, user .*no system role.*leave `system` out"
    )
    with pytest.raises(InputError, match=message):
        make_prompts("mine", spec(tmp_path / "c.toml", system="Be brief."), encoder)
    assert len(make_prompts("mine", spec(tmp_path / "c.toml"), encoder).items) == 2


def test_a_template_that_refuses_anything_is_not_mended_by_leaving_the_system_message_out(
    folder: Path,
) -> None:
    encoder = encoder_of(folder, "{{ messages[0]['content'] }")
    with pytest.raises(
        InputError, match=r"of system, user \(Template.*mend the template, or set chat = false"
    ):
        render(encoder.tokenizer, [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])
    with pytest.raises(InputError, match="tokenizer with chat = true: the model's chat template refuses"):
        make_conversations(encoder)


def test_a_model_without_a_template_cannot_chat(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompts 'mine': the model has no chat template: set chat = false"):
        make_prompts("mine", spec(tmp_path / "c.toml"), encoder_of(folder, None))
    assert make_conversations(encoder_of(folder, None)) == []
    with pytest.raises(InputError, match="'mine': the model's chat template makes nothing of conversation 1"):
        make_prompts("mine", spec(tmp_path / "c.toml"), encoder_of(folder, "{# nothing #}"))
    roles = "{% for m in messages[-1:] %}{{ m['role'] }}:{% endfor %}"
    with pytest.raises(InputError, match=r"'mine': .*the same of two conversations .*leaves out what a user"):
        make_prompts("mine", spec(tmp_path / "c.toml"), encoder_of(folder, roles))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other = 1", "chats: must be a list"),
        ('chats = ["a", ""]', "entry 2: must be a text that is not empty"),
        ('chats = ["a", 3]', "entry 2: must be a text"),
        ('chats = [["a", "b"]]', "entry 1: must end with the user's turn"),
        ('chats = ["a", "b", "a"]', "entry 3: is entry 1 again"),
        ('chats = ["a"]', "has 1 chats, the tier needs 2: lower `items`"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_the_entry(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=f"c.toml: .*{message}|c.toml: {message}"):
        read_chats(tmp_path / "c.toml", 2)


def test_the_shipped_conversations_are_several_dozen() -> None:
    chats = read_chats(CHATS / "everyday.toml", 40)
    assert sum(len(chat) > 1 for chat in chats) >= 3
    assert all(chat[-1]["role"] == "user" for chat in chats)


def test_ends_are_those_of_the_generation_configuration_and_the_tokenizers(folder: Path) -> None:
    tokenizer = Encoder(folder, None).tokenizer
    edit(folder / "generation_config.json", eos_token_id=[7, 9], repetition_penalty=2.0)
    assert ends_of(folder, tokenizer) == [0, 7, 9]
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=5)
    assert ends_of(folder, tokenizer) == [0, 5]
    edit(folder / "config.json", text_config={"eos_token_id": [3]})
    assert ends_of(folder, tokenizer) == [0, 5]
    edit(folder / "config.json", eos_token_id=None, text_config={"eos_token_id": [3]})
    assert ends_of(folder, tokenizer) == [0, 3], "as transformers takes those of a part"
    edit(folder / "config.json", text_config=None)
    assert ends_of(folder, tokenizer) == [0]


def test_ends_of_a_gguf_are_its_headers(tiny: TinyModel) -> None:
    assert Encoder(tiny.gguf, None).ends == [0]
