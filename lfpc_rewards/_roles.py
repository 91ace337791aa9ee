"""Splits one decoded text into messages.

A trainer that keeps no messages (verl) passes everything after the prompt as one text: the turns of the model
with the tools' answers between them. Two forms of Qwen's template are read: with its special tokens
(``<|im_start|>assistant``), and without them, where only the lines "user" and "assistant" are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lfpc_rewards._typing import Message

TURN_ENDS = ("<|im_end|>", "<|endoftext|>")
"""The tokens at which an engine stops a turn of Qwen's models. They are not part of the turn's text."""

TURN_START = "<|im_start|>"
_ROLE = re.compile(r"<\|im_start\|>(\w*)\n?")
_RESPONSE = re.compile(r"<tool_response>(.*?)(?:</tool_response>|\Z)", re.DOTALL)

# Without special tokens a turn of the model ends at a closing tag followed by a line "user" or "tool", or
# before a tool's answer. verl puts no line break before that line.
_BARE_USER = re.compile(
    r"(?P<tag></(?:think|tool_call|answer)>)\s*(?P<role>user|tool)\n|(?:user|tool)\n(?=\s*<tool_response>)"
)
_BARE_RESPONSES = re.compile(r"(?:\s*<tool_response>.*?</tool_response>)+", re.DOTALL)
_BARE_ASSISTANT = re.compile(r"^assistant(?:\n|\Z)", re.MULTILINE)


def messages_in(text: str, picture_mark: str | None) -> list[Message]:
    """The messages of a decoded text, the first of which is the model's unless the text says otherwise.

    Args:
        text: Everything after the prompt.
        picture_mark: How an answer of a tool or user begins if it carries a picture; None: none does.
    """
    return list(_with_tokens(text, picture_mark) if TURN_START in text else _bare(text, picture_mark))


def strip_turn_end(text: str) -> str:
    """A turn without the end and padding tokens after it."""
    kept = stop = len(text)
    while True:
        while stop and text[stop - 1].isspace():
            stop -= 1
        end = next((each for each in TURN_ENDS if text.endswith(each, 0, stop)), None)
        if end is None:
            return text[:kept]
        kept = stop = stop - len(end)


def _with_tokens(text: str, picture_mark: str | None) -> Iterator[Message]:
    first, *others = _ROLE.split(text)
    if first.strip():
        yield _assistant(first)
    for role, said in zip(others[::2], others[1::2], strict=True):
        if role == "assistant":
            yield _assistant(said)
        else:
            yield from _answers(role, said, picture_mark)


def _bare(text: str, picture_mark: str | None) -> Iterator[Message]:
    start, last_response = 0, text.rfind("</tool_response>")
    while (user := _BARE_USER.search(text, start)) is not None:
        yield _assistant(text[start : user.start() if user["tag"] is None else user.end("tag")])
        # Only if a closing tag is left: many unclosed ones would take quadratic time.
        responses = _BARE_RESPONSES.match(text, user.end()) if user.end() < last_response else None
        after = _BARE_ASSISTANT.search(text, user.end() if responses is None else responses.end())
        said = text[user.end() : None if after is None else after.start()]
        yield from _answers(user["role"] or "tool", said, picture_mark)
        if after is None:  # the rollout ends with a tool's answer
            return
        start = after.end()
    yield _assistant(text[start:])


def _assistant(said: str) -> Message:
    return {"role": "assistant", "content": strip_turn_end(said)}


def _answers(role: str, said: str, picture_mark: str | None) -> Iterator[Message]:
    """A turn of the user, or the tools' answers that Qwen's template puts into one."""
    responses = _RESPONSE.findall(said)
    for each in responses or [said]:
        # Only at the beginning: an error message may quote the model's call further on.
        brings = picture_mark is not None and each.lstrip().startswith(picture_mark)
        content = [{"type": "text", "text": each}, *[{"type": "image"}] * brings]
        yield {"role": "tool" if responses else role, "content": content}
