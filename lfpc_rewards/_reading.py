"""From a batch of completions to columns: the one place where texts and message lists become rollouts.

Every completion becomes steps, in order: turns of the model, answers of tools, pictures of the user. One
compiled pass reads the turns (`_scan`), another combines the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._calls import CROP_TOOL, Tools, read_call_entry
from lfpc_rewards._jit import kernel
from lfpc_rewards._packing import NO_BOX, starts_of
from lfpc_rewards._roles import TURN_START, messages_in
from lfpc_rewards._scan import ANSWER, BARE, CALL, MALFORMED, Turns, read_turns
from lfpc_rewards._typing import Message

DeliveredIn: TypeAlias = Literal["tool", "user"]
"""Which messages deliver crops: only the tool's, or the user's as well."""

_TURN, _TOOL, _USER = -1, 0, 1 << 32
"""Steps: a turn of the model; a tool's answer, plus 1 if it holds a picture; a user's message, plus the
number of its pictures."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How completions are read; the attributes are explained at `parsing.parse_completions`."""

    tools: Tools
    delivered_in: DeliveredIn = "tool"
    think_open: bool | Sequence[bool] = False
    picture_mark: str | None = None

    def opened(self, row: int) -> bool:
        """Whether the prompt of a row ended with an open ``<think>``."""
        return self.think_open if isinstance(self.think_open, bool) else self.think_open[row]

    def of_rows(self, rows: Sequence[int]) -> Reading:
        """The same settings for some of the rows."""
        return replace(self, think_open=[self.opened(row) for row in rows])


DEFAULT = Reading(CROP_TOOL)


class Columns(NamedTuple):
    """A batch of rollouts as arrays.

    Attributes:
        texts: (B,) the last turn of each rollout; "" without a turn.
        answers: (B, 2) where each answer starts and stops in that text; -1 without one.
        well_formed: (B,) as `ParsedCompletion.well_formed`.
        turns: (B,) as `ParsedCompletion.turns`.
        crop_starts: (B + 1,) where each rollout's crops start.
        boxes: (4 * crops,) the four numbers of each crop, NaN if they were not four finite numbers.
        delivered: (crops,) whether its picture came back.
        crop_turns: (crops,) the turn within the rollout that asked for it.
        crop_images: (crops,) the number of its image; see `_calls.Call`.
    """

    texts: Sequence[str]
    answers: NDArray[np.int64]
    well_formed: NDArray[np.bool_]
    turns: NDArray[np.int64]
    crop_starts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    delivered: NDArray[np.bool_]
    crop_turns: NDArray[np.int64]
    crop_images: NDArray[np.int64]

    def answer_texts(self) -> list[str | None]:
        """(B,) as `ParsedCompletion.answer`."""
        starts, stops = self.answers.T.tolist()
        return [
            text[start:stop] if start >= 0 else None
            for text, start, stop in zip(self.texts, starts, stops, strict=True)
        ]

    def looked(self) -> NDArray[np.bool_]:
        """(B,) whether at least one crop was delivered."""
        return np.diff(starts_of(self.delivered)[self.crop_starts]) > 0


def read(completions: Sequence[Any], name: Callable[[int], str], reading: Reading = DEFAULT) -> Columns:
    """Read texts and lists of messages, which may be mixed.

    Args:
        completions: (B,) strings and lists of messages.
        name: What a row is called in an error.
        reading: How they are read.

    Raises:
        TypeError: A row is neither a string nor a list of dicts.
    """
    if reading.think_open is not False:
        completions = [
            _with_open_thinking(each) if isinstance(each, str) and reading.opened(row) else each
            for row, each in enumerate(completions)
        ]
    if set(map(type, completions)) <= {str}:
        turns = read_turns(completions, reading.tools)
        if not turns.marked.any():
            return _single_turns(turns)
    steps = _Steps(reading)
    for row, each in enumerate(completions):
        if isinstance(each, str):
            steps.add_messages(messages_in(each, reading.picture_mark), name(row), opened=False)
        else:
            steps.add_messages(each, name(row), reading.opened(row))
        steps.row_starts.append(len(steps.steps))
    return steps.columns()


