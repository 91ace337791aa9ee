"""Families of models: everything that differs between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.models.qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl import Qwen3VLProcessor

from lfpc_rewards import Frame
from lfpc_trl.errors import UserError
from lfpc_trl.json_values import read_json

_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "vision_pad_token": "<|vision_pad|>",
}
RESPONSE_TEMPLATE: dict[str, Any] = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": r"<tool_call>(?!.*</think>)(?=.*</tool_call>)",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""Which calls of a turn are run (transformers' response parsing): those that the rewards read, the closed
ones after the thinking. Nothing else that the parser says is used; see `rollouts.turns`."""


@dataclass(frozen=True)
class ModelFamily:
    """Everything that differs between the supported families; what is the same in Qwen's has a default.

    Attributes:
        name: as people call it.
        model_type: as `config.json` calls it.
        frame: the frame in which models of the family were taught to write boxes.
        processor: transformers' processor class.
        image_processor: transformers' image processor class for Pillow.
        vision_tokens: the tokens that stand for pictures, by the attribute of the processor that holds them.
        template: our chat template, a file of this folder, for directories whose own has no tools.
        response_template: how the calls of a turn that follows the template are found.
    """

    name: str
    model_type: str
    frame: Frame
    processor: type[Any]
    image_processor: type[Any] = Qwen2VLImageProcessorPil
    vision_tokens: Mapping[str, str] = field(default_factory=lambda: _QWEN_TOKENS)
    template: str = "qwen_vl.jinja"
    response_template: Mapping[str, Any] = field(default_factory=lambda: RESPONSE_TEMPLATE)


FAMILIES = (
    ModelFamily("Qwen2.5-VL", "qwen2_5_vl", Frame.SHOWN, Qwen2_5_VLProcessor),
    ModelFamily("Qwen3-VL", "qwen3_vl", Frame.RELATIVE_1000, Qwen3VLProcessor),
)


def family_of(model_dir: str | Path) -> ModelFamily:
    """The family of a Hugging Face model directory.

    Raises:
        UserError: no directory, no readable `config.json`, or another kind of model.
    """
    config = Path(model_dir) / "config.json"
    supported = " and ".join(family.name for family in FAMILIES)
    try:
        content = read_json(config)
    except FileNotFoundError:
        raise UserError(f"{model_dir}: not a model directory, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: not readable ({error})") from None
    for path in sorted(Path(model_dir).iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: not a regular file")  # transformers would wait for a pipe to end
    model_type = content.get("model_type") if isinstance(content, dict) else None
    for family in FAMILIES:
        if model_type == family.model_type:
            return family
    raise UserError(f"{config}: model_type {model_type!r} is not supported, {supported} are")
