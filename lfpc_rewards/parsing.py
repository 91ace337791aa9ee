"""From what a chat produced to a `Rollout`: what the model asked for, what it got, what it answered.

What a model types is data: no text, however broken, raises. How a completion is put together is
the caller's code: a completion that is neither a string nor a list of messages raises `TypeError`.

A string is one assistant turn. It holds no tool message, so no crop in it was delivered, whatever
the text claims.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import _scan
from lfpc_rewards._scan import BOX_ARGUMENT, TOOL_NAME, Box, Turns, call_from_object, read_turns
from lfpc_rewards._typing import Message

__all__ = [
    "BOX_ARGUMENT",
    "TOOL_NAME",
    "Completion",
    "Crop",
    "Rollout",
    "parse_completion",
    "parse_completions",
]


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
    return _parse_all([completion], lambda _: "completion")[0]


def parse_completions(completions: Sequence[Completion]) -> list[Rollout]:
    """`parse_completion` for each of many, their texts in one compiled pass.

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
    _refuse_one(completions)
    return _parse_all(completions, lambda row: f"completions[{row}]")


class Columns(NamedTuple):
    """What the rewards read in a batch of completions, without an object for each of them.

    Attributes:
        answers: (B,) as `Rollout.answer`.
        well_formed: (B,) as `Rollout.well_formed`.
        looked: (B,) whether at least one crop was delivered.
        turns: The turns of strings, one each; None if the batch was more than strings.
        rollouts: The rollouts, unless the batch was strings.
    """

    answers: list[str | None]
    well_formed: NDArray[np.bool_]
    looked: NDArray[np.bool_]
    turns: Turns | None
    rollouts: list[Rollout]


def read_columns(completions: Sequence[Completion]) -> Columns:
    """Parse a batch for the rewards. A batch of strings stays in arrays, which is many times faster."""
    _refuse_one(completions)
    if not set(map(type, completions)) <= {str}:
        rollouts = _parse_all(completions, lambda row: f"completions[{row}]")
        return Columns(
            [rollout.answer for rollout in rollouts],
            np.array([rollout.well_formed for rollout in rollouts], np.bool_),
            np.array([any(crop.delivered for crop in rollout.crops) for rollout in rollouts], np.bool_),
            None,
            rollouts,
        )
    turns = read_turns(completions)  # type: ignore[arg-type]  # checked one line above
    spans = turns.answers.tolist()
    answers = [
        text[start:stop] if start >= 0 else None
        for text, start, stop in zip(turns.texts, spans[::2], spans[1::2], strict=True)
    ]
    return Columns(answers, turns.shapes == _scan.ANSWER, np.zeros(len(answers), np.bool_), turns, [])


def read_answers(
    completions: Sequence[Completion],
) -> tuple[Sequence[str], NDArray[np.int64], NDArray[np.bool_]]:
    """(B,) texts, (B, 2) where the answer stands in each (-1 without one), and (B,) the format."""
    _refuse_one(completions)
    if set(map(type, completions)) <= {str}:
        turns = read_turns(completions)  # type: ignore[arg-type]  # checked one line above
        return turns.texts, turns.answers.reshape(-1, 2), turns.shapes == _scan.ANSWER
    columns = read_columns(completions)
    texts = [answer or "" for answer in columns.answers]
    spans = np.array([(0, len(text)) for text in texts], np.int64).reshape(-1, 2)
    return texts, spans, columns.well_formed


def _refuse_one(completions: Any) -> None:
    if isinstance(completions, str | Mapping | Rollout):
        raise TypeError(f"completions must be a list of completions, got {type(completions).__name__}")


_Step: TypeAlias = list[Any] | bool
"""A message that counts: an assistant turn is the entries of its `tool_calls`, a tool message is whether
it carries an image."""


def _parse_all(completions: Sequence[Completion], name: Callable[[int], str]) -> list[Rollout]:
    texts: list[str] = []
    plans: list[list[_Step] | str | Rollout] = []
    for row, completion in enumerate(completions):
        if isinstance(completion, str):
            texts.append(completion)
            plans.append(completion)
        elif isinstance(completion, Rollout):
            plans.append(completion)
        else:
            plans.append(_steps(completion, name(row), texts))
    turns = _ListedTurns(read_turns(texts))
    return [
        _single(turns)
        if isinstance(plan, str)
        else plan
        if isinstance(plan, Rollout)
        else _rollout(plan, turns)
        for plan in plans
    ]


