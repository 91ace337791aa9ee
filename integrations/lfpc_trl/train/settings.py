"""Settings that a stage of LFPC adds to GRPO: rollouts, rewards, size of a step.

Optimizer settings are TRL's, under TRL's names; a recipe (`lfpc_trl.train.recipe`) holds both. "Table 12" and
"section 5.1" refer to the paper (arXiv 2603.27494); "our choice" marks values that no source states.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from lfpc_rewards import Frame, Reduce
from lfpc_rewards.rewards import IOU_WEIGHT, OVERLAP_THRESHOLD, check_grounding
from lfpc_trl.errors import UserError, not_some_of
from lfpc_trl.locus.task import CueFormat, CueReward
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.judge import CONCURRENCY, Judge
from lfpc_trl.rollouts.own_rewards import NamedReward, make_reward, read_entry
from lfpc_trl.rollouts.rewards import AccuracyReward, FormatReward, GroundingReward, ToolBonus
from lfpc_trl.rollouts.transcript import ENDINGS, GroundingSettings


def _option(default: Any, text: str) -> Any:
    """A field with its line in `lfpc train --help`."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class StageSettings:
    """The settings of one stage. The defaults are those of stage 1.

    A step is one round of rollouts for `prompts_per_step` rows and the updates made from them.
    """

    method: Literal["lfpc", "locus"] = _option(
        "lfpc", "lfpc crops with a tool, locus finds a cue in one turn"
    )
    # TRL's parser does not accept `Literal[1, 2]`.
    stage: int = _option(1, "1 learns to focus, 2 to crop precisely")

    # Limits of a rollout.
    max_turns: int = _option(5, "turns of the model, the answer included")  # Table 12
    max_crops: int = _option(4, "delivered crops; a further call is refused")  # Table 12: one per turn
    crop_tokens: int = _option(1024, "visual tokens above which a crop is shrunk")  # our choice
    min_side: int = _option(8, "shortest side of a crop in pixels of the original")  # our choice
    response_tokens: int = _option(2048, "limit on one turn")  # Table 12
    trajectory_tokens: int = _option(20480, "limit on all turns and crops of a rollout")  # DeepEyes
    frame: Literal["family", "shown", "relative_1000"] = _option(
        "family", "frame of the model's boxes; stating it guards against a model of another family"
    )

    # Rewards.
    accuracy_weight: float = _option(0.8, "of a right answer")  # Table 12
    format_weight: float = _option(0.2, "of the format term, which is 0 or -1")  # Table 12
    tool_weight: float = _option(1.2, "of a right answer after a delivered crop")  # Table 12
    grounding_weight: float = _option(0.0, "of the grounding reward; above 0 rows need targets")  # our choice
    overlap_threshold: float | None = _option(
        OVERLAP_THRESHOLD, "tau: the IoU part counts above this overlap; none drops the condition"
    )  # Table 12
    iou_weight: float = _option(
        IOU_WEIGHT, "omega: share of the IoU part, the rest is the distance"
    )  # our choice
    reduce: Reduce = _option("best", "which crop counts")  # noqa: RUF009 - our choice; a Literal

    reward: list[str] = field(
        default_factory=list,
        metadata={"help": "further rewards, such as my_module:my_reward=0.5 presets:deepeyes=1.0"},
    )
    judge: str | None = _option(None, "module:function that judges answers that the rules leave open")
    judge_concurrency: int = _option(CONCURRENCY, "cases that the judge gets at a time")  # our choice

    # Loss mask, logged rollouts, alerts.
    mask_endings: list[str] = field(
        default_factory=list,
        metadata={"help": f"endings that get no loss, of {', '.join(ENDINGS)}"},
    )  # our choice
    trajectory_groups: int = _option(
        2, "groups of rollouts saved per logged step; 0 saves none"
    )  # our choice
    trajectory_every: int = _option(1, "steps from one logged step to the next")  # our choice
    tool_use_alert: bool = _option(True, "alert when the model stops using its tool")

    # Amounts.
    steps: int = _option(80, "rounds of rollouts")  # section 5.1
    prompts_per_step: int = _option(256, "rows per step")  # Table 12: train batch
    prompts_per_update: int = _option(32, "rows per optimiser update")  # Table 12: PPO mini batch, in prompts
    share_prompts: bool = _option(True, "compute the prompt of a group once, not once per rollout")
    save_every: int = _option(10, "steps between checkpoints")  # our choice
    threads: int | None = _option(None, "torch threads; 1 makes a run on a CPU bitwise reproducible")

    def crop_settings(self, frame: Frame, factor: int, *, seed: int = 0) -> CropSettings:
        """How crops are cut for a model with this frame and token side."""
        return CropSettings(
            frame=frame,
            factor=factor,
            crop_tokens=self.crop_tokens,
            max_crops=self.max_crops,
            min_side=self.min_side,
            seed=seed,
        )

    def grounding_settings(self) -> GroundingSettings:
        """How crops are compared with targets, for the reward and for the logs."""
        return GroundingSettings(self.overlap_threshold, self.iou_weight, self.reduce)

    def named_rewards(self) -> list[NamedReward]:
        """Parse the entries of `reward`.

        Raises:
            UserError: an entry cannot be parsed, or two have the same name.
        """
        if not isinstance(self.reward, list):
            raise UserError(f"reward must be a list, got {self.reward!r}")
        entries = [read_entry(text) for text in self.reward]
        taken = {"accuracy", "format", "tool_bonus", "grounding"}
        for entry in entries:
            if entry.short in taken:
                raise UserError(f"reward {entry.name}: another term is called {entry.short}, rename it")
            taken.add(entry.short)
        return entries

    def code(self) -> list[str]:
        """Names of the user's code in these settings."""
        judge = [] if self.judge is None else [self.judge]
        return [entry.name for entry in self.named_rewards() if entry.is_code] + judge

    def rewards(self, crops: CropSettings, judge: Judge | None = None) -> tuple[list[Any], list[float]]:
        """The reward terms and their weights.

        Args:
            crops: how crops are cut.
            judge: for published rewards that use one.

        Raises:
            UserError: unknown reward.
        """
        if self.method == "locus":
            cue: list[Any] = [CueReward(crops.frame), CueFormat(crops.frame)]
            return cue, [self.grounding_weight, self.format_weight]
        terms: list[Any] = [AccuracyReward(), FormatReward(), ToolBonus()]
        weights = [self.accuracy_weight, self.format_weight, self.tool_weight]
        if self.grounding_weight:
            terms.append(GroundingReward())
            weights.append(self.grounding_weight)
        for entry in self.named_rewards():
            terms.append(make_reward(entry, crops.frame, judge))
            weights.append(entry.weight)
        return terms, weights

    def updates_per_step(self) -> int:
        """Optimiser updates made from one round of rollouts."""
        return self.prompts_per_step // self.prompts_per_update

    def check(self) -> None:
        """Check the settings.

        Raises:
            UserError: naming the setting, its value and the rule.
        """
        if self.stage not in (1, 2):
            raise UserError(f"stage must be 1 or 2, got {self.stage}")
        positive = (
            "steps",
            "prompts_per_step",
            "prompts_per_update",
            "save_every",
            "max_turns",
            "min_side",
            "trajectory_every",
            "judge_concurrency",
        )
        for name in (*positive, "crop_tokens", "response_tokens", "trajectory_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_crops", "trajectory_groups"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must be at least 0, got {getattr(self, name)}")
        self.named_rewards()
        if set(self.mask_endings) - set(ENDINGS):
            raise UserError(not_some_of("mask_endings", self.mask_endings, ENDINGS))
        if self.threads is not None and self.threads < 1:
            raise UserError(f"threads must be at least 1, got {self.threads}")
        if self.prompts_per_step % self.prompts_per_update:
            raise UserError(
                f"prompts_per_step ({self.prompts_per_step}) must be a multiple of prompts_per_update "
                f"({self.prompts_per_update})"
            )
        if self.max_crops and self.trajectory_tokens <= self.crop_tokens:
            raise UserError(
                f"trajectory_tokens ({self.trajectory_tokens}) must leave room for a crop of crop_tokens "
                f"({self.crop_tokens}) and an answer"
            )
        try:
            check_grounding(self.overlap_threshold, self.iou_weight)
        except ValueError as error:
            raise UserError(str(error)) from None
        if self.method == "locus":
            # LOCUS is one turn without a tool; settings that it would ignore must have these values.
            required: dict[str, Any] = {
                "stage": 1,
                "max_turns": 1,
                "max_crops": 0,
                "accuracy_weight": 0,
                "tool_weight": 0,
            }
            required |= {"mask_endings": [], "tool_use_alert": False, "reward": [], "judge": None}
            for name, value in required.items():
                if getattr(self, name) != value:
                    raise UserError(f"{name} must be {value} with method locus, got {getattr(self, name)}")
            if not self.grounding_weight:
                raise UserError("method locus needs a grounding_weight: it is the weight of the IoU")
        if self.stage == 2 and not self.grounding_weight:
            raise UserError("stage 2 needs a grounding_weight; without one it is stage 1")
