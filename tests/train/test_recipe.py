"""Recipes: what is in those that come with the package, what overrides what, and what is refused."""

import dataclasses
import os
import sys

import pytest
import yaml

from lfpc_rewards import Frame
from lfpc_trl import cli
from lfpc_trl.errors import UserError
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.transcript import GroundingSettings
from lfpc_trl.train.recipe import (
    REFUSED,
    LaunchSettings,
    RecipeParser,
    load_recipe,
    parse,
    recipe_file,
    recipe_of,
)
from lfpc_trl.train.recipe import recipe_names as names
from lfpc_trl.train.settings import StageSettings
from tests import tiny

CROPS = CropSettings(frame=Frame.SHOWN, factor=28)


def content(name):
    return yaml.safe_load(recipe_file(name).read_text(encoding="utf-8"))


def test_every_recipe_has_both_stages():
    stages = {name.rpartition("-stage")[::2] for name in names() if not name.startswith("locus-")}
    assert stages == {(kind, stage) for kind, _ in stages for stage in "12"}
    assert {kind for kind, _ in stages} == {
        *("paper-8x80gb", "paper-8x80gb-memory-safe", "lora-1x80gb", "lora-1x24gb", "cpu"),
        *("lora-qwen3-vl-4b-1x80gb", "full-qwen3-vl-4b-1x141gb"),
        *("lora-qwen3.5-4b-1x80gb", "full-qwen3.5-4b-1x141gb"),
    }


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_valid_and_says_its_stage(name):
    recipe = load_recipe(name)
    recipe.check(recipe.launch.num_processes or 1)
    if recipe.stage.method == "locus":
        assert name.startswith("locus-")
        return
    assert name.endswith(f"-stage{recipe.stage.stage}")
    assert (recipe.stage.grounding_weight > 0) == (recipe.stage.stage == 2)


@pytest.mark.parametrize(
    "kind", sorted({name.partition("-stage")[0] for name in names() if not name.startswith("locus-")})
)
def test_the_stages_of_a_kind_differ_only_where_the_paper_or_the_stage_says_so(kind):
    first, second = content(f"{kind}-stage1"), content(f"{kind}-stage2")
    differing = {name for name in first | second if first.get(name) != second.get(name)}
    grounding = {"grounding_weight", "overlap_threshold", "iou_weight", "reduce"}
    assert differing <= {"stage", "steps", "learning_rate"} | grounding


TABLE_12 = {
    "num_generations": 16,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 32,
    "generation_batch_size": 4096,
    "num_iterations": 1,
    "max_steps": 640,
    "max_completion_length": 20480,
    "max_tool_calling_iterations": 4,
    "temperature": 1.0,
    "beta": 0.0,
    "entropy_coef": 0.0,
    "learning_rate": 1e-6,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "epsilon": 0.2,
    "delta": 3.0,
    "loss_type": "bnpo",
    "scale_rewards": "group",
    "mask_truncated_completions": False,
    "reward_weights": [0.8, 0.2, 1.2],
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_importance_sampling_correction": False,
}


def config_of(name, tmp_path, monkeypatch, processes=1, cpu=False):
    """The values handed to TRL; on one process TRL itself would refuse those for eight."""
    seen = {}
    if processes > 1:
        monkeypatch.setattr("trl.GRPOConfig.__post_init__", lambda self: seen.update(vars(self)))
    config = load_recipe(name).grpo_config(
        tmp_path, never_sampled={"barred": [7]}, processes=processes, cpu=cpu
    )
    return seen or vars(config)


def test_the_paper_recipe_is_table_12(tmp_path, monkeypatch):
    config = config_of("paper-8x80gb-stage1", tmp_path, monkeypatch, processes=8)
    assert {name: config[name] for name in TABLE_12} == TABLE_12
    assert config["lr_scheduler_type"] == "constant"
    assert config["generation_kwargs"] == {"max_tokens": 2048, "barred": [7]}
    second = config_of("paper-8x80gb-stage2", tmp_path, monkeypatch, processes=8)
    assert (second["learning_rate"], second["reward_weights"]) == (5e-7, [0.8, 0.2, 1.2, 1.0])


