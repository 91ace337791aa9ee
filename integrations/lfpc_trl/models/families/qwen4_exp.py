"""Qwen4-Exp, the experiment before Qwen4: the chat template of Qwen3.8 on its own layers."""

import dataclasses

from lfpc_trl.models.families.family import UNKNOWN
from lfpc_trl.models.families.qwen3_5 import QWEN3_5_MOE

QWEN4_EXP = dataclasses.replace(
    QWEN3_5_MOE,
    name="Qwen4-Exp",
    model_type="qwen4_exp",
    frame=None,
    frame_source=UNKNOWN,
    unshared="the model has layers of indexed_attention, linear_attention",
)
