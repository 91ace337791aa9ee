"""A reward as verl's custom reward function.

verl loads a function by file and name (``custom_reward_function.path`` and ``.name``), and calls it with one
rollout, or with a batch where ``reward_manager.name`` is "batch". It hands over decoded text without special
tokens, all turns and tool answers in one. That is read as the messages would be, but for one thing: a text
does not prove that a tool delivered a picture, so the tool bonus of `lfpc_reward` is 0 unless `reading` has a
`picture_mark`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lfpc_rewards.adapters.binding import Binding, CropsOf, Reward

Score = float | dict[str, float]
"""What verl takes: a number, or "score" with further numbers that it logs."""


class VerlBatchScore:
    """A reward as verl's batch reward function.

    Arguments of the reward come from the columns `completions` (verl's `solution_strs`), `ground_truth`,
    `data_source` and the keys of `extra_info`.

    Args:
        reward: A reward of this package.
        columns: Argument of the reward: column that it comes from. Arguments without a default come from the
            column of their own name.
        options: Argument of the reward: one value for all rows.
        crops: How crops are read from the completions, for rewards with an argument `crops`.
        term: Which part is the reward, if it has parts.
        reading: Keywords of `parse_completions`, such as ``{"tool": "zoom", "think_open": True}``.
        not_applicable: The score where the reward does not apply or a judge failed. verl has no such
            thing, so None raises.

    Raises:
        TypeError: The reward has no such argument, or cannot be read so.

    Source:
        The calling convention of `BatchRewardManager` of verl 0.9.1.

    Example:
        >>> from lfpc_rewards import lfpc_reward
        >>> compute_score = VerlBatchScore(lfpc_reward, columns={"answers": "ground_truth"})
        >>> compute_score(
        ...     data_sources=["mine"], solution_strs=["<think>so</think><answer>B</answer>"],
        ...     ground_truths=["B"], extra_infos=[{}],
        ... )
        [0.8]
    """

    def __init__(
        self,
        reward: Reward,
        *,
        columns: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        crops: CropsOf | None = None,
        term: str = "total",
        reading: Mapping[str, Any] | None = None,
        not_applicable: float | None = None,
    ) -> None:
        self.binding = Binding(reward, columns or {}, options or {}, crops, term, reading or {})
        self.not_applicable = not_applicable

    def __call__(
        self,
        data_sources: Sequence[str],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **_: Any,
    ) -> list[Score]:
        """One number per rollout, or one dictionary if the reward has parts.

        Raises:
            ValueError: The reward does not apply to a rollout and `not_applicable` is None.
        """
        columns: dict[str, Sequence[Any]] = {
            "completions": solution_strs,
            "ground_truth": ground_truths,
            "data_source": data_sources,
        }
        infos = [info or {} for info in extra_infos]
        wanted = set(self.binding.arguments().values()) | {"image_sizes", "shown_sizes"}
        wanted |= set(self.binding.columns.values())
        for name in wanted - set(columns):
            if all(name in info for info in infos):
                columns[name] = [info[name] for info in infos]
        parts = self.binding.score(columns)
        parts["score"] = [self._known(score, row) for row, score in enumerate(parts["score"])]
        if len(parts) == 1:
            return list(parts["score"])
        return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]

    def _known(self, score: float, row: int) -> float:
        if not math.isnan(score):
            return score
        if self.not_applicable is None:
            raise ValueError(
                f"the reward does not apply to rollout {row} or its judge failed, and verl has no score for "
                "that; give not_applicable a number"
            )
        return self.not_applicable


class VerlScore:
    """A reward as verl's `compute_score`, called with one rollout.

    The arguments are those of `VerlBatchScore`.

    Raises:
        TypeError: The reward has no such argument, or `groups` is bound, which compares rollouts: that needs
            `VerlBatchScore`.

    Source:
        The calling convention of `NaiveRewardManager` of verl 0.9.1.

    Example:
        >>> from lfpc_rewards import lfpc_reward
        >>> compute_score = VerlScore(lfpc_reward, columns={"answers": "ground_truth"})
        >>> compute_score("mine", "<think>so</think><answer>B</answer>", "B")
        0.8
    """

    def __init__(self, reward: Reward, **arguments: Any) -> None:
        self._batch = VerlBatchScore(reward, **arguments)
        if "groups" in self._batch.binding.arguments():
            raise TypeError("groups compares rollouts and verl gives one at a time: use VerlBatchScore")

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Score:
        """The number, or a dictionary if the reward has parts.

        Raises:
            ValueError: The reward does not apply and `not_applicable` is None.
        """
        return self._batch([data_source], [solution_str], [ground_truth], [extra_info])[0]
