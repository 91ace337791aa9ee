"""The two stages as plain settings, each value with its source.

"Table 12" is the table of training settings in the paper (arXiv 2603.27494); "our choice" marks what no
source states. Change values with `dataclasses.replace` or with the options of `lfpc train`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lfpc_rewards import Frame
from lfpc_trl.crop_tool import CropSettings
from lfpc_trl.errors import UserError
from lfpc_trl.rewards import AccuracyReward, FormatReward, GroundingReward, ToolBonus
from lfpc_trl.transcript import GroundingSettings

if TYPE_CHECKING:
    from trl import GRPOConfig


@dataclass(frozen=True)
class Stage1Settings:
    """Stage 1, learn to focus: the picture is shown coarse, crops come from the original.

    A step is one round of rollouts for `prompts_per_step` rows and the updates made from them.
    """

    stage: int = 1

    # What a rollout may do.
    max_turns: int = 5  # Table 12: at most 5 turns
    max_crops: int = 4  # one per turn before the answer (Table 12)
    crop_tokens: int = 1024  # our choice: the paper returns crops "at full resolution" and names no bound
    min_side: int = 8  # our choice: pixels of the original, below it nothing can be seen
    response_tokens: int = 2048  # Table 12: single response
    trajectory_tokens: int = 20480  # whole rollout, tool results included; DeepEyes's value
    temperature: float = 1.0  # verl's default

    # What is rewarded.
    accuracy_weight: float = 0.8  # Table 12
    format_weight: float = 0.2  # Table 12
    tool_weight: float = 1.2  # Table 12: a right answer after a delivered crop
    grounding_weight: float = 0.0  # stage 2 only
    overlap_threshold: float | None = 0.9  # tau, Table 12; None drops the condition
    iou_weight: float = 0.5  # omega, our choice
    reduce: Literal["best", "last", "first", "mean"] = "best"  # several crops in one rollout: our choice

    # How it is trained.
    steps: int = 80  # section 5.1
    prompts_per_step: int = 256  # Table 12: train batch
    num_generations: int = 16  # Table 12: rollouts per prompt
    prompts_per_update: int = 32  # Table 12: PPO mini batch, counted in prompts
    micro_batch: int = 2  # Table 12: rollouts per device and forward pass
    learning_rate: float = 1e-6  # Table 12
    weight_decay: float = 0.01  # verl's default
    max_grad_norm: float = 1.0  # verl's default
    epsilon: float = 0.2  # verl's default clip
    delta: float | None = 3.0  # verl's two-sided clip
    beta: float = 0.0  # Table 12: no KL
    entropy_coef: float = 0.0  # Table 12: no entropy bonus
    loss_type: str = "bnpo"  # mean over the tokens of a batch, as verl at the time

    # How it runs.
    save_steps: int = 10  # our choice: a checkpoint every so many steps
    save_total_limit: int = 2  # our choice: older checkpoints go
    seed: int = 0
    use_cpu: bool = False
    threads: int | None = None  # torch threads; 1 makes a run on a CPU repeatable to the last bit

    def crop_settings(self, frame: Frame, factor: int) -> CropSettings:
        """How crops are cut for a model with this frame and token side."""
        return CropSettings(
            frame=frame,
            factor=factor,
            crop_tokens=self.crop_tokens,
            max_crops=self.max_crops,
            min_side=self.min_side,
            seed=self.seed,
        )

    def grounding_settings(self) -> GroundingSettings:
        """How crops are compared with targets, for the reward and for the logs."""
        return GroundingSettings(self.overlap_threshold, self.iou_weight, self.reduce)

    def rewards(self, crops: CropSettings) -> tuple[list[Any], list[float]]:
        """The reward terms and their weights."""
        terms: list[Any] = [AccuracyReward(), FormatReward(), ToolBonus(crops, self.grounding_settings())]
        weights = [self.accuracy_weight, self.format_weight, self.tool_weight]
        if self.grounding_weight:
            terms.append(GroundingReward(crops, self.grounding_settings()))
            weights.append(self.grounding_weight)
        return terms, weights

    def updates_per_step(self) -> int:
        """Optimiser updates made from one round of rollouts."""
        return self.prompts_per_step // self.prompts_per_update

    def check(self, processes: int = 1) -> None:
        """Refuse settings that do not divide.

        Raises:
            UserError: naming the two numbers.
        """
        positive = (
            "steps",
            "prompts_per_step",
            "prompts_per_update",
            "micro_batch",
            "save_steps",
            "max_turns",
        )
        for name in (*positive, "crop_tokens", "response_tokens", "trajectory_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_generations < 2:
            raise UserError(f"num_generations must be at least 2, got {self.num_generations}")
        if self.temperature <= 0:
            raise UserError(f"temperature must be positive, got {self.temperature}")
        if self.prompts_per_step % self.prompts_per_update:
            raise UserError(
                f"prompts_per_step ({self.prompts_per_step}) must be a multiple of prompts_per_update "
                f"({self.prompts_per_update})"
            )
        rollouts = self.prompts_per_update * self.num_generations
        if rollouts % (self.micro_batch * processes):
            raise UserError(
                f"prompts_per_update times num_generations ({rollouts}) must be a multiple of "
                f"micro_batch times processes ({self.micro_batch} x {processes})"
            )

    def grpo_config(
        self, output_dir: str | Path, *, suppress_tokens: list[int], bf16: bool = False
    ) -> "GRPOConfig":
        """These settings as TRL's.

        Args:
            output_dir: where checkpoints go.
            suppress_tokens: ids that are never sampled (`models.vision_token_ids`).
            bf16: compute in bfloat16; False on a CPU.

        Raises:
            UserError: the batch sizes do not divide.
        """
        from trl import GRPOConfig  # takes seconds: not for those who only read the settings

        # transformers 5.23 renamed the option and warns about the old name.
        known = GRPOConfig.__dataclass_fields__
        checkpointing = next(n for n in ("activation_checkpointing", "gradient_checkpointing") if n in known)
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.check(processes)
        updates = self.updates_per_step()
        return GRPOConfig(
            output_dir=str(output_dir),
            num_generations=self.num_generations,
            per_device_train_batch_size=self.micro_batch,
            gradient_accumulation_steps=(
                self.prompts_per_update * self.num_generations // (self.micro_batch * processes)
            ),
            generation_batch_size=self.prompts_per_step * self.num_generations,
            num_iterations=1,
            max_steps=self.steps * updates,
            max_completion_length=self.trajectory_tokens,
            max_tool_calling_iterations=self.max_turns - 1,
            # This replaces TRL's own list, which lacks all but the image token.
            generation_kwargs={
                "max_new_tokens": min(self.response_tokens, self.trajectory_tokens),
                "suppress_tokens": suppress_tokens,
            },
            temperature=self.temperature,
            top_p=1.0,
            top_k=0,
            reward_weights=self.rewards(self.crop_settings(Frame.SHOWN, 1))[1],
            learning_rate=self.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            epsilon=self.epsilon,
            delta=self.delta,
            beta=self.beta,
            entropy_coef=self.entropy_coef,
            loss_type=self.loss_type,
            scale_rewards="group",
            # TRL 1.16 crashes on a masked completion that holds a crop.
            mask_truncated_completions=False,
            # TRL 1.16 cannot write completions with pictures to its table.
            log_completions=False,
            remove_unused_columns=False,
            bf16=bf16,
            **{checkpointing: not self.use_cpu},
            use_cpu=self.use_cpu,
            dataloader_pin_memory=not self.use_cpu,
            logging_steps=updates,
            save_strategy="steps",
            save_steps=self.save_steps * updates,
            save_total_limit=self.save_total_limit,
            report_to="none",
            disable_tqdm=True,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Stage2Settings(Stage1Settings):
    """Stage 2, learn to crop precisely: stage 1's reward plus the grounding reward; rows carry targets."""

    stage: int = 2
    grounding_weight: float = 1.0  # our choice: the paper does not say how the term joins the sum
    learning_rate: float = 5e-7  # Table 12
    steps: int = 24  # our choice: Table 11's 96 A100-hours against 320 for 80 steps


STAGES: dict[int, type[Stage1Settings]] = {1: Stage1Settings, 2: Stage2Settings}
