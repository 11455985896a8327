"""Conversations by the chat template that a GGUF file carries, as llama-cpp-python renders and llama.cpp tokenizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from quantgate.checkpoint.template import TODAY, Message
from quantgate.errors import MeasurementError


def rendered(model: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[int] | None:
    """Return the ids of a conversation; None: the file has no template, or one that refuses the conversation.

    Rendered by llama-cpp-python's formatter. For the beginning-of-sequence token llama.cpp has a rule
    (`common/chat.cpp`): where the vocabulary puts one, that of the template is taken off.
    """
    template = (tools and llama_cpp.llama_model_chat_template(model, b"tool_use")) or (
        llama_cpp.llama_model_chat_template(model, None)
    )
    if not template:
        return None
    vocab = llama_cpp.llama_model_get_vocab(model)
    begin, end = (
        llama_cpp.llama_vocab_get_text(vocab, token).decode() if token >= 0 else ""
        for token in (llama_cpp.llama_vocab_bos(vocab), llama_cpp.llama_vocab_eos(vocab))
    )
    formatter = Jinja2ChatFormatter(template.decode(), eos_token=end, bos_token=begin)
    setattr(formatter, "strftime_now", TODAY.strftime)  # noqa: B010
    try:
        text = formatter(
            messages=[dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            date_string=TODAY.strftime("%d %b %Y"),
        ).prompt
    except (ValueError, TypeError, jinja2.TemplateError):
        return None
    puts = llama_cpp.llama_vocab_get_add_bos(vocab)
    return ids_of(vocab, text.removeprefix(begin) if puts else text, special=puts)


def ids_of(vocab: Any, text: str, *, special: bool = False) -> list[int]:
    """Return the ids of a text by llama.cpp's tokenizer. special: with the special tokens that the vocabulary puts
    around a text."""
    data = text.encode()
    room = len(data) + 8
    tokens = (llama_cpp.llama_token * room)()
    # The name of a special token stands for that token, as in the tokenizers of transformers.
    count = llama_cpp.llama_tokenize(vocab, data, len(data), tokens, room, special, True)
    if count < 0:
        raise MeasurementError(f"llama_tokenize returned {count} for {len(data)} bytes")
    return list(tokens[:count])
