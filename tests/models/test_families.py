"""A further family of models is one entry of `FAMILIES`: shown with Qwen2-VL, which is not supported."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl import Qwen2VLProcessor
from trl import chat_template_utils as trl_templates

from lfpc_rewards import Frame
from lfpc_trl.errors import UserError
from lfpc_trl.models import families, processors, weights
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import generate_rollouts
from tests import tiny

ENTRY = families.ModelFamily(
    "Qwen2-VL", "qwen2_vl", Frame.RELATIVE_1000, "by its model card", Qwen2VLProcessor, factor=28
)


@pytest.fixture(scope="module")
def qwen2_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen2")
    torch.manual_seed(0)
    words = tiny.tokenizer()
    ids = {name: words.convert_tokens_to_ids(name) for name in tiny.SPECIALS}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "bos_token_id": None,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 14},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    words.chat_template = tiny.STOCK_QWEN2_5
    words.save_pretrained(folder)
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def entered(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, ENTRY))


def test_without_its_entry_the_family_is_refused(qwen2_dir):
    with pytest.raises(UserError, match="model_type 'qwen2_vl' is not supported"):
        processors.load_processor(qwen2_dir)


@pytest.mark.usefixtures("entered")
def test_one_entry_brings_processor_template_parser_and_weights(qwen2_dir, rows):
    processor = processors.load_processor(qwen2_dir)
    assert type(processor).__name__ == "Qwen2VLProcessor"
    assert processor.family is ENTRY
    assert processors.factor(processor) == 28
    assert trl_templates.supports_tool_calling(processor)
    assert len(processors.vision_token_ids(processor)) == 5
    picture = Image.new("RGB", (112, 84))
    assert processor.image_processor(images=[picture])["image_grid_thw"].tolist() == [[1, 6, 8]]
    settings = CropSettings(frame=processor.family.resolve_frame(), factor=28)
    shown = [dataclasses.replace(rows[0], shown_size=(112, 84))]
    engine = TransformersEngine(weights.load_model(qwen2_dir), processor)
    [rollout] = generate_rollouts(engine, shown, crop_settings=settings, max_new_tokens=4)
    assert rollout.messages[0]["role"] == "assistant"


def test_a_family_may_bring_tokens_pictures_and_a_parser_of_its_own(qwen2_dir, monkeypatch):
    class Pictures(ENTRY.image_processor):
        pass

    own = dataclasses.replace(
        ENTRY,
        image_processor=Pictures,
        vision_tokens={"image_token": "<|image_pad|>"},
        calls=families.Calls(
            "JSON", families.RESPONSE_TEMPLATE | {"defaults": {"role": "assistant", "own": "yes"}}, "hermes"
        ),
    )
    monkeypatch.setattr(families, "FAMILIES", (own,))
    processor = processors.load_processor(qwen2_dir)
    assert processors.vision_token_ids(processor) == [processor.image_token_id]
    assert isinstance(processor.image_processor, Pictures)
    assert processor.tokenizer.response_template["defaults"]["own"] == "yes"
    assert families.RESPONSE_TEMPLATE["defaults"] == {"role": "assistant"}
