"""The dry run: amounts, memory, and the very prompt that TRL would hand to the model."""

import dataclasses
import math

import pytest
from safetensors.torch import load_file

from lfpc_trl import cli
from lfpc_trl.errors import UserError
from lfpc_trl.models import processors, weights
from lfpc_trl.models.families.family import ATTENTION_AND_MLP
from lfpc_trl.train import dry_run
from lfpc_trl.train.recipe import LaunchSettings, load_recipe


@pytest.fixture
def size(model_dir):
    return dry_run.model_size(model_dir)


def test_the_parameters_are_those_of_the_weights(size, model_dir):
    assert size.parameters == sum(
        weight.numel() for weight in load_file(model_dir / "model.safetensors").values()
    )
    assert size.dtype_bytes == 4


def needs(recipe, size, processes=1):
    return {
        need.what.split(" of ")[0]: need.nbytes for need in dry_run.memory(recipe, size, 100, 12, processes)
    }


def test_all_weights_take_sixteen_bytes_a_parameter_and_an_engine_shards_them(size):
    recipe = load_recipe("cpu-stage1")
    one = needs(recipe, size)
    assert one["weights"] + one["gradients and AdamW"] == 16 * size.parameters
    sharded = dataclasses.replace(recipe, launch=LaunchSettings(accelerate_config="zero3"))
    assert needs(sharded, size, 8)["weights"] == one["weights"] / 8
    assert needs(recipe, size, 8)["weights"] == one["weights"]


def test_the_patches_of_a_step_are_what_the_processor_makes(size, model_dir, row):
    """Counted with the real processor, for a picture of 12 visual tokens."""
    processor = processors.load_processor(model_dir)
    side = processors.factor(processor)
    from PIL import Image

    features = processor.image_processor(images=[Image.new("RGB", (4 * side, 3 * side))], return_tensors="pt")
    recipe = load_recipe("cpu-stage1", max_crops=0)
    assert needs(recipe, size)["patches"] == 8 * features["pixel_values"].numel() * 4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_counted_as_peft_makes_it(size, model_dir):
    from peft import get_peft_model

    from lfpc_trl.train.run import _lora

    recipe = load_recipe("lora-1x24gb-stage1")
    made = get_peft_model(weights.load_model(model_dir), _lora(recipe, ATTENTION_AND_MLP))
    trained = sum(weight.numel() for weight in made.parameters() if weight.requires_grad)
    assert needs(recipe, size)["gradients and AdamW"] == 16 * trained > 0


def test_vllm_takes_a_share_and_generate_a_cache(size):
    assert math.isnan(needs(load_recipe("lora-1x24gb-stage1"), size)["vLLM: 40%"])
    assert needs(load_recipe("cpu-stage1"), size)["key-value cache"] > 0


def test_the_command_tells_and_does_nothing(model_dir, data_file, tmp_path, capsys):
    arguments = [
        "train",
        "--config",
        "paper-8x80gb-stage1",
        "--model",
        str(model_dir),
        "--data",
        str(data_file),
    ]
    small = ["--prompts_per_step", "4", "--prompts_per_update", "4"]
    assert cli.main([*arguments, *small, "--output", str(tmp_path / "run"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    for line in (
        "learning_rate: 1.0e-06",
        "accelerate_config: zero3",
        "rollouts per step    64 (8 per process)",
    ):
        assert line in told
    assert "steps                80 (80 updates)" in told
    assert "vLLM: 35% of the GPU, asleep while training" in told
    assert "longest prompt" in told
    # The first prompt, with the tool that the model is offered and the picture's place.
    assert '"name": "image_zoom_in_tool"' in told
    assert "<|image_pad|> x 12 (" in told
    assert told.count("<|image_pad|>") == 1
    assert told.rstrip().endswith("<|im_start|>assistant")


def test_a_model_without_weights_is_named(model_dir, tmp_path):
    (tmp_path / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    with pytest.raises(UserError, match="no weights, it has no"):
        dry_run.model_size(tmp_path)
