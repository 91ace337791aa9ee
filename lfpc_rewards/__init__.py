"""Rewards for models that zoom into pictures: boxes and masks, parsing of rollouts, LFPC's terms."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from lfpc_rewards import (
    _cache as _cache,
)  # first: it notes the state of the source before the rest is imported
from lfpc_rewards.answers import answers_match
from lfpc_rewards.boxes import (
    BoxFormat,
    Frame,
    FrameName,
    clip_boxes,
    convert_boxes,
    convert_frame,
    smart_resize,
    visual_tokens,
)
from lfpc_rewards.geometry import (
    area,
    corner_distance,
    coverage,
    coverage_matrix,
    giou,
    giou_matrix,
    intersection,
    iou,
    iou_matrix,
    union_coverage,
)
from lfpc_rewards.locus import LocusParts, locus_parts, locus_reward
from lfpc_rewards.mask_geometry import (
    boundary_f1,
    mask_coverage,
    mask_coverage_matrix,
    mask_f1,
    mask_iou,
    mask_iou_matrix,
)
from lfpc_rewards.masks import Masks
from lfpc_rewards.parsing import Crop, ParsedCompletion, parse_completion, parse_completions
from lfpc_rewards.rewards import (
    GroundingParts,
    Reduce,
    accuracy_reward,
    format_reward,
    grounding_parts,
    grounding_reward,
    judged_accuracy_reward,
    lfpc_reward,
    tool_bonus,
)
from lfpc_rewards.targets import Targets

if TYPE_CHECKING:
    from lfpc_rewards import adapters, presets

try:
    __version__ = version("lfpc-rewards")
except PackageNotFoundError:  # used from a source folder without being installed
    __version__ = "0+unknown"


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # else type checkers would accept any misspelt name

    def __getattr__(name):
        # The core does not need these two: they are loaded on first use.
        if name in ("adapters", "presets"):
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BoxFormat",
    "Crop",
    "Frame",
    "FrameName",
    "GroundingParts",
    "LocusParts",
    "Masks",
    "ParsedCompletion",
    "Reduce",
    "Targets",
    "__version__",
    "accuracy_reward",
    "adapters",
    "answers_match",
    "area",
    "boundary_f1",
    "clip_boxes",
    "convert_boxes",
    "convert_frame",
    "corner_distance",
    "coverage",
    "coverage_matrix",
    "format_reward",
    "giou",
    "giou_matrix",
    "grounding_parts",
    "grounding_reward",
    "intersection",
    "iou",
    "iou_matrix",
    "judged_accuracy_reward",
    "lfpc_reward",
    "locus_parts",
    "locus_reward",
    "mask_coverage",
    "mask_coverage_matrix",
    "mask_f1",
    "mask_iou",
    "mask_iou_matrix",
    "parse_completion",
    "parse_completions",
    "presets",
    "smart_resize",
    "tool_bonus",
    "union_coverage",
    "visual_tokens",
]
