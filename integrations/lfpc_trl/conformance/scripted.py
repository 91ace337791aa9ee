"""Rollouts with scripted turns, since random weights never call a tool."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, TrainingArguments
from trl import GRPOConfig

from lfpc_trl.data.rows import Row
from lfpc_trl.models.engines import Picture, Prompt, TransformersEngine
from lfpc_trl.models.processors import never_sampled
from lfpc_trl.rollouts.crop_tool import CropSettings, environment_factory
from lfpc_trl.rollouts.prompts import build_prompt
from lfpc_trl.rollouts.rewards import AccuracyReward, FormatReward, ToolBonus
from lfpc_trl.train.run import ResumableTrainer


class ScriptedEngine:
    """Returns a scripted first turn and records its prompts; the model generates the later turns.

    Args:
        model: generates the later turns.
        processor: the model's processor.
        first: the tokens of each first turn.
    """

    def __init__(self, model: Any, processor: Any, first: list[int]) -> None:
        self._engine, self._first = TransformersEngine(model, processor), first
        self.processor, self.context = processor, self._engine.context
        self.prompts: list[list[int]] = []

    def picture(self, image: Image.Image) -> Picture:
        """Preprocess a picture for the engine of the later turns."""
        return self._engine.picture(image)

    def generate(
        self, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float
    ) -> list[list[int]]:
        """Return the scripted turn for prompts with one picture, and generate one for those with more."""
        self.prompts += [list(prompt.ids) for prompt in prompts]
        if all(len(prompt.pictures) == 1 for prompt in prompts):
            return [list(self._first) for _ in prompts]
        return self._engine.generate(prompts, max_new_tokens=max_new_tokens, temperature=temperature)


class ScriptedTrainer(ResumableTrainer):
    """Plays `script`: for each rollout of a round, the tokens of its turns."""

    script: list[list[list[int]]]
    _played: list[int]

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        """The next scripted turn of each rollout that has one; a call for all rollouts starts the script."""
        if len(prompt_ids) == len(self.script):
            self._played = [0] * len(self.script)
        unfinished = [index for index, turns in enumerate(self.script) if self._played[index] < len(turns)]
        turns = []
        for index in unfinished[: len(prompt_ids)]:
            turns.append(list(self.script[index][self._played[index]]))
            self._played[index] += 1
        return turns, None


def scripted_trainer(
    model: Any, processor: Any, row: Row, crops: CropSettings, script: list[list[list[int]]], output: Path
) -> ScriptedTrainer:
    """A trainer for one prompt, with one rollout per entry of the script, on the CPU in float32.

    It uses plain SGD: the check is only whether weights change, and AdamW would need twice the memory.
    """
    options = TrainingArguments.__dataclass_fields__
    # transformers up to 5.22 named it gradient_checkpointing.
    saving = next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in options)
    trainer = ScriptedTrainer(
        model=model,
        reward_funcs=[AccuracyReward(), FormatReward(), ToolBonus()],
        args=GRPOConfig(
            **{saving: False},
            output_dir=str(output),
            num_generations=len(script),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=len(script),
            max_steps=2,
            max_completion_length=4096,
            max_tool_calling_iterations=1,
            generation_kwargs=never_sampled(processor, use_vllm=False),
            reward_weights=[1.0, 1.0, 1.0],
            learning_rate=0.1,
            lr_scheduler_type="constant",
            optim="sgd",
            loss_type="bnpo",
            beta=0.0,
            bf16=False,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            logging_steps=1,
            save_strategy="steps",
            save_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"number": [0]}).with_transform(
            lambda batch: {
                "prompt": [build_prompt(crops.frame) for _ in batch["number"]],
                "row": [row for _ in batch["number"]],
            }
        ),
        processing_class=processor,
        crops=crops,
        environment_factory=environment_factory(crops),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.script = script
    return trainer
