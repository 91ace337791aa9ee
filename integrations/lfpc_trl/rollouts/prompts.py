"""Prompts: one system message, then the picture, or the numbered pictures, and the question.

The description of the crop tool is not here: the chat template renders it from the tool's docstring. The
coordinates are here, because they depend on the model family.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from lfpc_rewards import Frame
from lfpc_trl.data.columns import image_name
from lfpc_trl.data.rows import Row, one_or_all
from lfpc_trl.pictures.sizes import Size

Message = dict[str, Any]
"""A chat message of transformers and TRL."""
Block = dict[str, Any]
"""A content block: {"type": "text", "text": ...} or {"type": "image", "image": a Pillow image}."""

_WITH_TOOL = (
    "You answer a question about an image that is shown to you in low resolution. "
    "Look closer by cropping: a crop comes from the original at full resolution. "
    "In every turn, think first between <think> and </think>. "
    "Then either make one tool call, or give the final answer between <answer> and </answer>. "
    "Boxes are [x1, y1, x2, y2] {coordinates}."
)
_WITHOUT_TOOL = (
    "You answer a question about an image. Think first between <think> and </think>. "
    "Then give the final answer between <answer> and </answer>."
)
_COORDINATES = {
    Frame.SHOWN: "in pixels of the image you were shown first",
    Frame.RELATIVE_1000: "on the image you were shown first, from 0 to 1000 in both directions",
}
_SEVERAL_WITH_TOOL = (
    "You answer a question about images that are shown to you in low resolution. "
    "Look closer by cropping one of them: a crop comes from its original at full resolution. "
    "In every turn, think first between <think> and </think>. "
    "Then either make one tool call, or give the final answer between <answer> and </answer>. "
    "Boxes are [x1, y1, x2, y2] {coordinates}."
)
_SEVERAL_WITHOUT_TOOL = (
    "You answer a question about images. Think first between <think> and </think>. "
    "Then give the final answer between <answer> and </answer>."
)
_SEVERAL_COORDINATES = {
    Frame.SHOWN: "in pixels of the image as you were shown it first",
    Frame.RELATIVE_1000: "on the image, from 0 to 1000 in both directions",
}


def system_text(frame: Frame, *, tools: bool = True, pictures: int = 1) -> str:
    """The system message; with `tools` it says how to crop and in which coordinates.

    Args:
        frame: the frame of the model's boxes.
        tools: whether the crop tool is offered.
        pictures: number of pictures of the question.
    """
    if pictures > 1:
        coordinates = _SEVERAL_COORDINATES.get(frame)
        return _SEVERAL_WITH_TOOL.format(coordinates=coordinates) if tools else _SEVERAL_WITHOUT_TOOL
    return _WITH_TOOL.format(coordinates=_COORDINATES[frame]) if tools else _WITHOUT_TOOL


def question_text(row: Row) -> str:
    """The question, followed by its options as lines "A. ...", "B. ..."."""
    options = [f"{chr(ord('A') + index)}. {text}" for index, text in enumerate(row.choices or ())]
    return "\n".join([row.question, *options])


def prompt_digest(row: Row, *, targets: bool = False) -> str:
    """A short digest of what the model is asked about a row; with `targets`, of its targets as well."""
    pictures = row.pictures
    names, sizes = [each.image.name for each in pictures], [list(each.size) for each in pictures]
    content: list[Any] = [question_text(row), one_or_all(names), one_or_all(sizes)]
    if len(pictures) > 1:  # the journal's header holds the prompts for one picture
        content += [_SEVERAL_WITH_TOOL, _SEVERAL_WITHOUT_TOOL, *_SEVERAL_COORDINATES.values()]
    if targets:
        content.append([target.boxes.tolist() for target in row.targets])
        if len(pictures) > 1:
            content.append([target.image for target in row.targets])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def shown_in(record: Mapping[str, Any]) -> tuple[Size, ...]:
    """The shown sizes of the pictures in a journal record."""
    shown = record["shown"]
    return tuple((width, height) for width, height in (shown if isinstance(shown[0], list) else [shown]))


def user_blocks(row: Row, images: Sequence[Image.Image]) -> list[Block]:
    """The user's turn: the pictures at their shown sizes, then the question."""
    return question_blocks(row, [{"type": "image", "image": image} for image in images])


def question_blocks(row: Row, shown: Sequence[Block]) -> list[Block]:
    """The user's turn with these blocks for the pictures.

    Each of several pictures is preceded by its name, which the crop tool and the question refer to.
    """
    question = {"type": "text", "text": question_text(row)}
    if len(shown) == 1:
        return [*shown, question]
    blocks: list[Block] = []
    for number, block in enumerate(shown, start=1):
        blocks += [{"type": "text", "text": f"{image_name(number)}: "}, block, {"type": "text", "text": "\n"}]
    return [*blocks, question]


def build_prompt(
    frame: Frame, blocks: Sequence[Block] = (), *, tools: bool = True, pictures: int = 1
) -> list[Message]:
    """The messages before the model's first turn.

    Without `blocks` the user's turn is empty text: TRL appends what the environment's `reset` returns.

    Args:
        frame: the frame of the model's boxes.
        blocks: content of the user's turn.
        tools: whether the crop tool is offered.
        pictures: number of pictures of the question.
    """
    return [
        {"role": "system", "content": system_text(frame, tools=tools, pictures=pictures)},
        {"role": "user", "content": list(blocks) if blocks else ""},
    ]
