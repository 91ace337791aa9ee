"""DeepEyes' tool, ``image_zoom_in_tool``, as in its repository (two versions), verl and ms-swift.

All boxes are in pixels. DeepEyes takes boxes on the shown image and cuts them from the original without
converting them; here the caller decides whether to convert.
"""

from __future__ import annotations

import re
from math import ceil, floor
from typing import Any, Literal, NamedTuple, TypeAlias

from lfpc_rewards._json import json_or_none

Version: TypeAlias = Literal["v2", "v5", "verl", "ms_swift"]
"""The rules to use: DeepEyes' `visual_toolbox_v2` (the same in ms-swift) or `_v5`, or verl's."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_LARGEST_ASPECT = 100
_SMALLEST_SIDE = 28
_TOO_SMALL = 30
_MOST_CALLS = 3

Box: TypeAlias = tuple[float, float, float, float]


class Step(NamedTuple):
    """The result of a turn.

    Attributes:
        done: Whether the rollout ends: the turn answered, or called no tool.
        boxes: The boxes that are cut, the whole image for a rotation; empty if the tool refuses.
    """

    done: bool
    boxes: tuple[Box, ...]


def run(text: str, size: tuple[int, int], *, version: Literal["v2", "v5"] = "v2") -> Step:
    """Run DeepEyes' tool on a turn.

    A non-empty answer ends the rollout, even if the turn also has a call. "v2" runs the last call; "v5" the
    first three, and if one fails, the pictures of all are dropped.

    Args:
        text: The turn.
        size: Width and height of the image.
        version: The rules to use.

    Source:
        `VisualToolBoxV2.execute` and `VisualToolBoxV5.execute` of DeepEyes.

    Example:
        >>> call = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [10, 20, 100, 200]}}'
        >>> run(f"<tool_call>{call}</tool_call>", (640, 480))
        Step(done=False, boxes=((10, 20, 100, 200),))
    """
    answers = _ANSWER.findall(text)
    calls = _CALL.findall(text)
    if version == "v2":
        calls = [call for call in calls[-1:] if call]
    if (answers and answers[-1]) or not calls:
        return Step(done=True, boxes=())
    boxes = [_called_box(call, size, version) for call in calls[:_MOST_CALLS]]
    cut = [box for box in boxes if box is not None]
    return Step(done=False, boxes=tuple(cut) if len(cut) == len(boxes) else ())


def crop_box(box: Any, size: tuple[int, int], *, version: Version = "v2") -> Box | None:
    """Return the region that the tool cuts; None if it refuses.

    The box is clipped to the image. "v2" and "ms_swift" refuse sides of 30 pixels or less; "v5" and "verl"
    enlarge a box below 28 pixels about its center, verl so that it stays inside the image.

    Args:
        box: x0, y0, x1, y1.
        size: Width and height of the image.
        version: The rules to use.

    Returns:
        The region, in whole pixels if it was enlarged; None for inverted boxes, one side 100 times the other,
        or anything that is not a box.

    Source:
        `maybe_resize_bbox` of DeepEyes and of ms-swift's plug-in, `_maybe_resize_bbox` of verl.

    Example:
        >>> for version in ("v2", "v5", "verl"):
        ...     print(crop_box([0, 0, 10, 10], (640, 480), version=version))
        None
        (-9, -9, 19, 19)
        (0, 0, 28, 28)
    """
    try:
        x0, y0, x1, y1 = box
        if version == "verl":
            return _verl_box((float(x0), float(y0), float(x1), float(y1)), size)
        inside = (max(0, x0), max(0, y0), min(size[0], x1), min(size[1], y1))
        if not _proper(inside) or (version != "v5" and min(_sides(inside)) <= _TOO_SMALL):
            return None
        grown = _grown(inside) if min(_sides(inside)) < _SMALLEST_SIDE else inside
        return grown if _proper(grown) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _called_box(call: str, size: tuple[int, int], version: Version) -> Box | None:
    request = json_or_none(call.strip())
    if not isinstance(request, dict) or not isinstance(arguments := request.get("arguments"), dict):
        return None
    if request.get("name") == "image_zoom_in_tool":
        return crop_box(arguments.get("bbox_2d"), size, version=version)
    turned = request.get("name") == "image_rotate_tool" and isinstance(arguments.get("angle"), int | float)
    return (0, 0, *size) if turned else None


def _sides(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _proper(box: Box) -> bool:
    width, height = _sides(box)
    return width > 0 and height > 0 and max(width, height) / min(width, height) <= _LARGEST_ASPECT


def _grown(box: Box) -> Box:
    """Enlarge a box about its center to a shorter side of at least 28 pixels; it may exceed the image."""
    ratio = _SMALLEST_SIDE / min(_sides(box))
    middles = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    halves = [ceil(side * ratio * 0.5) for side in _sides(box)]
    (x, y), (right, down) = middles, halves
    return floor(x - right), floor(y - down), ceil(x + right), ceil(y + down)


def _verl_box(box: Box, size: tuple[int, int]) -> Box | None:
    width, height = size
    inside = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
    if not _proper(inside):
        return None
    cut = inside
    if min(_sides(inside)) < _SMALLEST_SIDE:
        wide, high = (side * (_SMALLEST_SIDE / min(_sides(inside))) for side in _sides(inside))
        if wide > width:
            wide, high = width, high * (width / wide)
        if high > height:
            wide, high = wide * (height / high), height
        left = max((inside[0] + inside[2]) / 2 - wide / 2, 0)
        top = max((inside[1] + inside[3]) / 2 - high / 2, 0)
        left = width - wide if left + wide > width else left
        top = height - high if top + high > height else top
        cut = (floor(left), floor(top), ceil(left + wide), ceil(top + high))
    sides = floor(cut[2]) - floor(cut[0]), floor(cut[3]) - floor(cut[1])
    return cut if _proper(cut) and min(sides) >= _SMALLEST_SIDE else None
