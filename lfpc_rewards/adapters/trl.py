"""A reward as a TRL reward function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lfpc_rewards.adapters.binding import Binding, CropsOf, Reward, or_none


class TrlReward:
    """A reward that `GRPOTrainer(reward_funcs=[...])` takes.

    TRL calls it with `prompts`, `completions`, `completion_ids` and every column of the data set but
    `prompt` and `completion`. It pickles if the reward does. TRL logs it as ``rewards/NAME/mean``, its other
    parts as ``NAME/PART``.

    A reward with an argument `groups` compares the rollouts of one prompt: TRL calls it with the rollouts
    of one process, so the rollouts of a process must be whole groups.

    Args:
        reward: A reward of this package.
        name: What TRL calls it; the reward's own name if None.
        columns: Argument of the reward: column that it comes from. Other arguments come from the column of
            their own name, such as `completions`; those with a default only if they have one entry per
            rollout and the column exists. To set one yourself, use `options`.
        options: Argument of the reward: one value for all rows.
        crops: How crops are read from the completions, for rewards with an argument `crops`.
        term: Which part is the reward, if it has parts.
        reading: Keywords of `parse_completions`, such as ``{"tool": "zoom", "think_open": True}``.

    Raises:
        TypeError: The reward has no such argument, or cannot be read so.

    Source:
        The calling convention of TRL 1.16.

    Example:
        >>> from lfpc_rewards import lfpc_reward
        >>> reward = TrlReward(lfpc_reward, columns={"answers": "solution"}, options={"tool_weight": 0.0})
        >>> said = [[{"role": "assistant", "content": "<think>so</think><answer>B</answer>"}]]
        >>> reward(prompts=["?"], completions=said, completion_ids=[[1]], solution=["B"])
        [0.8]
    """

    def __init__(
        self,
        reward: Reward,
        *,
        name: str | None = None,
        columns: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        crops: CropsOf | None = None,
        term: str = "total",
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        self.binding = Binding(reward, columns or {}, options or {}, crops, term, reading or {})
        self.__name__ = name or getattr(reward, "__name__", type(reward).__name__)

    def __call__(
        self, *, log_metric: Callable[[str, float], None] | None = None, **columns: Any
    ) -> list[float | None]:
        """One score per completion, None where the reward does not apply."""
        parts = self.binding.score(columns)
        scores = parts.pop("score")
        if log_metric is not None:
            # One value per rollout: TRL averages those of all processes, and one NaN would spoil the mean.
            for part, values in parts.items():
                for value in values:
                    if part != self.binding.term and not math.isnan(value):
                        log_metric(f"{self.__name__}/{part}", value)
        return or_none(scores)
