"""Model families: everything in which they differ, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lfpc_rewards import Frame
from lfpc_trl.errors import UserError
from lfpc_trl.models.families.calls import JSON, Calls

QWEN_VISION_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "vision_pad_token": "<|vision_pad|>",
}
"""The vision tokens of all Qwen families."""
UNKNOWN = "unknown, set it"
"""The source of an undocumented frame, which the user must set."""


@dataclass(frozen=True)
class LoraTargets:
    """The weights that an adapter targets: the language model's layers, not the vision tower's.

    Attributes:
        modules: PEFT's `target_modules`, a pattern over full names.
        parameters: PEFT's `target_parameters`: weights that are not modules, such as the experts of a layer,
            which are one tensor.
    """

    modules: str
    parameters: tuple[str, ...] = ()


ATTENTION_AND_MLP = LoraTargets(r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj")
"""The seven projections of a full attention layer with a dense MLP."""
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
"""The routed experts of a layer, as transformers 5 stores them."""
LINEAR_ATTENTION_TOO = (
    r".*language_model\..*\.((q|k|v|o|gate|up|down)_proj|linear_attn\.(in_proj_(qkv|z|b|a)|out_proj))"
)
"""The seven projections, and those of a linear attention layer."""


@dataclass(frozen=True)
class ModelFamily:
    """Everything that differs between the supported families; the defaults are those of Qwen.

    Attributes:
        name: its usual name.
        model_type: as in `config.json`.
        frame: the frame in which its models were trained to write boxes; None if unknown.
        frame_source: where that is documented.
        processor: transformers' processor class.
        factor: pixels per side of a visual token in its released checkpoints; a directory may differ.
        image_processor: transformers' image processor class for Pillow.
        frames_per_picture: as how many video frames its image processor counts a picture against its pixel
            limits.
        vision_tokens: the tokens that stand for pictures, keyed by processor attribute.
        template: our chat template, a file of this folder, for directories whose own cannot be used.
        calls: its tool call format.
        turn_ends: tokens that end a turn in addition to those in its files.
        lora: the weights that an adapter targets.
        unshared: why the prompt of a group cannot be computed once; None if it can.
    """

    name: str
    model_type: str
    frame: Frame | None
    frame_source: str
    processor: type[Any]
    factor: int
    image_processor: type[Any] = Qwen2VLImageProcessorPil
    frames_per_picture: int = 1
    vision_tokens: Mapping[str, str] = field(default_factory=lambda: QWEN_VISION_TOKENS)
    template: str = "qwen_json.jinja"
    calls: Calls = JSON
    turn_ends: tuple[str, ...] = ()
    lora: LoraTargets = ATTENTION_AND_MLP
    unshared: str | None = None

    def resolve_frame(self, stated: str = "family") -> Frame:
        """The frame of its boxes.

        Args:
            stated: "family" for the family's frame, or the name of a frame: a check against a model of
                another family, or the only source if the family's frame is unknown.

        Raises:
            UserError: no frame is known or stated, or the stated frame is not the family's.
        """
        if self.frame is None:
            if stated == "family":
                raise UserError(
                    f"{self.name} does not document the frame of its boxes: set frame to shown (pixels of "
                    "the shown picture) or relative_1000 (0 to 1000)"
                )
            return Frame(stated)
        if stated not in ("family", self.frame.value):
            raise UserError(f"frame is {stated}, but {self.name} writes boxes in {self.frame.value}")
        return self.frame
