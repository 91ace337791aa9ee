"""From a completion to a `ParsedCompletion`: what the model asked for, what it got, what it answered.

What a model writes never raises, however broken. A completion that is neither a string nor a list of messages
is the caller's mistake and raises `TypeError`.

A string is everything after the prompt, decoded. It may hold several turns. It cannot prove that a tool
answered, so no crop in it counts as delivered unless the caller says how to tell (`picture_mark`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lfpc_rewards._calls import BOX_ARGUMENT, TOOL_NAME, tools_of
from lfpc_rewards._packing import NO_BOX, Box, starts_of
from lfpc_rewards._reading import DEFAULT, Columns, DeliveredIn, Reading, has_image, is_image, read
from lfpc_rewards._typing import Message

__all__ = [
    "BOX_ARGUMENT",
    "TOOL_NAME",
    "Completion",
    "Crop",
    "DeliveredIn",
    "ParsedCompletion",
    "Tool",
    "has_image",
    "is_image",
    "opens_thinking",
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
        image: The number of the image to be cropped, from 1, as the argument ``image`` of the call names it;
            1 if it names none, 0 if what it names is no whole number from 1.
    """

    box: Box | None
    delivered: bool
    turn: int
    image: int = 1


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
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


Completion: TypeAlias = str | Sequence[Message] | ParsedCompletion
"""What the model wrote and got: one string, a list of messages, or an already parsed `ParsedCompletion`."""


Tool: TypeAlias = str | Mapping[str, str | Sequence[str]]
"""The name of the crop tool; or several names, each with the argument that holds its box (or the four that
hold its numbers)."""


def parse_completion(
    completion: Completion,
    *,
    tool: Tool = TOOL_NAME,
    delivered_in: DeliveredIn = "tool",
    think_open: bool = False,
    picture_mark: str | None = None,
) -> ParsedCompletion:
    r"""Read one completion.

    Rules; docs/reference/completions.md has a table with an example of each:

    * Only ``assistant`` messages are read as the model's words, only ``tool`` messages as the tool's.
      An image in an ``assistant`` message proves nothing. Unknown roles are skipped.
    * The calls of a turn are the entries of ``tool_calls``; if there are none, the
      ``<tool_call>..</tool_call>`` in the text after the thinking, in JSON or in the XML of Qwen3.5 or
      GLM-4.6V. Each
      call of the crop tool is a `Crop`. The i-th tool message after the turn answers its i-th call.
    * A broken call gives no crop, but it keeps its place in that count.
    * Thinking that a chat parser moved to ``reasoning_content`` counts as the think block.
    * Only tags decide what is well formed: an empty answer or a senseless box is. A further ``think``,
      ``tool_call`` or ``answer`` tag, nested or repeated, is not.
    * In a string, turns of the model are told from the rest by ``<|im_start|>`` and the role; where a
      decoder took the special tokens away, by a line "user" after the last tag of a turn or before a
      ``<tool_response>``, up to a line "assistant". Each ``<tool_response>`` of a user's turn is a tool
      message. The tokens that end a turn are no words of it.

    Args:
        completion: A string, a list of messages, or a `ParsedCompletion`, which is returned as it is. The
            content of a message is a string or a list of blocks, of which the text blocks count.
        tool: The name of the crop tool, whose box is in the argument ``bbox_2d``; or a dict: names of tools
            and the argument of each that holds the box, or the four that hold x0, y0, x1 and y1.
        delivered_in: "tool": only a picture in a tool message was delivered. "user": pictures in the user's
            messages after a turn were delivered too. They answer the calls that no tool message answered
            with a picture, if they are as many; if not, it is not known which they answer, and none counts.
        think_open: Whether the prompt ended with an open ``<think>``, as the templates of thinking models
            have it. The opening tag is then put before the turn: before the first of a string, which shows
            the others itself, and before each of a list, whose messages hold what the model wrote.
        picture_mark: For strings: what the answer of a tool begins with, white space apart, if it brings a
            picture, such as ``<|vision_start|>`` or the words that the tool says beside a picture. None: no
            crop in a string was delivered, since a model can type whatever a string holds.

    Returns:
        The rollout.

    Raises:
        TypeError: `completion` is neither a string nor a list of dicts, or `tool` is neither a name nor
            such a dict.
        ValueError: `delivered_in` is neither "tool" nor "user", or `picture_mark` is empty.

    Source:
        The turn structure of LFPC (arXiv 2603.27494) and DeepEyes (arXiv 2505.14362); tool messages as
        TRL writes them; decoded texts as verl 0.9.1 makes them. That only a tool message can deliver a
        crop is our choice.

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
        (Crop(box=(0.0, 0.0, 28.0, 56.0), delivered=True, turn=0, image=1),)
        >>> text = (
        ...     f"<think>near</think><tool_call>{call}</tool_call>user\n<tool_response>\n\n</tool_response>\n"
        ...     "assistant\n<think>a dog</think><answer>B</answer>"
        ... )
        >>> parse_completion(text).crops  # the same, but that a text proves no picture
        (Crop(box=(0.0, 0.0, 28.0, 56.0), delivered=False, turn=0, image=1),)
        >>> parse_completion("<think>easy</think> <answer> red\n</answer>").answer
        'red'
        >>> parse_completion("no tags at all")
        ParsedCompletion(answer=None, crops=(), well_formed=False, turns=1)
    """
    reading = _reading(tool, delivered_in, think_open, picture_mark)
    return _parse_all([completion], lambda _: "completion", reading)[0]


