"""Rewards for models that zoom into pictures: geometry of boxes, parsing of rollouts, LFPC's terms."""

from importlib.metadata import PackageNotFoundError, version

from lfpc_rewards import _cache as _cache  # first: it notes what the source is like before the rest is read
from lfpc_rewards.answers import answers_match
from lfpc_rewards.boxes import Frame, clip_boxes, convert_boxes, convert_frame, smart_resize, visual_tokens
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
from lfpc_rewards.locus import LocusParts, locus_reward
from lfpc_rewards.parsing import Crop, Rollout, parse_completion, parse_completions
from lfpc_rewards.rewards import (
    GroundingParts,
    accuracy_reward,
    format_reward,
    grounding_reward,
    judged_accuracy_reward,
    lfpc_reward,
    tool_bonus,
)
from lfpc_rewards.targets import Targets

try:
    __version__ = version("lfpc-rewards")
except PackageNotFoundError:  # used from a source folder without being installed
    __version__ = "0+unknown"

__all__ = [
    "Crop",
    "Frame",
    "GroundingParts",
    "LocusParts",
    "Rollout",
    "Targets",
    "__version__",
    "accuracy_reward",
    "answers_match",
    "area",
    "clip_boxes",
    "convert_boxes",
    "convert_frame",
    "corner_distance",
    "coverage",
    "coverage_matrix",
    "format_reward",
    "giou",
    "giou_matrix",
    "grounding_reward",
    "intersection",
    "iou",
    "iou_matrix",
    "judged_accuracy_reward",
    "lfpc_reward",
    "locus_reward",
    "parse_completion",
    "parse_completions",
    "smart_resize",
    "tool_bonus",
    "union_coverage",
    "visual_tokens",
]
