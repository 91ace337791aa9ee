"""What the model is told: one system message, then the picture and the question.

The description of the crop tool is not here: the chat template renders it from the tool's docstring. The
coordinates are, because they depend on the model family.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from PIL import Image

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row

Message = dict[str, Any]
"""A chat message as transformers and TRL know it."""
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


def system_text(frame: Frame, *, tools: bool = True) -> str:
    """The system message; with `tools` it says how to crop and in which coordinates."""
    return _WITH_TOOL.format(coordinates=_COORDINATES[frame]) if tools else _WITHOUT_TOOL


def question_text(row: Row) -> str:
    """The question, followed by its options as lines "A. ...", "B. ..."."""
    options = [f"{chr(ord('A') + index)}. {text}" for index, text in enumerate(row.choices or ())]
    return "\n".join([row.question, *options])


def asked(row: Row, *, targets: bool = False) -> str:
    """What the model is asked about a row, as a short digest; with `targets` also what it may be shown."""
    content: list[Any] = [question_text(row), row.image.name, list(row.size)]
    if targets:
        content.append([region.tolist() for region in row.regions or ()])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def user_blocks(row: Row, image: Image.Image) -> list[Block]:
    """The user's turn: the picture at the size in which it is shown, then the question."""
    return [{"type": "image", "image": image}, {"type": "text", "text": question_text(row)}]


def build_prompt(frame: Frame, blocks: Sequence[Block] = (), *, tools: bool = True) -> list[Message]:
    """The messages before the first turn of the model.

    Without `blocks` the user's turn is empty text: TRL appends what the environment's `reset` returns.
    """
    return [
        {"role": "system", "content": system_text(frame, tools=tools)},
        {"role": "user", "content": list(blocks) if blocks else ""},
    ]