def _with_open_thinking(text: str) -> str:
    # The prompt ended inside the first turn; later turns show their own opening tag.
    return text if text.lstrip().startswith(TURN_START) else f"<think>{text}"


def _single_turns(turns: Turns) -> Columns:
    """Columns of texts that are one turn each, without tool messages."""
    count = len(turns.texts)
    crop_starts = starts_of(turns.is_crop)[turns.call_starts]
    crops = crop_starts[-1]
    return Columns(
        turns.texts,
        turns.answers.reshape(-1, 2),
        turns.shapes == ANSWER,
        np.ones(count, np.int64),
        crop_starts,
        turns.boxes.reshape(-1, 4)[turns.is_crop].reshape(-1),
        np.zeros(crops, np.bool_),
        np.zeros(crops, np.int64),
        turns.images[turns.is_crop],
    )


class _Steps:
    """The steps of many rollouts and the texts of their turns."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.steps: list[int] = []
        self.row_starts = [0]
        self.texts: list[str] = []
        self.entries = [0]  # where the entries of `tool_calls` of each turn start
        self.entry_is_crop: list[bool] = []
        self.entry_boxes: list[tuple[float, ...]] = []
        self.entry_images: list[int] = []

    def add_messages(self, messages: Any, name: str, opened: bool) -> None:
        if not isinstance(messages, list | tuple):
            raise TypeError(f"{name} must be a string or a list of messages, got {type(messages).__name__}")
        for place, message in enumerate(messages):
            if not isinstance(message, dict | Mapping):
                raise TypeError(f"{name}[{place}] must be a message (a dict), got {type(message).__name__}")
            role = message.get("role")
            if role == "assistant":
                entries = message.get("tool_calls")
                if entries and isinstance(entries, list | tuple):
                    self._add_entries(entries)
                self.steps.append(_TURN)
                self.texts.append(_words(message, opened))
                self.entries.append(len(self.entry_is_crop))
            elif role == "tool":
                self.steps.append(_TOOL + has_image(message.get("content")))
            elif role == "user":
                self.steps.append(_USER + _count_images(message.get("content")))

    def _add_entries(self, entries: Sequence[Any]) -> None:
        for entry in entries:
            is_crop, box, image = read_call_entry(entry, self.reading.tools)
            self.entry_is_crop.append(is_crop)
            self.entry_images.append(image)
            self.entry_boxes.append(NO_BOX if box is None else box)

    def columns(self) -> Columns:
        turns = read_turns(self.texts, self.reading.tools)
        row_starts = np.array(self.row_starts, np.int64)
        crops = int(turns.is_crop.sum()) + sum(self.entry_is_crop)
        rows = len(row_starts) - 1
        columns = Columns(
            [],
            np.empty((rows, 2), np.int64),
            np.empty(rows, np.bool_),
            np.empty(rows, np.int64),
            np.zeros(rows + 1, np.int64),
            np.empty(4 * crops),
            np.zeros(crops, np.bool_),
            np.empty(crops, np.int64),
            np.empty(crops, np.int64),
        )
        combine_steps(
            np.array(self.steps, np.int64),
            row_starts,
            self.reading.delivered_in == "user",
            turns.shapes,
            turns.answers,
            turns.call_starts,
            turns.is_crop,
            turns.boxes,
            turns.images,
            np.array(self.entries, np.int64),
            np.array(self.entry_is_crop, np.bool_),
            np.array(self.entry_boxes, np.float64).reshape(-1),
            np.array(self.entry_images, np.int64),
            *columns[1:],
        )
        last = zip(np.cumsum(columns.turns).tolist(), columns.turns.tolist(), strict=True)
        # A turn with `tool_calls` ignores calls in its text, so the arrays may be too long.
        kept = int(columns.crop_starts[-1])
        return columns._replace(
            texts=[self.texts[stop - 1] if count else "" for stop, count in last],
            boxes=columns.boxes[: 4 * kept],
            delivered=columns.delivered[:kept],
            crop_turns=columns.crop_turns[:kept],
            crop_images=columns.crop_images[:kept],
        )


@kernel
def combine_steps(
    steps: NDArray[np.int64],
    row_starts: NDArray[np.int64],
    user_delivers: bool,
    shapes: NDArray[np.uint8],
    turn_answers: NDArray[np.int64],
    call_starts: NDArray[np.int64],
    is_crop: NDArray[np.bool_],
    call_boxes: NDArray[np.float64],
    call_images: NDArray[np.int64],
    entry_starts: NDArray[np.int64],
    entry_is_crop: NDArray[np.bool_],
    entry_boxes: NDArray[np.float64],
    entry_images: NDArray[np.int64],
    answers: NDArray[np.int64],
    well_formed: NDArray[np.bool_],
    turns: NDArray[np.int64],
    crop_starts: NDArray[np.int64],
    boxes: NDArray[np.float64],
    delivered: NDArray[np.bool_],
    crop_turns: NDArray[np.int64],
    crop_images: NDArray[np.int64],
) -> None:
    # Fills the columns of `Columns`, given those of `Turns` and the entries of `tool_calls`.
    turn = -1
    crops = 0
    for row in range(row_starts.size - 1):
        first_turn = turn + 1
        # Whether all turns but the last are well formed, and the shape of the last.
        good, shape = True, CALL
        # The calls of the last turn: the next to be answered, and whether they are entries of `tool_calls`.
        call, stop, entries = 0, 0, False
        # The crops among them: the first, the next to be answered. How many of the calls have no picture yet,
        # and how many pictures the user sent.
        first_crop, crop, waiting, pictures = crops, crops, 0, 0
        answers[row, 0] = answers[row, 1] = -1
        for k in range(row_starts[row], row_starts[row + 1]):
            if steps[k] >= _USER:
                pictures += steps[k] - _USER
            elif steps[k] >= _TOOL:
                if call < stop:
                    waiting -= steps[k] - _TOOL
                    if entry_is_crop[call] if entries else is_crop[call]:
                        delivered[crop] = steps[k] > _TOOL
                        crop += 1
                    call += 1
            else:
                if user_delivers and pictures == waiting:
                    delivered[first_crop:crops] = True
                turn += 1
                good = good and shape == CALL
                shape = shapes[turn]
                answers[row, 0], answers[row, 1] = turn_answers[2 * turn], turn_answers[2 * turn + 1]
                call, stop, entries = call_starts[turn], call_starts[turn + 1], False
                if entry_starts[turn] < entry_starts[turn + 1]:
                    # The chat parser has moved these calls out of the text.
                    call, stop, entries = entry_starts[turn], entry_starts[turn + 1], True
                    answers[row, 0] = answers[row, 1] = -1
                    shape = CALL if shape == BARE and stop == call + 1 else MALFORMED
                first_crop, crop, waiting, pictures = crops, crops, stop - call, 0
                for each in range(call, stop):
                    if entry_is_crop[each] if entries else is_crop[each]:
                        source = entry_boxes if entries else call_boxes
                        boxes[4 * crops : 4 * crops + 4] = source[4 * each : 4 * each + 4]
                        crop_images[crops] = entry_images[each] if entries else call_images[each]
                        crop_turns[crops] = turn - first_turn
                        crops += 1
        if user_delivers and pictures == waiting:
            delivered[first_crop:crops] = True
        turns[row] = turn + 1 - first_turn
        well_formed[row] = turns[row] > 0 and good and shape == ANSWER
        crop_starts[row + 1] = crops


def _words(message: Message, opened: bool) -> str:
    """The text of a turn, thinking included."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        blocks = [block.get("text") if isinstance(block, Mapping) else block for block in content]
        content = "".join(block for block in blocks if isinstance(block, str))
    elif not isinstance(content, str):
        content = ""
    thinking = message.get("reasoning_content")
    # Where the prompt opens the thinking, the parser has moved the thinking away, even if it is empty.
    if isinstance(thinking, str) and (opened or thinking.strip()):
        return f"<think>{thinking}</think>{content}"
    return f"<think>{content}" if opened else content


def is_image(block: Any) -> bool:
    """Whether a block of a message's content is an image."""
    return isinstance(block, dict | Mapping) and block.get("type") in ("image", "image_url")


def has_image(content: Any) -> bool:
    """Whether the content of a message holds an image."""
    return isinstance(content, list | tuple) and any(map(is_image, content))


def _count_images(content: Any) -> int:
    return sum(map(is_image, content)) if isinstance(content, list | tuple) else 0
