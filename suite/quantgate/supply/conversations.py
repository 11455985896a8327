"""Conversations that show whether two chat templates differ, or two programs that render them."""

from __future__ import annotations

from typing import Any

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'What the weather is like, in "plain" words & figures.',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Zürich, for example"}},
            "required": ["city"],
        },
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
SPECIAL = 12
"""Special tokens of which a message consists, at most."""


def _say(*contents: str, system: str | None = None) -> list[dict[str, Any]]:
    """Return messages in turns, the user's first."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


def conversations(tokenizer: Any) -> list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return name, messages and tools of each. tokenizer: the model's, whose special tokens one message is made of."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values()][:SPECIAL]
    called = [
        *_say("Is it cold in Zürich?"),
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "content": '{"celsius": -3, "sky": "<clear>"}'},
    ]
    plain = {
        "one question": _say("What is the capital of France?"),
        "system message": _say("Hello!", system="You answer in one word."),
        "turns": _say("My name is Ada.", "Nice to meet you, Ada.", "What is my name?", "Ada.", "And yours?"),
        "system message and turns": _say("2 + 2?", "4", "Times three?", system="You are a calculator."),
        "empty message": _say(""),
        "empty system message": _say("Hello!", system=""),
        "spaces around": _say("  two spaces before, a line after \n", " yes\n\n", "\tand a tab "),
        "code": _say(
            "Mend it:\n\n```python\ndef f(x):\n    return x ** 2  # square\n\n\n```\r\n<b>&amp;</b>"
        ),
        "scripts": _say("naïve café, Ελληνικά, русский, 日本語, العربية, 한글, e\u0301, 👩‍👩‍👧‍👦 🇩🇪"),
        "special tokens as text": _say("a " + " b ".join(special) + " c"),
        "template code as text": _say("{{ bos_token }}{% if true %}yes{% endif %}{# no #} {{ 1 + 1 }}"),
        "two questions in a row": [*_say("One."), *_say("Two.")],
    }
    return [
        *((name, messages, []) for name, messages in plain.items()),
        ("tools", _say("Is it cold in Zürich?"), [WEATHER]),
        ("tools and system message", _say("Is it cold in Zürich?", system="Be brief."), [WEATHER]),
        ("a tool's answer", called, [WEATHER]),
    ]
