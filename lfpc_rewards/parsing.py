"""From what a chat produced to a `Rollout`: what the model asked for, what it got, what it answered.

What a model types is data: no text, however broken, raises. How a completion is put together is
the caller's code: a completion that is neither a string nor a list of messages raises `TypeError`.

A string is one assistant turn. It holds no tool message, so no crop in it was delivered, whatever
the text claims.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lfpc_rewards._typing import Message

TOOL_NAME = "image_zoom_in_tool"
"""The name of the crop tool, as in DeepEyes and the Qwen cookbooks."""

BOX_ARGUMENT = "bbox_2d"
"""The argument of the crop tool that holds the box."""

Box: TypeAlias = tuple[float, float, float, float]

_TAG = re.compile(r"</?(?:think|tool_call|answer)>")


@dataclass(frozen=True, slots=True)
class Crop:
    """One crop that the model asked for.

    Attributes:
        box: The four numbers as the model wrote them, in the model's frame and in its order, even
            if they are inverted; None if they were not four finite numbers.
        delivered: Whether the tool message that answers this call carries an image.
        turn: The assistant turn, counted from 0, that asked for it.
    """

    box: Box | None
    delivered: bool
    turn: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a completion says.

    Attributes:
        answer: Text inside the only ``<answer>..</answer>`` of the last assistant turn, stripped; None
            if there is no such text or that turn calls a tool. Thinking is never an answer.
        crops: The crops that the model asked for, in order.
        well_formed: Whether every assistant turn is ``<think>..</think>`` and then exactly one tool
            call, or, in the last turn, exactly one ``<answer>..</answer>``, with only white space around.
        turns: The number of assistant turns.
    """

    answer: str | None
    crops: tuple[Crop, ...]
    well_formed: bool
    turns: int

    @property
    def delivered_crops(self) -> tuple[Crop, ...]:
        """The crops that came back as an image."""
        return tuple(crop for crop in self.crops if crop.delivered)


Completion: TypeAlias = str | Sequence[Message] | Rollout
"""What a chat produced: one string, a list of messages, or an already parsed `Rollout`."""


def parse_completion(completion: Completion) -> Rollout:
    r"""Read one completion.

    Rules, in the order in which they are usually asked about:

    * Only ``assistant`` messages are read as the model's words, only ``tool`` messages as the tool's.
      An image in a ``user`` or ``assistant`` message proves nothing. Unknown roles are skipped.
    * The calls of a turn are the entries of ``tool_calls``; if there are none, the
      ``<tool_call>{json}</tool_call>`` in the text after the thinking. Each call of
      ``image_zoom_in_tool`` is a `Crop`, with the box from its argument ``bbox_2d``. The i-th tool
      message after the turn answers its i-th call.
    * A call whose JSON is broken has no name, so it gives no crop, but it keeps its place in that count.
    * Thinking that a chat parser moved to ``reasoning_content`` counts as the think block.
    * Well formed is about tags alone: an empty answer or a foolish box is well formed. Any further
      ``think``, ``tool_call`` or ``answer`` tag, nested or repeated, is not.

    Args:
        completion: A string, a list of messages, or a `Rollout`, which is returned as it is. The
            content of a message is a string or a list of blocks, of which the text blocks count.

    Returns:
        The rollout.

    Raises:
        TypeError: `completion` is neither a string nor a list of dicts.

    Source:
        The turn structure of LFPC (arXiv 2603.27494) and DeepEyes (arXiv 2505.14362); tool messages as
        TRL writes them. That only a tool message can deliver a crop is our choice.

    Example:
        >>> call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, 56]}}'
        >>> rollout = parse_completion([
        ...     {"role": "assistant", "content": f"<think>near</think><tool_call>{call}</tool_call>"},
        ...     {"role": "tool", "content": [{"type": "image"}]},
        ...     {"role": "assistant", "content": "<think>a dog</think><answer>B</answer>"},
        ... ])
        >>> rollout.answer, rollout.well_formed, rollout.turns
        ('B', True, 2)
        >>> rollout.crops
        (Crop(box=(0.0, 0.0, 28.0, 56.0), delivered=True, turn=0),)
        >>> parse_completion("<think>easy</think> <answer> red\n</answer>").answer
        'red'
        >>> parse_completion("no tags at all")
        Rollout(answer=None, crops=(), well_formed=False, turns=1)
    """
    return _parse(completion, "completion")


def parse_completions(completions: Sequence[Completion]) -> list[Rollout]:
    """`parse_completion` for each of many.

    Args:
        completions: (B,) strings, lists of messages or rollouts; they may be mixed.

    Returns:
        (B,) rollouts.

    Raises:
        TypeError: A row is neither a string nor a list of dicts, or `completions` is one string.

    Source:
        As `parse_completion`.

    Example:
        >>> [rollout.answer for rollout in parse_completions(["<answer>A</answer>", "B"])]
        ['A', None]
        >>> parse_completions(["fine", None])
        Traceback (most recent call last):
            ...
        TypeError: completions[1] must be a string or a list of messages, got NoneType
    """
    if isinstance(completions, str | Mapping | Rollout):
        raise TypeError(f"completions must be a list of completions, got {type(completions).__name__}")
    return [_parse(completion, f"completions[{row}]") for row, completion in enumerate(completions)]


