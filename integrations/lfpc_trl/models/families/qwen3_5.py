"""Qwen3.5, including Qwen3.6 and Qwen3.8, and its mixture of experts."""

import dataclasses

from transformers.models.qwen3_vl import Qwen3VLProcessor

from lfpc_rewards import Frame
from lfpc_trl.models.families.calls import XML
from lfpc_trl.models.families.family import EXPERTS, LINEAR_ATTENTION_TOO, LoraTargets, ModelFamily

LINEAR = "the model has layers of linear_attention"

QWEN3_5 = ModelFamily(
    name="Qwen3.5",
    model_type="qwen3_5",
    frame=Frame.RELATIVE_1000,
    frame_source="by its authors (issue 4 of QwenLM/Qwen3.8-Flash-Next)",
    processor=Qwen3VLProcessor,
    factor=32,
    template="qwen_xml.jinja",
    calls=XML,
    lora=LoraTargets(LINEAR_ATTENTION_TOO),
    unshared=LINEAR,
)
QWEN3_5_MOE = dataclasses.replace(
    QWEN3_5,
    name="Qwen3.5-MoE",
    model_type="qwen3_5_moe",
    lora=LoraTargets(LINEAR_ATTENTION_TOO, EXPERTS),
)
