"""Qwen2.5-VL."""

from transformers.models.qwen2_5_vl import Qwen2_5_VLProcessor

from lfpc_rewards import Frame
from lfpc_trl.models.families.family import ModelFamily

QWEN2_5_VL = ModelFamily(
    name="Qwen2.5-VL",
    model_type="qwen2_5_vl",
    frame=Frame.SHOWN,
    frame_source="by its cookbook (spatial_understanding)",
    processor=Qwen2_5_VLProcessor,
    factor=28,
)
