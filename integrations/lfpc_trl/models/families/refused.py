"""Families that are not supported, and what each of them lacks.

What TRL 1.16 does with them was seen with small models built from their configs: one GRPO step with a crop
tool.
"""

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

_TOOL_PICTURES = (
    "TRL 1.16 trains it until the first rollout calls the tool and then fails at the tool's picture, and the "
    "rewards do not know how its calls are written"
)
_TILES = f"{_TOOL_PICTURES}; a picture becomes tiles, whose number does not follow from its size alone"
_BEFORE = "TRL 1.16 fails with it before the first rollout, and what that takes has not been looked into"
MISSING = {
    "gemma4": "its processor shows every picture scaled up or down to one budget, so that an overview cannot "
    f"be coarser than a crop; {_TOOL_PICTURES}",
    "lfm2_vl": _TILES,
    "internvl": _TILES,
    "smolvlm": _TILES,
    "kimi_k25": _TOOL_PICTURES,
    "step3p7": _TOOL_PICTURES,
    "minimax_m3_vl": "TRL 1.16 does not know its picture token and would train it without any picture",
    "mistral3": _BEFORE,
    "minicpmv4_6": _BEFORE,
    "minicpmv4_7": _BEFORE,
    "ovis2": _BEFORE,
    "molmo2": _BEFORE,
}
"""Model type: what is missing."""


def what_is_missing(model_type: object) -> str:
    """Why a model type is not supported, as the end of a sentence."""
    if isinstance(model_type, str) and model_type in MISSING:
        return MISSING[model_type]
    if not isinstance(model_type, str) or model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "transformers has no model of that type that reads pictures and writes text"
    return (
        "nobody has described it: how it writes boxes, calls and the ends of turns, and what stands for "
        "pictures (docs/how-to/prepare-model-and-data.md, a further family of models)"
    )
