"""Unsupported families, and what each of them lacks.

The behavior of TRL 1.16 was observed with small models built from their configs: one GRPO step with a crop
tool.
"""

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

_TOOL_PICTURES = (
    "TRL 1.16 trains it until the first rollout calls the tool and then fails on the tool's picture, and the "
    "rewards do not know its tool call format"
)
_TILES = f"{_TOOL_PICTURES}; a picture becomes tiles, whose number is not determined by its size alone"
_BEFORE = "TRL 1.16 fails with it before the first rollout, and the cause has not been investigated"
MISSING = {
    "gemma4": "its processor scales every picture up or down to one budget, so an overview cannot be coarser "
    f"than a crop; {_TOOL_PICTURES}",
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
        return "the installed transformers has no image-text-to-text model of that type"
    return (
        "it has no description yet of its boxes, tool calls, ends of turns and picture tokens "
        "(docs/how-to/prepare-model-and-data.md, a further family of models)"
    )
