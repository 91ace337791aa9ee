"""Qwen3-VL and its mixture of experts."""

import dataclasses

from transformers.models.qwen3_vl import Qwen3VLProcessor

from lfpc_rewards import Frame
from lfpc_trl.models.families.family import ATTENTION_AND_MLP, EXPERTS, ModelFamily

QWEN3_VL = ModelFamily(
    name="Qwen3-VL",
    model_type="qwen3_vl",
    frame=Frame.RELATIVE_1000,
    frame_source="by its cookbook (2d_grounding)",
    processor=Qwen3VLProcessor,
    factor=32,
)
QWEN3_VL_MOE = dataclasses.replace(
    QWEN3_VL,
    name="Qwen3-VL-MoE",
    model_type="qwen3_vl_moe",
    lora=dataclasses.replace(ATTENTION_AND_MLP, parameters=EXPERTS),
)
