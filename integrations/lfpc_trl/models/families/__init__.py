"""Supported model families, one file each, and the family of a model directory."""

from pathlib import Path

from lfpc_trl.errors import UserError
from lfpc_trl.json_values import read_json
from lfpc_trl.models.families.calls import JSON, Calls
from lfpc_trl.models.families.family import LoraTargets, ModelFamily
from lfpc_trl.models.families.glm46v import GLM46V
from lfpc_trl.models.families.lfm3_vl import LFM3_VL
from lfpc_trl.models.families.qwen2_5_vl import QWEN2_5_VL
from lfpc_trl.models.families.qwen3_5 import QWEN3_5, QWEN3_5_MOE
from lfpc_trl.models.families.qwen3_vl import QWEN3_VL, QWEN3_VL_MOE
from lfpc_trl.models.families.qwen4_exp import QWEN4_EXP
from lfpc_trl.models.families.refused import what_is_missing

__all__ = [
    "FAMILIES",
    "RESPONSE_TEMPLATE",
    "Calls",
    "LoraTargets",
    "ModelFamily",
    "family_named",
    "family_of",
]

FAMILIES = (QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, QWEN3_5_MOE, QWEN4_EXP, GLM46V, LFM3_VL)
RESPONSE_TEMPLATE = JSON.response_template
"""The response template of the demo's small model."""


def family_named(model_type: object) -> ModelFamily | None:
    """The family of a model type; None if it is not supported."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def family_of(model_dir: str | Path) -> ModelFamily:
    """The family of a Hugging Face model directory.

    Raises:
        UserError: no directory, no readable `config.json`, or an unsupported model.
    """
    config = Path(model_dir) / "config.json"
    try:
        content = read_json(config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{model_dir}: not a model directory, it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: not readable ({error})") from None
    for path in sorted(Path(model_dir).iterdir()):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: not a regular file")  # transformers would wait forever for a pipe
    model_type = content.get("model_type") if isinstance(content, dict) else None
    family = family_named(model_type)
    if family is None:
        *names, last = (each.name for each in FAMILIES)
        raise UserError(
            f"{config}: model_type {model_type!r} is not supported: {what_is_missing(model_type)}. "
            f"Supported families: {', '.join(names)} and {last}"
        )
    return family