def test_the_memory_safe_twin_makes_the_same_updates_from_fresh_rollouts(tmp_path, monkeypatch):
    paper = config_of("paper-8x80gb-stage1", tmp_path, monkeypatch, processes=8)
    twin = config_of("paper-8x80gb-memory-safe-stage1", tmp_path, monkeypatch, processes=8)
    differing = {name for name in TABLE_12 if paper[name] != twin[name]}
    assert differing == {"generation_batch_size"}
    # What TRL calls steps_per_generation=32.
    assert twin["generation_batch_size"] == 512 == 32 * 2 * 8


def test_a_recipe_fits_any_number_of_processes_that_divides(tmp_path, monkeypatch):
    recipe = load_recipe("paper-8x80gb-stage1")
    monkeypatch.setattr("trl.GRPOConfig.__post_init__", vars)
    for processes, accumulation in ((1, 256), (4, 64), (16, 16)):
        config = recipe.grpo_config(tmp_path, never_sampled={}, processes=processes)
        assert config.gradient_accumulation_steps == accumulation


def test_the_defaults_of_the_stage_are_those_of_the_paper_recipe():
    assert load_recipe("paper-8x80gb-stage1").stage == StageSettings()


def test_trl_accepts_the_cpu_recipe_and_its_traps_are_closed(tmp_path, monkeypatch):
    config = config_of("cpu-stage2", tmp_path, monkeypatch, cpu=True)
    off = ("mask_truncated_completions", "log_completions", "remove_unused_columns", "bf16")
    assert [config[name] for name in (*off, "gradient_checkpointing")] == [False] * 5
    assert config["generation_kwargs"] == {"max_new_tokens": 256, "barred": [7]}


def test_the_terms_and_their_weights():
    stage = load_recipe("paper-8x80gb-stage2").stage
    terms, weights = stage.rewards(CROPS)
    assert [term.__name__ for term in terms] == ["accuracy", "format", "tool_bonus", "grounding"]
    assert weights == [0.8, 0.2, 1.2, 1.0]
    assert stage.grounding_settings() == GroundingSettings(reduce="best")


# --- file, options, changes --------------------------------------------------------------------------


def test_an_option_overrides_the_file_and_the_file_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("stage: 1\nsteps: 7\nlearning_rate: 1e-5\noverlap_threshold: null\nnum_generations: 4\n")
    options = ["--config", str(path), "--steps", "9", "--num-generations", "6", "--reduce", "last"]
    recipe = recipe_of(parse(RecipeParser(), options))
    assert recipe.stage == StageSettings(steps=9, overlap_threshold=None, reduce="last")
    assert recipe.trainer == {"learning_rate": 1e-5, "num_generations": 6}
    assert recipe.launch == LaunchSettings()
    assert recipe.option("beta") == 0.0


@pytest.mark.parametrize(
    ("setting", "value", "ours"), [("gradient_checkpointing", True, False), ("disable_tqdm", False, True)]
)
def test_a_setting_counts_also_where_it_is_trls_default_and_not_ours(setting, value, ours, tmp_path):
    """Checkpointing was left out on a CPU although a recipe asked for it."""
    names = {"gradient_checkpointing": next(iter(tiny.NO_CHECKPOINTING))}
    for changes, expected in (({setting: value}, value), ({}, ours), ({setting: not value}, not value)):
        config = load_recipe("cpu-stage1", **changes).grpo_config(tmp_path, never_sampled={}, cpu=True)
        assert getattr(config, names.get(setting, setting)) is expected


def test_none_is_a_value_of_options_that_may_be_without_one():
    options = ["--overlap_threshold", "none", "--threads", "none", "--accelerate_config", "none"]
    recipe = recipe_of(parse(RecipeParser(), options))
    assert (recipe.stage.overlap_threshold, recipe.stage.threads) == (None, None)
    assert recipe.launch.accelerate_config is None


