"""Chat prompts: conversations rendered by a model's chat template, once for all of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantgate.checkpoint.checks import configurations, read_json
from quantgate.checkpoint.gguf_header import read_header
from quantgate.checkpoint.template import Message, RefusedError, render, template_of
from quantgate.config.toml_input import read_toml
from quantgate.errors import InputError
from quantgate.files import hash_of
from quantgate.items import Conversation, Opening, Prompts
from quantgate.supply.conversations import conversations

if TYPE_CHECKING:
    from quantgate.supply.encoder import Encoder

ROLES = ("user", "assistant")
SAMPLE = "Text"
"""A user's message, of which templates change nothing."""


def read_chats(path: Path, count: int) -> list[list[Message]]:
    """Return the first conversations of a file of `fixtures/chats`, as messages. Raises InputError naming the file and
    the entry: no text, an even number of turns, the same one twice, fewer than `count`."""
    entries = read_toml(path).get("chats")
    if not isinstance(entries, list):
        raise InputError(f"{path}: chats: must be a list of texts, or of lists of texts in turns")
    chats: list[list[Message]] = []
    for number, entry in enumerate(entries, 1):
        turns = entry if isinstance(entry, list) else [entry]
        where = f"{path}: chats, entry {number}"
        if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise InputError(f"{where}: must be a text that is not empty, or a list of them")
        if len(turns) % 2 == 0:
            raise InputError(f"{where}: must end with the user's turn: give an odd number of texts")
        chat: list[Message] = [{"role": ROLES[n % 2], "content": turn} for n, turn in enumerate(turns)]
        if chat in chats:
            raise InputError(f"{where}: is entry {chats.index(chat) + 1} again: remove it")
        chats.append(chat)
    if len(chats) < count:
        raise InputError(f"{path}: has {len(chats)} chats, the tier needs {count}: lower `items`")
    return chats[:count]


def make_prompts(name: str, spec: Mapping[str, Any], encoder: Encoder) -> Prompts:
    """Return the prompts of a file of conversations as token ids.

    spec: `path`, `items`, `chat` (through the model's template; without, the bare texts of the last turns), `system`
    (the system message, None: there is none). Raises InputError, naming the remedy.
    """
    chats = read_chats(Path(spec["path"]), spec["items"])
    if spec["chat"]:
        try:
            items = [encode_chat(encoder, [*_system(spec["system"]), *chat]) for chat in chats]
        except InputError as error:
            raise InputError(f"prompts {name!r}: {error}") from error
        if [] in items:
            raise InputError(
                f"prompts {name!r}: the model's chat template makes nothing of conversation {items.index([]) + 1}: ask "
                "with chat = false"
            )
        if len({*map(tuple, items)}) < len(items):
            raise InputError(
                f"prompts {name!r}: the model's chat template makes the same of two conversations that differ: it "
                "leaves out what a user writes; mend it, or ask with chat = false"
            )
    else:
        begin = [] if encoder.bos is None else [encoder.bos]
        items = [[*begin, *encoder.encode(str(chat[-1]["content"]))] for chat in chats]
    return Prompts(
        name=name,
        chat=spec["chat"],
        template=hash_of(template_of(encoder.tokenizer)) if spec["chat"] else "",
        ends=encoder.ends,
        items=items,
        token_hash=hash_of([items, encoder.ends]),
    )


def encode_chat(
    encoder: Encoder, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """Return the ids of a conversation up to where the assistant begins to write, as the template renders it. Raises
    InputError."""
    return encoder.with_one_bos(encoder.encode(render(encoder.tokenizer, messages, tools)))


def _system(content: str | None) -> list[Message]:
    return [] if content is None else [{"role": "system", "content": content}]


def make_opening(system: str | None, encoder: Encoder) -> Opening:
    """Return what the model's chat template puts before a user's message, which a text then is: what comes before its
    own tokens. system: the system message; None: there is none. Raises InputError."""
    try:
        message = {"role": "user", "content": SAMPLE}
        rendered = render(encoder.tokenizer, [*_system(system), message], answer=False)
        if not rendered.endswith(SAMPLE):
            raise InputError("the model's chat template changes what a user writes: leave `chat` out")
        whole, sample = encoder.encode(rendered), encoder.encode(SAMPLE)
        # A space with which the template ends is a part of the text's first token in some vocabularies.
        before = (
            whole[: -len(sample)]
            if whole[-len(sample) :] == sample
            else encoder.encode(rendered.removesuffix(SAMPLE))
        )
        ids = encoder.with_one_bos(before)
    except InputError as error:
        raise InputError(f"a text with chat = true: {error}") from error
    return Opening(template=hash_of(template_of(encoder.tokenizer)), ids=ids)


def make_conversations(encoder: Encoder) -> list[Conversation]:
    """Return the conversations that templates are compared on, with their ids; of a model without a template none.
    Raises InputError for a template that takes none of them."""
    made: list[Conversation] = []
    if not template_of(encoder.tokenizer):
        return made
    for name, messages, tools in conversations(encoder.tokenizer):
        try:
            ids: list[int] | None = encode_chat(encoder, messages, tools)
        except InputError as error:
            # The first is one question, which any template takes.
            if not made or not isinstance(error, RefusedError):
                raise InputError(f"tokenizer with chat = true: {error}") from error
            ids = None
        made.append(Conversation(name=name, messages=messages, tools=tools, ids=ids))
    return made


def ends_of(source: Path, tokenizer: Any) -> list[int]:
    """Return the ids of the tokens that end an answer, ascending: those that the checkpoint's generation_config.json
    names, or without it its configuration, or a GGUF file's header; and that of the tokenizer. No other setting of
    these files is read. source: a folder, or a GGUF file."""
    ends: set[int] = set()
    if source.is_file():
        header = read_header(source).values
        named: Any = [header.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot")]
    else:
        files = [read_json(source / "generation_config.json"), *configurations(source)]
        named = next((e for file in files if (e := file.get("eos_token_id")) is not None), None)
    for end in [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]:
        if end is not None:
            ends.add(int(end))
    return sorted(ends)
