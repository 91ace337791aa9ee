"""LFM3-VL (model type lfm3_vl): Qwen's picture tokens and patch grid on its own layers.

Its authors' language models write calls as a Python list between special tokens. We could not see the chat
template of its checkpoints, so any template with another call format than ours is replaced.
"""

from transformers.models.qwen3_vl import Qwen3VLProcessor

from lfpc_trl.models.families.calls import JSON
from lfpc_trl.models.families.family import UNKNOWN, LoraTargets, ModelFamily

try:
    from transformers.models.lfm3_vl import Lfm3VlProcessor
except ImportError:  # before transformers 5.23, which cannot load such a model either
    Lfm3VlProcessor = Qwen3VLProcessor

LFM3_VL = ModelFamily(
    name="LFM3-VL",
    model_type="lfm3_vl",
    frame=None,
    frame_source=UNKNOWN,
    processor=Lfm3VlProcessor,
    factor=32,
    calls=JSON,
    lora=LoraTargets(r".*language_model\..*\.((q|k|v|o|g)_proj|w[123]|conv\.(in|out)_proj)"),
    unshared="the model has layers of conv, sliding_attention",
)
