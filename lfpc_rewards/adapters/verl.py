"""A reward as verl's custom reward function.

verl loads a function by file and name (``reward.custom_reward_function.path`` and ``.name``). All its reward
managers (``reward.reward_manager.name``: naive, dapo, gdpo, remote) call it with one rollout, in a worker
thread or process. They pass decoded text without special tokens, all turns and tool answers in one. It is
read as the messages would be, with one exception: a text cannot prove that a tool delivered a picture, so the
tool bonus of `lfpc_reward` is 0 unless `reading` has a `picture_mark`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lfpc_rewards.adapters.binding import Binding, CropsOf, Reward

Score = float | dict[str, float]
"""What verl takes: a number, or "score" with further numbers that it logs."""


class _Sample(NamedTuple):
    """One call of verl."""

    data_source: str
    text: str
    ground_truth: Any
    extra_info: Mapping[str, Any]


class VerlScore:
    """A reward as verl's `compute_score`, called with one rollout.

    Arguments of the reward come from the columns `completions` (verl's `solution_str`), `ground_truth`,
    `data_source` and the keys of `extra_info`.

    Args:
        reward: A reward of this package.
        columns: Argument of the reward: column that it comes from. Other arguments come from the column of
            their own name, such as `completions`; those with a default only if they have one entry per
            rollout and the column exists. To set one yourself, use `options`.
        options: Argument of the reward: one value for all rows.
        crops: How crops are read from the completions, for rewards with an argument `crops`.
        term: Which part is the reward, if it has parts.
        reading: Keywords of `parse_completions`, such as ``{"tool": "zoom", "think_open": True}``.
        not_applicable: The score where the reward does not apply or a judge failed. verl has no score for
            that, so None raises.

    Raises:
        TypeError: The reward has no such argument, cannot be read so, or compares the rollouts of a group:
            that needs `verl_group_score`.

    Source:
        The calling convention of the reward managers in `verl.experimental.reward_loop` of verl 0.9.1.

    Example:
        >>> from lfpc_rewards import lfpc_reward
        >>> compute_score = VerlScore(lfpc_reward, columns={"answers": "ground_truth"})
        >>> compute_score("mine", "<think>so</think><answer>B</answer>", "B")
        0.8
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
        self._refuse_groups(self.binding.arguments())

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
        self._refuse_groups(self.binding.arguments(extra_info or {}))
        rollout = _Sample(data_source, solution_str, ground_truth, extra_info or {})
        return _scores(self.binding, [rollout], self.not_applicable)[0]

    @staticmethod
    def _refuse_groups(arguments: Mapping[str, str]) -> None:
        if "groups" in arguments:
            raise TypeError("groups compares rollouts and verl gives one at a time: use verl_group_score")


def verl_group_score(
    reward: Reward,
    *,
    size: int | Mapping[str, int],
    patience: float = 3600.0,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    crops: CropsOf | None = None,
    term: str = "total",
    reading: Mapping[str, Any] | None = None,
    not_applicable: float | None = None,
) -> Callable[..., Awaitable[Score]]:
    """A reward that compares the rollouts of a prompt, as verl's `compute_score`.

    verl passes one rollout at a time. The function that this returns waits until the group is complete,
    and scores it at once. All rollouts must therefore come to one process: ``reward.num_workers=1``, with the
    manager naive, dapo or gdpo ("remote" takes no function that waits). The column of the argument `groups`
    says which rollouts belong together, such as the `index` of verl's data sets; those of two data sources or
    splits never do.

    Args:
        reward: A reward of this package with an argument `groups`.
        size: Rollouts of a group: ``actor_rollout_ref.rollout.n``. As a dictionary, by the value of
            ``extra_info["split"]``: a validation has groups of another size (``{"train": 8, "test": 1}``).
        patience: Seconds that a rollout waits for the others of its group. Our choice: an hour, which is
            longer than a step should take to generate.
        columns: As in `VerlScore`.
        options: As in `VerlScore`.
        crops: As in `VerlScore`.
        term: As in `VerlScore`.
        reading: As in `VerlScore`.
        not_applicable: As in `VerlScore`.

    Returns:
        A coroutine function, which verl calls with one rollout. It raises TimeoutError where a group stays
        incomplete.

    Raises:
        TypeError: The reward has no such argument, cannot be read so, or compares no rollouts.
        ValueError: A size is not positive.

    Source:
        The calling convention of the reward managers in `verl.experimental.reward_loop` of verl 0.9.1.

    Example:
        >>> from lfpc_rewards import presets
        >>> compute_score = verl_group_score(
        ...     presets.pixel_reasoner, size=2, columns={"answers": "ground_truth", "groups": "index"},
        ...     options={"mode": "strict"},
        ... )
        >>> async def group(*texts):
        ...     calls = [compute_score("mine", text, "B", {"index": 7}) for text in texts]
        ...     return await asyncio.gather(*calls)
        >>> scores = asyncio.run(group("<think>so</think><answer>B</answer>", "B"))
        >>> [score["score"] for score in scores]
        [1.0, 0.0]
    """
    binding = Binding(reward, columns or {}, options or {}, crops, term, reading or {})
    if "groups" not in binding.arguments():
        raise TypeError("groups is bound to no column, so no rollouts are compared: use VerlScore")
    column = binding.arguments()["groups"]
    for number in size.values() if isinstance(size, Mapping) else [size]:
        if number < 1:
            raise ValueError(f"size must be at least 1, got {number}")
    waiting: dict[tuple[str, Any, Any], list[tuple[_Sample, asyncio.Future[Score]]]] = {}

    async def compute_score(
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Score:
        """The score of this rollout, once its group is complete."""
        info = dict(extra_info or {})  # a copy: verl changes a dictionary that rollouts may share
        needed = size[_known(info, "split")] if isinstance(size, Mapping) else size
        key = data_source, info.get("split"), _known(info, column)
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Score] = loop.create_future()
        group = waiting.setdefault(key, [])
        group.append((_Sample(data_source, solution_str, ground_truth, info), mine))
        if len(group) == needed:
            del waiting[key]
            rollouts, futures = [rollout for rollout, _ in group], [future for _, future in group]
            try:
                scores = await loop.run_in_executor(None, _scores, binding, rollouts, not_applicable)
            except Exception as error:  # every rollout of the group fails
                for future in futures:
                    future.set_exception(error)
            else:
                for future, score in zip(futures, scores, strict=True):
                    future.set_result(score)
        try:
            return await asyncio.wait_for(mine, patience)
        except TimeoutError:
            waiting.pop(key, None)
            raise TimeoutError(
                f"only {len(group)} of the {needed} rollouts of group {key[2]!r} came within {patience:g} s; "
                "all must come to one process (reward.num_workers=1), and size must be that of the groups"
            ) from None

    return compute_score


def _known(info: Mapping[str, Any], name: str) -> Any:
    if name not in info:
        raise KeyError(f"extra_info has no {name!r}; it has {', '.join(info)}")
    return info[name]


def _scores(binding: Binding, rollouts: Sequence[_Sample], not_applicable: float | None) -> list[Score]:
    """One number per rollout, or one dictionary if the reward has parts."""
    infos = [rollout.extra_info for rollout in rollouts]
    columns: dict[str, Sequence[Any]] = {
        name: [info[name] for info in infos] for name in infos[0] if all(name in info for info in infos)
    }
    columns["completions"] = [rollout.text for rollout in rollouts]
    columns["ground_truth"] = [rollout.ground_truth for rollout in rollouts]
    columns["data_source"] = [rollout.data_source for rollout in rollouts]
    parts = binding.score(columns)
    for row, score in enumerate(parts["score"]):
        if math.isnan(score):
            if not_applicable is None:
                raise ValueError(
                    f"the reward does not apply to rollout {row} or its judge failed, and verl has no score "
                    "for that; give not_applicable a number"
                )
            parts["score"][row] = not_applicable
    if len(parts) == 1:
        return list(parts["score"])
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
