"""Recipes for Qwen3-VL-4B and Qwen3.5-4B: what they need, by the dry run, from published configs alone."""

import json
import math
import re
from pathlib import Path

import pytest

from lfpc_trl.models.families import family_of
from lfpc_trl.train.dry_run import memory, planned_size
from lfpc_trl.train.recipe import load_recipe

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "train-on-one-gpu.md"
QWEN3_VL_4B = {  # as Qwen/Qwen3-VL-4B-Instruct was published; what is left out is transformers' default
    "model_type": "qwen3_vl",
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen3_vl_text",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "model_type": "qwen3_vl_vision",
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "patch_size": 16,
        "deepstack_visual_indexes": [5, 11, 17],
    },
}
QWEN3_5_4B = {  # as Qwen/Qwen3.5-4B was published; its vision tower is taken to be Qwen3-VL-4B's
    "model_type": "qwen3_5",
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen3_5_text",
        "hidden_size": 2560,
        "intermediate_size": 9216,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 248320,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 8,
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "model_type": "qwen3_5_vision",
        "depth": 24,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_heads": 16,
        "out_hidden_size": 2560,
        "patch_size": 16,
    },
}
CONFIGS = {"qwen3-vl-4b": QWEN3_VL_4B, "qwen3.5-4b": QWEN3_5_4B}
PROMPT, PICTURE = 1536, 1024
"""Tokens of the longest prompt, 1,024 of them visual."""


@pytest.fixture(params=CONFIGS)
def model(request, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[request.param]))
    return request.param, tmp_path


def test_the_published_sizes_are_about_four_billion(model):
    _, folder = model
    assert 4.2e9 < planned_size(folder).parameters < 4.7e9


@pytest.mark.parametrize(("kind", "gpu"), [("lora", "1x80gb"), ("full", "1x141gb")])
def test_a_recipe_fits_its_gpu_and_the_page_says_what_it_needs(model, kind, gpu):
    name, folder = model
    recipe = load_recipe(f"{kind}-{name}-{gpu}-stage1")
    needs = memory(recipe, planned_size(folder), PROMPT, PICTURE, 1, family_of(folder).lora)
    device = [need for need in needs if need.where == "device" and not math.isnan(need.nbytes)]
    gigabytes = sum(need.nbytes for need in device) / 1e9
    assert gigabytes < 0.9 * int(re.search(r"x(\d+)gb", gpu)[1])  # vLLM sleeps meanwhile
    row = rf"\| `{re.escape(kind)}-{re.escape(name)}-{gpu}` .* \| {gigabytes:.0f} GB \|"
    assert re.search(row, PAGE.read_text(encoding="utf-8")), f"{kind}-{name}-{gpu}: {gigabytes:.0f} GB"