def test_changes_in_python_override_the_file():
    recipe = load_recipe("lora-1x24gb-stage1", learning_rate=2e-6, use_vllm=False)
    assert recipe.option("learning_rate") == 2e-6
    assert recipe.option("use_vllm") is False
    assert recipe.option("lora_r") == 32


def test_flat_is_a_recipe_again():
    for name in names():
        recipe = load_recipe(name)
        again = load_recipe(None, **recipe.flat())
        assert dataclasses.replace(again, launch=recipe.launch) == recipe


# --- refusals ----------------------------------------------------------------------------------------

BAD = [
    ({"lerning_rate": 1}, "unknown setting lerning_rate, did you mean learning_rate"),
    ({"frobnicate": 1}, "unknown setting frobnicate$"),
    ({"steps": "many"}, "steps must be int, got 'many'"),
    ({"steps": 2.5}, "steps must be int, got 2.5"),
    ({"steps": True}, "steps must be int, got True"),
    ({"use_vllm": 3}, "use_vllm must be true or false, got 3"),
    ({"reduce": "worst"}, "reduce must be one of best, last, first, mean, got 'worst'"),
    ({"stage": 3}, "stage must be 1 or 2, got 3"),
    ({"stage": 2}, "stage 2 needs a grounding_weight"),
    ({"prompts_per_step": 33}, r"prompts_per_step \(33\) must be a multiple of prompts_per_update \(32\)"),
    ({"crop_tokens": 0}, "crop_tokens must be at least 1, got 0"),
    ({"mask_endings": ["late"]}, "mask_endings must be some of finished, .*over_turn, got 'late'"),
    ({"trajectory_every": 0}, "trajectory_every must be at least 1, got 0"),
    ({"trajectory_groups": -1}, "trajectory_groups must be at least 0, got -1"),
    ({"threads": 0}, "threads must be at least 1, got 0"),
    (
        {"trajectory_tokens": 1024},
        r"trajectory_tokens \(1024\) must leave room for a crop of crop_tokens \(1024\)",
    ),
    ({"iou_weight": 2.0}, r"iou_weight must lie in \[0, 1\], got 2.0"),
    ({"overlap_threshold": 1.0}, "overlap_threshold must be at least 0 and below 1, or none, got 1.0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_wrong_setting_is_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        load_recipe(None, **changes)


LATER = [
    ({"num_generations": 1}, "num_generations must be at least 2, got 1"),
    ({"temperature": 0.0}, "temperature must be positive, got 0"),
    ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
    (
        {"per_device_train_batch_size": 3},
        r"prompts_per_update times num_generations \(512\) must be a multiple .*\(3 x 1\)",
    ),
    ({"use_vllm": True, "use_cpu": True}, "use_vllm without a GPU .* learning_rate 0, got"),
]


@pytest.mark.parametrize(("changes", "message"), LATER)
def test_settings_that_do_not_fit_together_are_refused(changes, message):
    recipe = load_recipe(None, **{"num_generations": 16, "per_device_train_batch_size": 2} | changes)
    with pytest.raises(UserError, match=message):
        recipe.check()


OF_THE_HUB = [
    "kernels-community/flash-attn2",
    "paged|kernels-community/flash-attn2@v1:forward",
    {"text_config": "kernels-community/flash-attn2"},
]


@pytest.mark.parametrize("attention", OF_THE_HUB, ids=str)
def test_a_kernel_of_the_hub_is_refused_by_name_before_anything_is_read(tmp_path, capsys, attention):
    with pytest.raises(UserError, match=r"^attn_implementation must be built into transformers"):
        load_recipe("cpu-stage1", attn_implementation=attention).check()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content("cpu-stage1") | {"attn_implementation": attention}))
    words = ["--config", str(recipe), "--model", "nowhere", "--data", "nowhere.jsonl", "--output", "run"]
    assert cli.main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lfpc: error: attn_implementation must be built into transformers")


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_attention_2", "paged|sdpa", None])
def test_an_attention_of_transformers_is_let_in(attention):
    load_recipe("cpu-stage1", attn_implementation=attention).check()