def parse_completions(
    completions: Sequence[Completion],
    *,
    tool: Tool = TOOL_NAME,
    delivered_in: DeliveredIn = "tool",
    think_open: bool | None = None,
    picture_mark: str | None = None,
    prompts: Sequence[str] | None = None,
) -> list[ParsedCompletion]:
    """`parse_completion` for each of many, their texts in one compiled pass.

    Args:
        completions: (B,) strings, lists of messages or rollouts; they may be mixed.
        tool: As in `parse_completion`.
        delivered_in: As in `parse_completion`.
        think_open: As in `parse_completion`. None: decided by `prompts`, False without them.
        picture_mark: As in `parse_completion`.
        prompts: (B,) the prompts as the model read them, special tokens or not.

    Returns:
        (B,) rollouts.

    Raises:
        TypeError: A row is neither a string nor a list of dicts, `completions` is one string, a prompt is
            no string, or as `parse_completion`.
        ValueError: There are not as many prompts as completions, or as `parse_completion`.

    Source:
        As `parse_completion`.

    Example:
        >>> [rollout.answer for rollout in parse_completions(["<answer>A</answer>", "B"])]
        ['A', None]
        >>> parse_completions(["fine", None])
        Traceback (most recent call last):
            ...
        TypeError: completions[1] must be a string or a list of messages, got NoneType
        >>> said, prompt = "so</think><answer>A</answer>", "assistant: <think>" + chr(10)
        >>> [each.well_formed for each in parse_completions([said, said], prompts=[prompt, "assistant: "])]
        [True, False]
    """
    _refuse_one(completions)
    opened: bool | Sequence[bool] = think_open or False
    if think_open is None and prompts is not None:
        opened = _opened_by(prompts, len(completions))
    reading = _reading(tool, delivered_in, opened, picture_mark)
    return _parse_all(completions, lambda row: f"completions[{row}]", reading)


def opens_thinking(prompt: str) -> bool:
    """Whether a prompt, as the model read it, ends with an open ``<think>``."""
    return prompt.rstrip().endswith("<think>")


def read_columns(completions: Sequence[Completion]) -> Columns:
    """Read a batch as arrays, which is many times faster than an object for each rollout."""
    _refuse_one(completions)
    if any(isinstance(each, ParsedCompletion) for each in completions):
        return _columns_of(_parse_all(completions, lambda row: f"completions[{row}]", DEFAULT))
    return read(completions, lambda row: f"completions[{row}]")


def _refuse_one(completions: Any) -> None:
    if isinstance(completions, str | Mapping | ParsedCompletion):
        raise TypeError(f"completions must be a list of completions, got {type(completions).__name__}")


def _opened_by(prompts: Sequence[str], rows: int) -> list[bool]:
    if isinstance(prompts, str) or len(prompts) != rows:
        raise ValueError(f"prompts must have one entry per completion, got {len(prompts)} for {rows}")
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise TypeError(f"prompts[{row}] must be the text of a prompt, got {type(prompt).__name__}")
    return list(map(opens_thinking, prompts))


def _reading(
    tool: Tool, delivered_in: DeliveredIn, think_open: bool | Sequence[bool], picture_mark: str | None
) -> Reading:
    if delivered_in not in ("tool", "user"):
        raise ValueError(f'delivered_in must be "tool" or "user", got {delivered_in!r}')
    if picture_mark is not None and (not isinstance(picture_mark, str) or not picture_mark):
        raise ValueError(f"picture_mark must be a text or None, got {picture_mark!r}")
    return Reading(tools_of(tool), delivered_in, think_open, picture_mark)


def _parse_all(
    completions: Sequence[Completion], name: Callable[[int], str], reading: Reading
) -> list[ParsedCompletion]:
    rest = [row for row, completion in enumerate(completions) if not isinstance(completion, ParsedCompletion)]
    if len(rest) == len(completions):
        return _rollouts(read(completions, name, reading))
    if not rest:
        return [each for each in completions if isinstance(each, ParsedCompletion)]
    columns = read([completions[row] for row in rest], lambda each: name(rest[each]), reading.of_rows(rest))
    parsed = iter(_rollouts(columns))
    return [each if isinstance(each, ParsedCompletion) else next(parsed) for each in completions]


def _rollouts(columns: Columns) -> list[ParsedCompletion]:
    starts, turns = columns.crop_starts.tolist(), columns.turns.tolist()
    crops = [
        Crop(None if math.isnan(x0) else (x0, y0, x1, y1), delivered, turn, image)
        for (x0, y0, x1, y1), delivered, turn, image in zip(
            columns.boxes.reshape(-1, 4).tolist(),
            columns.delivered.tolist(),
            columns.crop_turns.tolist(),
            columns.crop_images.tolist(),
            strict=True,
        )
    ]
    return [
        ParsedCompletion(answer, tuple(crops[start:stop]), well_formed, count)
        for answer, start, stop, well_formed, count in zip(
            columns.answer_texts(), starts[:-1], starts[1:], columns.well_formed.tolist(), turns, strict=True
        )
    ]


def _columns_of(rollouts: Sequence[ParsedCompletion]) -> Columns:
    crops = [crop for rollout in rollouts for crop in rollout.crops]
    texts = [rollout.answer or "" for rollout in rollouts]
    answers = [(-1, -1) if rollout.answer is None else (0, len(rollout.answer)) for rollout in rollouts]
    boxes = [NO_BOX if crop.box is None else crop.box for crop in crops]
    return Columns(
        texts,
        np.array(answers, np.int64).reshape(-1, 2),
        np.array([rollout.well_formed for rollout in rollouts], np.bool_),
        np.array([rollout.turns for rollout in rollouts], np.int64),
        starts_of([len(rollout.crops) for rollout in rollouts]),
        np.array(boxes, np.float64).reshape(-1),
        np.array([crop.delivered for crop in crops], np.bool_),
        np.array([crop.turn for crop in crops], np.int64),
        np.array([crop.image for crop in crops], np.int64),
    )
