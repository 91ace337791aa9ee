"""LFM3-VL (model type lfm3_vl): Qwen's picture tokens and grid of patches over layers of its own.

Its authors' language models write calls as a list in Python between tokens of their own. Which template its
checkpoints bring was not to be seen, so whatever writes other calls than ours is replaced by our template.
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
