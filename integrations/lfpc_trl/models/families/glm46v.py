"""GLM-4.6V-Flash (model type glm46v).

Its own chat template has no end-of-turn token: the role token of the next message ends a turn, and the model
generates that token as the last of its turn (<|observation|> after a call, <|user|> after an answer). Our
template writes it there too, so that a conversation has the tokens of training, each of them once.
"""

from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.glm46v.processing_glm46v import Glm46VProcessor

from lfpc_rewards import Frame
from lfpc_trl.models.families.calls import GLM_XML
from lfpc_trl.models.families.family import LoraTargets, ModelFamily

GLM46V = ModelFamily(
    name="GLM-4.6V",
    model_type="glm46v",
    frame=Frame.RELATIVE_1000,
    frame_source="by its authors (skill glmv-grounding of zai-org/GLM-V)",
    processor=Glm46VProcessor,
    factor=28,
    image_processor=Glm46VImageProcessorPil,
    frames_per_picture=2,
    vision_tokens={
        "image_token": "<|image|>",
        "video_token": "<|video|>",
        "image_start": "<|begin_of_image|>",
        "image_end": "<|end_of_image|>",
        "video_start": "<|begin_of_video|>",
        "video_end": "<|end_of_video|>",
    },
    template="glm.jinja",
    calls=GLM_XML,
    turn_ends=("<|user|>", "<|observation|>"),
    lora=LoraTargets(r".*language_model\..*\.(q|k|v|o|gate_up|down)_proj"),
)