NO_SETTINGS = [  # what the file holds, None for no file; what is said
    (None, "must be settings or a JSON file with settings, {path}: no such file"),
    ("[1]", "must hold a JSON object, {path}: got a list"),
    (
        "zero_stage: 3",
        "must hold a JSON object, {path}: not readable (Expecting value: line 1 column 1 (char 0))",
    ),
    ("[" * 100_000, "must hold a JSON object, {path}: not readable (nested more than 64 deep)"),
    (
        "\udcff",
        "must hold a JSON object, {path}: not readable ('utf-8' codec can't decode byte 0xff in position 0: ",
    ),
]


@pytest.mark.parametrize("name", ["deepspeed", "fsdp_config", "accelerator_config"])
@pytest.mark.parametrize(
    ("held", "message"), NO_SETTINGS, ids=["no file", "a list", "YAML", "deep", "no text"]
)
def test_a_file_of_settings_that_is_none_is_one_line(tmp_path, name, held, message):
    path = tmp_path / "zero.json"
    if held is not None:
        path.write_bytes(held.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        load_recipe("cpu-stage1", **{name: str(path)}).check()
    assert str(caught.value).startswith(f"{name} {message.format(path=path)}")
    assert "\n" not in str(caught.value)


def test_settings_in_the_recipe_or_in_a_file_are_let_in(tmp_path):
    path = tmp_path / "zero.json"
    path.write_text('{"zero_optimization": {"stage": 3}}')
    for value in (str(path), path.read_text(), {"zero_optimization": {"stage": 3}}, None):
        load_recipe("cpu-stage1", deepspeed=value).check()
    with pytest.raises(UserError, match=r"^deepspeed must hold a JSON object, settings: not readable"):
        load_recipe("cpu-stage1", deepspeed="{stage: 3}").check()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_follows_from_other_settings_cannot_be_set(name):
    with pytest.raises(UserError, match=f"{name} cannot be set: "):
        load_recipe(None, **{name: 1})


def test_what_cannot_be_set_are_options_of_trl():
    from trl import GRPOConfig, ModelConfig

    known = GRPOConfig.__dataclass_fields__ | ModelConfig.__dataclass_fields__
    # The names of the newest transformers are not those of the oldest that we support.
    assert {name for name in REFUSED if name not in known} <= {
        *("activation_checkpointing", "activation_checkpointing_kwargs", "use_transformers_paged")
    }


def test_a_setting_that_trl_refuses_is_told_in_its_words(tmp_path):
    recipe = load_recipe("cpu-stage1", vllm_importance_sampling_mode="token_truncate")
    recipe = dataclasses.replace(recipe, trainer=recipe.trainer | {"vllm_importance_sampling_clip_max": None})
    with pytest.raises(UserError, match="vllm_importance_sampling_clip"):
        recipe.grpo_config(tmp_path, never_sampled={}, cpu=True)


@pytest.mark.parametrize("env", ["{LFPC_TEST_SET: 1}", "3", "null"])
def test_a_recipe_that_sets_environment_variables_is_refused_and_sets_none(tmp_path, monkeypatch, env):
    monkeypatch.delenv("LFPC_TEST_SET", raising=False)
    path = tmp_path / "odd.yaml"
    path.write_text(f"env: {env}\nstage: 1\n")
    with pytest.raises(UserError, match=r"odd\.yaml: a recipe must not hold env; set environment variables"):
        load_recipe(path)
    assert "LFPC_TEST_SET" not in os.environ


def test_a_file_of_options_beside_the_program_is_not_read(tmp_path, monkeypatch):
    """transformers looks for one of the program's name."""
    (tmp_path / "lfpc.args").write_text("--steps 3")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "lfpc")])
    assert load_recipe("cpu-stage1").stage.steps == content("cpu-stage1")["steps"]


@pytest.mark.parametrize("text", ["- a list", "steps: [", "3: 4", "", "[" * 2000], ids=range(5))
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="the recipe cannot be read"):
        load_recipe(path)


def test_a_recipe_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(
        UserError, match="unknown recipe 'paper'; choose from cpu-stage1, cpu-stage2, full-qwen3-vl-4b"
    ):
        load_recipe("paper")
