"""Training on turns that were written from kept states, with the small model that the demo ships."""

import copy
from pathlib import Path

import pytest
import torch

import lfpc_trl.demo
from lfpc_trl.data.rows import read_rows, with_shown_tokens
from lfpc_trl.demo import world
from lfpc_trl.models.processors import factor, load_processor
from tests.train.scripted import make_trainer

WARM = Path(lfpc_trl.demo.__file__).parent / "warm"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def test_rollouts_are_those_of_trl_and_read_less(tmp_path):
    list(world.make_pictures(tmp_path, 2, seed=1, photos=world.TRAINING_PHOTOS, name="rows"))
    rows = read_rows(tmp_path / "rows.jsonl", require_targets=True)
    rows = with_shown_tokens(rows, 54, factor=factor(load_processor(WARM)))
    found = []
    for share_prompts in (True, False):
        trainer = make_trainer(
            WARM,
            rows,
            tmp_path / str(share_prompts),
            config={
                "temperature": 0.5,
                "max_completion_length": 300,
                "per_device_train_batch_size": 8,  # two groups; a later round draws other random numbers
            },
            share_prompts=share_prompts,
        )
        rollouts, read = [], []
        generate = trainer._generate

        def noted(prompts, generate=generate, rollouts=rollouts):
            output = generate(prompts)
            rollouts.append(copy.deepcopy(output[:3]))
            return output

        trainer._generate = noted
        layer = trainer.model.model.language_model.layers[0]
        layer.register_forward_pre_hook(
            lambda _, args, read=read: (
                None if torch.is_grad_enabled() else read.append(args[0].shape[:2].numel())
            )
        )
        trainer.train()
        found.append((rollouts, sum(read), trainer.state.log_history))
    (ours, read, log), (theirs, all_read, their_log) = found
    assert ours == theirs
    assert any(0 in mask for _, _, masks in ours for mask in masks), "no rollout asked for a crop"
    assert read < 0.4 * all_read
    for step, their_step in zip(log, their_log, strict=True):
        assert step.get("tools/call_frequency") == their_step.get("tools/call_frequency")