def _parse(completion: Completion, name: str) -> Rollout:
    if isinstance(completion, Rollout):
        return completion
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    elif not isinstance(completion, list | tuple):
        raise TypeError(f"{name} must be a string or a list of messages, got {type(completion).__name__}")
    crops: list[Crop] = []
    kinds: list[str] = []  # per assistant turn: "call", "answer" or "malformed"
    waiting: Iterator[int | None] = iter(())  # the calls of the last turn: which crop each is, if any
    answer: str | None = None
    for place, message in enumerate(completion):
        if not isinstance(message, Mapping):
            raise TypeError(f"{name}[{place}] must be a message (a dict), got {type(message).__name__}")
        role = message.get("role")
        if role == "assistant":
            text = _text(message)
            entries = message.get("tool_calls")
            entries = list(entries) if isinstance(entries, list | tuple) else []
            spoken = text.rpartition("</think>")[2]
            calls = [_from_entry(e) for e in entries] or [
                _from_text(t) for t in _between(spoken, "tool_call")
            ]
            places: list[int | None] = []
            for tool, arguments in calls:
                places.append(len(crops) if tool == TOOL_NAME else None)
                if tool == TOOL_NAME:
                    crops.append(Crop(_box(arguments), delivered=False, turn=len(kinds)))
            waiting = iter(places)
            answer = None if calls else _answer(spoken)
            kinds.append(_kind(text, len(entries)))
        elif role == "tool":
            index = next(waiting, None)
            if index is not None and _has_image(message.get("content")):
                crops[index] = Crop(crops[index].box, delivered=True, turn=crops[index].turn)
    well_formed = bool(kinds) and kinds[-1] == "answer" and all(kind == "call" for kind in kinds[:-1])
    return Rollout(answer, tuple(crops), well_formed, len(kinds))


def _text(message: Message) -> str:
    """The words of an assistant turn, with thinking that was moved away put back."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        blocks = [block.get("text") if isinstance(block, Mapping) else block for block in content]
        content = "".join(block for block in blocks if isinstance(block, str))
    elif not isinstance(content, str):
        content = ""
    thinking = message.get("reasoning_content")
    if isinstance(thinking, str) and thinking.strip():
        return f"<think>{thinking}</think>{content}"
    return content


def _between(text: str, tag: str) -> list[str]:
    """What stands between each opening tag and the next closing one. Linear, also for a million open tags."""
    found = []
    start = text.find(f"<{tag}>")
    while start >= 0:
        start += len(tag) + 2
        stop = text.find(f"</{tag}>", start)
        if stop < 0:
            break
        found.append(text[start:stop])
        start = text.find(f"<{tag}>", stop)
    return found


def _answer(spoken: str) -> str | None:
    """The answer, if `spoken`, the text after the thinking, holds exactly one."""
    if spoken.count("<answer>") != 1 or spoken.count("</answer>") != 1:
        return None
    found = _between(spoken, "answer")
    return found[0].strip() if found else None


def _kind(text: str, entries: int) -> str:
    """Which of the two shapes a turn has: "call" or "answer", else "malformed"."""
    tags = list(_TAG.finditer(text))
    names = [tag.group() for tag in tags]
    if names[:2] != ["<think>", "</think>"]:
        return "malformed"
    outside = [text[: tags[0].start()]]
    match names[2:]:
        case [] if entries == 1:
            kind = "call"
            outside.append(text[tags[1].end() :])
        case ["<tool_call>", "</tool_call>"] | ["<answer>", "</answer>"] if entries == 0:
            kind = "answer" if names[2] == "<answer>" else "call"
            outside += [text[tags[1].end() : tags[2].start()], text[tags[3].end() :]]
        case _:
            return "malformed"
    return "malformed" if any(part.strip() for part in outside) else kind


def _from_text(text: str) -> tuple[Any, Any]:
    """(name, arguments) of a call that was written as JSON text."""
    return _from_function(_json(text))


def _from_entry(entry: Any) -> tuple[Any, Any]:
    """(name, arguments) of one entry of `tool_calls`, nested in "function" or flat."""
    function = entry.get("function") if isinstance(entry, Mapping) else None
    return _from_function(function if isinstance(function, Mapping) else entry)


def _from_function(function: Any) -> tuple[Any, Any]:
    if not isinstance(function, Mapping):
        return None, None
    name, arguments = function.get("name"), function.get("arguments")
    return name if isinstance(name, str) else None, _json(arguments) if isinstance(
        arguments, str
    ) else arguments


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # not JSON, digits beyond Python's limit, or nested too deeply
        return None


def _box(arguments: Any) -> Box | None:
    numbers = arguments.get(BOX_ARGUMENT) if isinstance(arguments, Mapping) else None
    if not isinstance(numbers, list | tuple) or len(numbers) != 4:
        return None
    try:
        x0, y0, x1, y1 = (math.nan if isinstance(n, bool | str) else float(n) for n in numbers)
    except (TypeError, ValueError, OverflowError):
        return None
    box = (x0, y0, x1, y1)
    return box if all(map(math.isfinite, box)) else None


def _has_image(content: Any) -> bool:
    blocks = content if isinstance(content, list | tuple) else ()
    return any(isinstance(block, Mapping) and block.get("type") in ("image", "image_url") for block in blocks)