def _single(turns: _ListedTurns) -> Rollout:
    """A string: one turn, to which no tool replied."""
    shape, answer, calls = turns.next()
    crops = [Crop(box, delivered=False, turn=0) for name, box in calls if name == TOOL_NAME]
    return Rollout(answer, tuple(crops), shape == _scan.ANSWER, 1)


def _steps(completion: Sequence[Message], name: str, texts: list[str]) -> list[_Step]:
    """The messages of a completion that count; the words of its assistant turns go to `texts`."""
    if not isinstance(completion, list | tuple):
        raise TypeError(f"{name} must be a string or a list of messages, got {type(completion).__name__}")
    steps: list[_Step] = []
    for place, message in enumerate(completion):
        if not isinstance(message, Mapping):
            raise TypeError(f"{name}[{place}] must be a message (a dict), got {type(message).__name__}")
        role = message.get("role")
        if role == "assistant":
            texts.append(_text(message))
            entries = message.get("tool_calls")
            steps.append(list(entries) if isinstance(entries, list | tuple) else [])
        elif role == "tool":
            steps.append(has_image(message.get("content")))
    return steps


class _ListedTurns:
    """`Turns` handed out one after the other, as Python objects."""

    def __init__(self, turns: Turns) -> None:
        self._texts = turns.texts
        self._shapes = turns.shapes.tolist()
        self._answers = turns.answers.tolist()
        self._call_starts = turns.call_starts.tolist()
        self._is_crop = turns.is_crop.tolist()
        self._boxes = turns.boxes.reshape(-1, 4).tolist()
        self._next = 0

    def next(self) -> tuple[int, str | None, list[tuple[str | None, Box | None]]]:
        """(shape, answer, calls written in the text) of the next turn; a call is (name, box)."""
        turn = self._next
        self._next += 1
        start, stop = self._answers[2 * turn : 2 * turn + 2]
        calls: list[tuple[str | None, Box | None]] = []
        for call in range(self._call_starts[turn], self._call_starts[turn + 1]):
            x0, y0, x1, y1 = self._boxes[call]
            box = None if math.isnan(x0) else (x0, y0, x1, y1)
            calls.append((TOOL_NAME, box) if self._is_crop[call] else (None, None))
        return self._shapes[turn], self._texts[turn][start:stop] if start >= 0 else None, calls


def _rollout(steps: list[_Step], turns: _ListedTurns) -> Rollout:
    crops: list[Crop] = []
    kinds: list[int] = []
    waiting: list[int | None] = []  # the unanswered calls of the last turn: which crop each is, if any
    answer: str | None = None
    for step in steps:
        if isinstance(step, bool):
            index = waiting.pop(0) if waiting else None
            if index is not None and step:
                crops[index] = Crop(crops[index].box, delivered=True, turn=crops[index].turn)
            continue
        shape, answer, calls = turns.next()
        if step:
            # What a chat parser took for a call is no longer in the text.
            answer = None
            calls = [_from_entry(entry) for entry in step]
            shape = _scan.CALL if shape == _scan.BARE and len(step) == 1 else _scan.MALFORMED
        waiting = []
        for tool, box in calls:
            waiting.append(len(crops) if tool == TOOL_NAME else None)
            if tool == TOOL_NAME:
                crops.append(Crop(box, delivered=False, turn=len(kinds)))
        kinds.append(shape)
    well_formed = bool(kinds) and kinds[-1] == _scan.ANSWER and all(kind == _scan.CALL for kind in kinds[:-1])
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


def _from_entry(entry: Any) -> tuple[str | None, Box | None]:
    """(name, box) of one entry of `tool_calls`, nested in "function" or flat."""
    function = entry.get("function") if isinstance(entry, Mapping) else None
    return call_from_object(function if isinstance(function, Mapping) else entry)


def is_image(block: Any) -> bool:
    """Whether a block of a message's content is an image."""
    return isinstance(block, Mapping) and block.get("type") in ("image", "image_url")


def has_image(content: Any) -> bool:
    """Whether the content of a message holds an image."""
    return isinstance(content, list | tuple) and any(map(is_image, content))
