"""A trainer whose model's turns are written in the test; everything else is TRL's and ours."""

import re
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.models.families import family_of
from lfpc_trl.models.processors import factor, load_processor, never_sampled
from lfpc_trl.models.weights import load_model
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_factories, environment_name
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.rewards import AccuracyReward, FormatReward, ToolBonus
from lfpc_trl.train.trainer import RolloutTrainer
from tests.tiny import NO_CHECKPOINTING

WEIGHTS = [0.8, 0.2, 1.2]
CUT = "<cut>"
"""At the end of a turn: it has no end-of-turn token."""


class ScriptedTrainer(RolloutTrainer):
    """Plays `script`: for each rollout of a round its turns. Every turn carries the rollout's number."""

    script: list[list[str]]

    def _generate_single_turn(self, prompt_ids, *_, **__):
        turns = []
        for place, ids in enumerate(prompt_ids):
            said = re.findall(r"#(\d+)#", self._tokenizer.decode(ids))
            rollout = int(said[0]) if said else place
            text = f"#{rollout}#" + self.script[rollout][len(said)]
            end = [] if text.endswith(CUT) else [self._tokenizer.eos_token_id]
            turns.append(self._tokenizer(text.removesuffix(CUT))["input_ids"] + end)
        return turns, None


class Columns:
    def __init__(self, rows: list[Row], frame):
        self.rows, self.frame = rows, frame

    def __call__(self, batch):
        rows = [self.rows[number] for number in batch["number"]]
        return {
            "prompt": [build_prompt(self.frame, pictures=len(row.pictures)) for row in rows],
            "row": rows,
            "environment": [environment_name(row) for row in rows],
        }


def make_trainer(
    model_dir: Path, rows: list[Row], output: Path, script=None, *, kind=None, config=None, **options
):
    """A trainer of one prompt and four rollouts in two micro batches per step; with a script or without."""
    processor = load_processor(model_dir)
    frame = family_of(model_dir).frame or Frame.RELATIVE_1000
    crops = CropSettings(frame=frame, factor=factor(processor), crop_tokens=8)
    settings = {
        "output_dir": str(output),
        "num_generations": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 1,
        "max_completion_length": 600,
        "max_tool_calling_iterations": 2,
        "generation_kwargs": never_sampled(processor, use_vllm=False),
        "reward_weights": WEIGHTS,
        "learning_rate": 1e-3,
        "loss_type": "bnpo",
        "beta": 0.0,
        "bf16": False,
        "use_cpu": True,
        **NO_CHECKPOINTING,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    } | (config or {})
    trainer = (kind or (RolloutTrainer if script is None else ScriptedTrainer))(
        model=load_model(model_dir),
        reward_funcs=[AccuracyReward(), FormatReward(), ToolBonus()],
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_dict({"number": list(range(len(rows)))}).with_transform(
            Columns(rows, frame)
        ),
        processing_class=processor,
        crops=crops,
        environment_factory=environment_factories(crops, rows),
        **options,
    )
    trainer.script = script
    return trainer
