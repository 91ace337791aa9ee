"""What a family of models is: everything in which the families differ, as data."""

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
"""The tokens that stand for pictures in all of Qwen's families."""
UNKNOWN = "unknown, set it"
"""The source of a frame that nobody has told: the user must say it."""


@dataclass(frozen=True)
class LoraTargets:
    """Where an adapter goes: the language model's layers, not the vision tower's.

    Attributes:
        modules: PEFT's `target_modules`, a pattern over whole names.
        parameters: PEFT's `target_parameters`: weights that are no module of their own, such as the experts
            of a layer, which are one tensor.
    """

    modules: str
    parameters: tuple[str, ...] = ()


ATTENTION_AND_MLP = LoraTargets(r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj")
"""The seven projections of a layer of full attention with one network behind it."""
EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
"""The routed experts of a layer, as transformers 5 holds them."""
LINEAR_ATTENTION_TOO = (
    r".*language_model\..*\.((q|k|v|o|gate|up|down)_proj|linear_attn\.(in_proj_(qkv|z|b|a)|out_proj))"
)
"""The seven projections, and those of a layer of linear attention."""


@dataclass(frozen=True)
class ModelFamily:
    """Everything that differs between the supported families; what is the same in Qwen's has a default.

    Attributes:
        name: as people call it.
        model_type: as `config.json` calls it.
        frame: the frame in which models of the family were taught to write boxes; None if that is not known.
        frame_source: where that stands.
        processor: transformers' processor class.
        factor: pixels per side of a visual token in its released checkpoints; a directory may say another.
        image_processor: transformers' image processor class for Pillow.
        frames_per_picture: as how many frames of a film its image processor counts a picture that it holds
            against its limits of pixels.
        vision_tokens: the tokens that stand for pictures, by the attribute of the processor that holds them.
        template: our chat template, a file of this folder, for directories whose own does not do.
        calls: how it writes tool calls.
        turn_ends: tokens that end a turn beside those that its files name.
        lora: where an adapter goes.
        unshared: why prompts of a group cannot be computed once; None if they can.
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

    def frame_as(self, stated: str = "family") -> Frame:
        """The frame of its boxes.

        Args:
            stated: "family" for the one it was taught, or the name of a frame that guards against a model of
                another family, or that tells a frame which is not known.

        Raises:
            UserError: no frame is known and none was stated, or another was stated than it was taught.
        """
        if self.frame is None:
            if stated == "family":
                raise UserError(
                    f"{self.name} does not say in which frame its boxes count: set frame to shown (pixels of "
                    "the shown picture) or relative_1000 (0 to 1000)"
                )
            return Frame(stated)
        if stated not in ("family", self.frame.value):
            raise UserError(f"frame is {stated}, but {self.name} counts in {self.frame.value}")
        return self.frame
