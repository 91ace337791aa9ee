"""The settings of the stages and what becomes of them in TRL."""

import dataclasses

import pytest

from lfpc_rewards import Frame
from lfpc_trl.crop_tool import CropSettings
from lfpc_trl.errors import UserError
from lfpc_trl.stages import STAGES, Stage1Settings, Stage2Settings

CROPS = CropSettings(frame=Frame.SHOWN, factor=28)


def test_stage_1_is_table_12():
    settings = Stage1Settings()
    terms, weights = settings.rewards(CROPS)
    assert {term.__name__: weight for term, weight in zip(terms, weights, strict=True)} == {
        "accuracy": 0.8,
        "format": 0.2,
        "tool_bonus": 1.2,
    }
    assert (settings.steps, settings.prompts_per_step, settings.num_generations) == (80, 256, 16)
    assert (settings.learning_rate, settings.max_turns, settings.beta, settings.entropy_coef) == (
        1e-6,
        5,
        0,
        0,
    )


def test_stage_2_adds_grounding():
    settings = Stage2Settings()
    terms, weights = settings.rewards(CROPS)
    assert [term.__name__ for term in terms] == ["accuracy", "format", "tool_bonus", "grounding"]
    assert weights == [0.8, 0.2, 1.2, 1.0]
    assert (settings.learning_rate, settings.overlap_threshold, settings.iou_weight) == (5e-7, 0.9, 0.5)
    assert terms[3].grounding.reduce == "best"


def test_the_arithmetic_of_table_12_on_eight_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    seen = {}
    monkeypatch.setattr("trl.GRPOConfig.__post_init__", lambda self: seen.update(vars(self)))
    Stage1Settings().grpo_config(tmp_path, suppress_tokens=[1])
    assert seen["gradient_accumulation_steps"] == 32
    assert seen["generation_batch_size"] == 4096
    assert seen["max_steps"] == 640
    assert seen["max_tool_calling_iterations"] == 4
    assert seen["generation_kwargs"] == {"max_new_tokens": 2048, "suppress_tokens": [1]}


def test_trl_accepts_the_settings_and_its_traps_are_closed(tmp_path):
    for stage in STAGES.values():
        config = stage(use_cpu=True).grpo_config(tmp_path, suppress_tokens=[1])
        assert config.mask_truncated_completions is False
        assert config.log_completions is False
        assert config.remove_unused_columns is False
        assert config.bf16 is False
        assert config.gradient_checkpointing is False
        assert config.scale_rewards == "group"
        assert config.delta == 3.0


BAD = [
    ({"prompts_per_step": 8}, r"prompts_per_step \(8\) must be a multiple of prompts_per_update \(32\)"),
    ({"micro_batch": 3}, r"prompts_per_update times num_generations \(512\) must be a multiple"),
    ({"num_generations": 1}, "num_generations must be at least 2, got 1"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"temperature": 0.0}, "temperature must be positive, got 0"),
    ({"crop_tokens": 0}, "crop_tokens must be at least 1, got 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(Stage1Settings(), **changes).check()
