"""Inputs of the original rewards: the decoded text of a response, or the texts of its assistant turns.

The originals decode tokens; a trainer may pass lists of messages. These functions render messages like the
chat template of Qwen2.5-VL, so that `exact` reads the same text as the original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias, cast

from lfpc_rewards._typing import Message
from lfpc_rewards.parsing import is_image

Transcript: TypeAlias = str | Sequence[Message]
"""A decoded response with special tokens and observations, or its messages."""

TurnList: TypeAlias = str | Sequence[str] | Sequence[Message]
"""The texts of the assistant turns, a single text (one turn), or messages."""

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
"""An image in decoded text; in real text, it has one pad per visual token."""

TURN_END = "<|im_end|>"
_ASSISTANT = "<|im_start|>assistant\n"


def transcripts(completions: Sequence[Transcript]) -> Sequence[str]:
    """Return the (B,) decoded responses: all text after the prompt, with special tokens and observations."""
    check_is_batch(completions)
    if only_texts(completions):
        return cast("Sequence[str]", completions)
    return [
        each if isinstance(each, str) else _rendered(each, f"completions[{row}]")
        for row, each in enumerate(completions)
    ]


def turns_of(completions: Sequence[TurnList]) -> Sequence[Sequence[str]]:
    """Return the (B,) lists of texts of the assistant turns, without observations."""
    check_is_batch(completions)
    if set(map(type, completions)) <= {list, tuple} and only_texts(list(chain.from_iterable(completions))):
        return cast("Sequence[Sequence[str]]", completions)
    return [
        [turn for turn in each if isinstance(turn, str)]
        if isinstance(each, list | tuple) and all(type(turn) is str for turn in each)
        else [each]
        if isinstance(each, str)
        else [words(m) for m in messages_of(each, f"completions[{row}]") if m.get("role") == "assistant"]
        for row, each in enumerate(completions)
    ]


def first_texts(completions: Sequence[Any]) -> Sequence[str]:
    """Return (B,) texts; for a list of messages the first one, which with tools is only the first turn."""
    return _contents(completions, 0)


def last_contents(completions: Sequence[Any]) -> Sequence[str]:
    """Return (B,) texts; for a list of messages the content of the last one, regardless of its role."""
    return _contents(completions, -1)


def _contents(completions: Sequence[Any], index: int) -> Sequence[str]:
    check_is_batch(completions)
    if only_texts(completions):
        return cast("Sequence[str]", completions)
    texts = []
    for row, each in enumerate(completions):
        if not isinstance(each, str):
            messages = messages_of(each, f"completions[{row}]")
            each = written(messages[index].get("content")) if messages else ""
        texts.append(each)
    return texts


def last_texts(completions: Sequence[TurnList]) -> list[str]:
    """Return the (B,) texts of the last assistant turns; "" for a completion without turns."""
    return [turns[-1] if turns else "" for turns in turns_of(completions)]


def only_texts(things: Sequence[Any]) -> bool:
    """Whether all items are of type str (not a subclass)."""
    return set(map(type, things)) <= {str}


def check_is_batch(completions: Any) -> None:
    """Refuse a single completion: a string would be read as a batch of one-character completions."""
    if isinstance(completions, str | Mapping):
        raise TypeError(f"completions must be a list of completions, got {type(completions).__name__}")


def messages_of(completion: Any, name: str) -> Sequence[Message]:
    """Check and return the messages of a completion that is not a string."""
    if not isinstance(completion, list | tuple):
        raise TypeError(f"{name} must be a string or a list of messages, got {type(completion).__name__}")
    for index, message in enumerate(completion):
        if not isinstance(message, Mapping):
            raise TypeError(f"{name}[{index}] must be a message (a dict), got {type(message).__name__}")
    return completion


def words(message: Message) -> str:
    """Render an assistant turn like the template: content, then tool calls."""
    text = written(message.get("content"))
    for entry in message.get("tool_calls") or ():
        call = entry.get("function", entry) if isinstance(entry, Mapping) else entry
        text += f"<tool_call>\n{json.dumps(call, ensure_ascii=False, default=str)}\n</tool_call>"
    return text


def written(content: Any) -> str:
    """Render the content of a message as text, each image as its tokens."""
    if not isinstance(content, list | tuple):
        return content if isinstance(content, str) else ""
    return "".join(map(_block, content))


def _block(block: Any) -> str:
    if is_image(block):
        return IMAGE
    text = block.get("text") if isinstance(block, Mapping) else block
    return text if isinstance(text, str) else ""


def _rendered(completion: Any, name: str) -> str:
    text = ""
    for message in messages_of(completion, name):
        if message.get("role") == "assistant":
            text += words(message) + f"{TURN_END}\n"
        else:
            inside = written(message.get("content"))
            if message.get("role") == "tool":
                inside = f"<tool_response>\n{inside}\n</tool_response>"
            text += f"<|im_start|>user\n{inside}{TURN_END}\n{_ASSISTANT}"
    return text
