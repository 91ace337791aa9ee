"""One compiled pass over the text of many assistant turns: tags, structure, answer, boxes of tool calls.

The kernels read calls in the plainest JSON; any other call goes to `_calls`, which parses it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._calls import (
    BOX_ARGUMENT,
    CROP_TOOL,
    IMAGE_ARGUMENT,
    TOOL_NAME,
    Tools,
    read_written_call,
)
from lfpc_rewards._jit import kernel, part
from lfpc_rewards._tags import I64, Codes, both, in_chunks, next_open, spelling, tag_at

MALFORMED, BARE, CALL, ANSWER = 0, 1, 2, 3
"""Shapes of a turn: anything else; only thinking; thinking and a call; thinking and an answer."""

_MARKED = 4
"""Added to the shape of a text in which something looks like the start or end of a turn."""

_SHORTEST_CALL = len("<tool_call></tool_call>")
_ZERO, _NONE = cast("int", np.int64(0)), cast("int", np.int64(-1))
"""Typed 0 and -1 for variables that are passed on: numba would compile again for a literal."""

_NAMES = both("think", "tool_call", "answer")
_TAGS = spelling([*_NAMES, *both("tool_response"), "<|", "</|"])
"""The tags of a turn: even indices open, odd ones close. Those after `_LAST` may begin another turn."""

_THINK_END, _CALL, _CALL_END, _ANSWER, _ANSWER_END, _LAST = 1, 2, 3, 4, 5, 5
_WIDTHS = np.array(list(map(len, _NAMES)), np.int64)
_USER = np.frombuffer(b"user\n", np.uint8)
_TOOL = np.frombuffer(b"tool\n", np.uint8)
_NAME_KEY = np.frombuffer(b'"name"', np.uint8)
_NAME = np.frombuffer(f'"{TOOL_NAME}"'.encode(), np.uint8)
_ARGUMENTS_KEY = np.frombuffer(b'"arguments"', np.uint8)
_BOX_KEY = np.frombuffer(f'"{BOX_ARGUMENT}"'.encode(), np.uint8)
_IMAGE_KEY = np.frombuffer(f'"{IMAGE_ARGUMENT}"'.encode(), np.uint8)
_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
BOX_IN_TEXT = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")
"""A box as models write it, with a group for each number. `read_box` reads the plainest form."""

_POWERS = 10.0 ** np.arange(16)
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3001)], np.bool_)  # none lies beyond


class Turns(NamedTuple):
    """What many assistant turns say; one entry per turn, and one per call written in their text.

    Attributes:
        texts: The turns.
        shapes: (N,) `MALFORMED`, `BARE`, `CALL` or `ANSWER`.
        marked: (N,) whether a text may hold more than one turn (a special token, a ``<tool_response>`` or a
            line "user" after a closing tag): then `_roles` splits it.
        answers: (2 * N,) where each answer starts and stops in its turn, stripped; -1 if there is none.
            A turn that calls a tool in its text has no answer.
        call_starts: (N + 1,) where each turn's calls start.
        is_crop: (calls,) whether it is a call of the crop tool.
        boxes: (4 * calls,) the four numbers of each crop, NaN if they were not four finite numbers.
        images: (calls,) the number of its image; see `_calls.Call`.
    """

    texts: Sequence[str]
    shapes: NDArray[np.uint8]
    marked: NDArray[np.bool_]
    answers: NDArray[np.int64]
    call_starts: NDArray[np.int64]
    is_crop: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    images: I64


def read_turns(texts: Sequence[str], tools: Tools = CROP_TOOL) -> Turns:
    """Read the text of each assistant turn."""
    count = len(texts)
    shapes = np.empty(count, np.uint8)
    answers = np.empty(2 * count, np.int64)
    call_starts = np.zeros(count + 1, np.int64)
    found = [(np.empty(0, np.bool_), np.empty(0), np.empty(0, np.int64))]
    for first, codes, lengths in in_chunks(texts):
        spans, is_crop, boxes = scan_turns(codes, lengths, first, shapes, answers, call_starts)
        if tools != CROP_TOOL:  # the only tool that the kernels know
            is_crop[:] = False
        images = np.ones(len(is_crop), np.int64)
        for call in np.flatnonzero(~is_crop).tolist():
            turn, start, stop = spans[3 * call : 3 * call + 3].tolist()
            is_crop[call], box, images[call] = read_written_call(texts[turn][start:stop], tools)
            boxes[4 * call : 4 * call + 4] = math.nan if box is None else box
        found.append((is_crop, boxes, images))
    crops, boxes, images = map(np.concatenate, zip(*found, strict=True))
    marked = shapes >= _MARKED
    shapes[marked] -= _MARKED
    return Turns(texts, shapes, marked, answers, call_starts, crops, boxes, images)


@part
def is_space(code: int) -> bool:
    # What `str.strip` removes.
    return code < _IS_SPACE.size and _IS_SPACE[code]


@part
def only_space(codes: Codes, start: int, stop: int) -> bool:
    for i in range(start, stop):  # noqa: SIM110 - `all` with a generator does not compile
        if not is_space(codes[i]):
            return False
    return True


@part
def starts_with(codes: Codes, i: int, stop: int, word: NDArray[np.uint8]) -> bool:
    if i + word.size > stop:
        return False
    for k in range(word.size):  # noqa: SIM110
        if codes[i + k] != word[k]:
            return False
    return True


@part
def skip_blanks(codes: Codes, i: int, stop: int) -> int:
    # JSON's white space, which is less than `is_space`.
    while i < stop and (codes[i] == 0x20 or codes[i] == 0x0A or codes[i] == 0x0D or codes[i] == 0x09):
        i += 1
    return i


@part
def after_sign(codes: Codes, i: int, stop: int, sign: int) -> int:
    # Past `sign` and the white space around it; -1 if it is not there, or if i is -1 already.
    if i < 0:
        return -1
    i = skip_blanks(codes, i, stop)
    if i >= stop or codes[i] != sign:
        return -1
    return skip_blanks(codes, i + 1, stop)


@part
def after_string(codes: Codes, i: int, stop: int) -> int:
    # Past a JSON string without escapes; -1 if it is anything else.
    if i >= stop or codes[i] != 0x22:
        return -1
    i += 1
    while i < stop and codes[i] != 0x22:
        if codes[i] == 0x5C or codes[i] < 0x20:
            return -1
        i += 1
    return i + 1 if i < stop else -1


@part
def read_number(codes: Codes, i: int, stop: int) -> tuple[float, int]:
    # (value, place after it), or (0, -1) for anything but a plain decimal of at most 15 digits. Those digits
    # and the power of ten are exact in float64, so one division rounds as `float` does.
    negative = i < stop and codes[i] == 0x2D
    if negative:
        i += 1
    first = i
    digits = np.int64(0)
    while i < stop and 0x30 <= codes[i] <= 0x39 and i - first < 16:
        digits = 10 * digits + (np.int64(codes[i]) - 0x30)
        i += 1
    whole = i - first
    if whole == 0 or (whole > 1 and codes[first] == 0x30):
        return 0.0, -1
    decimals = 0
    if i < stop and codes[i] == 0x2E:
        i += 1
        while i < stop and 0x30 <= codes[i] <= 0x39 and whole + decimals < 16:
            digits = 10 * digits + (np.int64(codes[i]) - 0x30)
            decimals += 1
            i += 1
        if decimals == 0:
            return 0.0, -1
    if whole + decimals > 15:
        return 0.0, -1
    # An exponent or any other letter fails where the caller expects a comma.
    if decimals == 0:
        return float(-digits if negative else digits), i  # -0 is the integer 0
    value = digits / _POWERS[decimals]
    return -value if negative else value, i


@part
def read_box(codes: Codes, i: int, stop: int, box: NDArray[np.float64]) -> int:
    i = after_sign(codes, i, stop, 0x5B)  # [
    for k in range(4):
        if i < 0:
            return -1
        box[k], i = read_number(codes, i, stop)
        if i >= 0:
            i = after_sign(codes, i, stop, 0x2C if k < 3 else 0x5D)  # , or ]
    return i


@part
def read_arguments(codes: Codes, i: int, stop: int, box: NDArray[np.float64]) -> int:
    # Past an object with one "bbox_2d" and any number of plain strings, none of them the number of an image;
    # -1 if it is anything else.
    i = after_sign(codes, i, stop, 0x7B)  # {
    boxes = 0
    while i >= 0:
        is_box = starts_with(codes, i, stop, _BOX_KEY)
        if not is_box and starts_with(codes, i, stop, _IMAGE_KEY):
            return -1
        i = after_sign(codes, after_string(codes, i, stop), stop, 0x3A)  # :
        if i < 0:
            return -1
        if is_box:
            boxes += 1
            i = read_box(codes, i, stop, box)
        else:
            i = after_string(codes, i, stop)
        following = after_sign(codes, i, stop, 0x2C)  # ,
        if following < 0:
            return after_sign(codes, i, stop, 0x7D) if boxes == 1 else -1  # }
        i = following
    return -1


@part
def read_call(codes: Codes, i: int, stop: int, box: NDArray[np.float64]) -> bool:
    # Whether the text is a call of the crop tool in the plainest JSON; then `box` holds its numbers. False:
    # fall back to json.
    i = after_sign(codes, i, stop, 0x7B)  # {
    names = 0
    arguments = 0
    while i >= 0:
        if starts_with(codes, i, stop, _NAME_KEY):
            i = after_sign(codes, i + _NAME_KEY.size, stop, 0x3A)  # :
            if i < 0 or not starts_with(codes, i, stop, _NAME):
                return False
            i += _NAME.size
            names += 1
        elif starts_with(codes, i, stop, _ARGUMENTS_KEY):
            i = after_sign(codes, i + _ARGUMENTS_KEY.size, stop, 0x3A)
            i = read_arguments(codes, i, stop, box)
            arguments += 1
        else:
            return False
        following = after_sign(codes, i, stop, 0x2C)  # ,
        if following < 0:
            return names == 1 and arguments == 1 and after_sign(codes, i, stop, 0x7D) == stop  # }
        i = following
    return False


@part
def opens_user(codes: Codes, i: int, stop: int) -> bool:
    # Whether a line "user" or "tool" follows, as decoded text without special tokens has it.
    while i < stop and is_space(codes[i]):
        i += 1
    return starts_with(codes, i, stop, _USER) or starts_with(codes, i, stop, _TOOL)


@part
def scan_turn(
    codes: Codes,
    start: int,
    stop: int,
    turn: int,
    calls: int,
    names: I64,
    places: I64,
    shapes: NDArray[np.uint8],
    answers: I64,
    spans: I64,
    is_crop: NDArray[np.bool_],
    boxes: NDArray[np.float64],
) -> int:
    # Reads one turn. Takes the number of calls so far and returns the new one. `names` and `places` are
    # buffers for its first four tags: which tag, and where it starts and stops.
    tags = 0
    marked = False
    turn_calls = calls
    # Of the text after the last </think> so far: the open call, the number of answer tags, the first answer.
    call, opened, closed, answer_start, answer_stop = _NONE, 0, 0, -1, -1
    i = next_open(codes, start, stop)
    while i < stop:
        begin, name = i, tag_at(codes, i, stop, _TAGS)
        if name < 0 or name > _LAST:
            marked = marked or name > _LAST
            i = next_open(codes, i + 1, stop)
            continue
        i += _WIDTHS[name]
        marked = marked or (name % 2 == 1 and opens_user(codes, i, stop))
        if tags < 4:
            names[tags] = name
            places[2 * tags], places[2 * tags + 1] = begin, i
        tags += 1
        if name == _THINK_END:  # everything so far was thinking: forget it
            calls = turn_calls
            call, opened, closed, answer_start, answer_stop = _NONE, 0, 0, -1, -1
        elif name == _CALL and call < 0:
            call = i
        elif name == _CALL_END and call >= 0:
            spans[3 * calls], spans[3 * calls + 1], spans[3 * calls + 2] = (
                turn,
                call - start,
                begin - start,
            )
            is_crop[calls] = read_call(codes, call, begin, boxes[4 * calls : 4 * calls + 4])
            calls += 1
            call = -1
        elif name == _ANSWER:
            if opened == 0:
                answer_start = i
            opened += 1
        elif name == _ANSWER_END:
            if opened == 1 and closed == 0:
                answer_stop = begin
            closed += 1
        i = next_open(codes, i, stop)

    answers[2 * turn] = answers[2 * turn + 1] = -1
    if opened == 1 and closed == 1 and answer_stop >= 0 and calls == turn_calls:
        while answer_start < answer_stop and is_space(codes[answer_start]):
            answer_start += 1
        while answer_start < answer_stop and is_space(codes[answer_stop - 1]):
            answer_stop -= 1
        answers[2 * turn], answers[2 * turn + 1] = answer_start - start, answer_stop - start

    shape = MALFORMED
    if (tags == 2 or tags == 4) and names[0] == 0 and names[1] == 1 and only_space(codes, start, places[0]):
        if tags == 2:
            shape = BARE if only_space(codes, places[3], stop) else MALFORMED
        elif (
            (names[2] == 2 or names[2] == 4)
            and names[3] == names[2] + 1
            and only_space(codes, places[3], places[4])
            and only_space(codes, places[7], stop)
        ):
            shape = CALL if names[2] == 2 else ANSWER
    shapes[turn] = shape + _MARKED if marked else shape
    return calls


@kernel
def scan_turns(
    codes: Codes,
    lengths: I64,
    first_turn: int,
    shapes: NDArray[np.uint8],
    answers: I64,
    call_starts: I64,
) -> tuple[I64, NDArray[np.bool_], NDArray[np.float64]]:
    # Fills the columns of `Turns` for the turns from `first_turn` on. Returns for each of their calls the
    # span (turn, start, stop), whether it could be read here, and its box.
    room = codes.size // _SHORTEST_CALL
    spans, is_crop, boxes = np.empty(3 * room, np.int64), np.empty(room, np.bool_), np.empty(4 * room)
    names, places = np.zeros(4, np.int64), np.zeros(8, np.int64)
    calls = stop = _ZERO
    for k in range(lengths.size):
        turn = first_turn + k
        start, stop = stop, stop + lengths[k]
        calls = scan_turn(
            codes, start, stop, turn, calls, names, places, shapes, answers, spans, is_crop, boxes
        )
        call_starts[turn + 1] = call_starts[first_turn] + calls
    return spans[: 3 * calls].copy(), is_crop[:calls].copy(), boxes[: 4 * calls].copy()
