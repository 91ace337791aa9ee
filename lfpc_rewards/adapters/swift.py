"""A reward as an ms-swift ORM, for a file given as ``--external_plugins``.

ms-swift passes the text of the last turn, and every column of the data set. A text proves no picture,
so no crop in it was delivered: the tool terms of `lfpc_reward` are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfpc_rewards.adapters.binding import Binding, CropsOf, Reward, or_none


def swift_orm(
    base: type[Any],
    name: str,
    reward: Reward,
    *,
    columns: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    crops: CropsOf | None = None,
    term: str = "total",
    reading: Mapping[str, Any] | None = None,
) -> type[Any]:
    """A class of rewards for ``swift.rewards.orms``.

    Args:
        base: ``swift.rewards.ORM``.
        name: Name of the class, under which ms-swift logs the reward.
        reward: A reward of this package.
        columns: Argument of the reward: column that it comes from. Other arguments come from the column of
            their own name, such as `completions`; those with a default only if they have one entry per
            rollout and the column exists. To set one yourself, use `options`.
        options: Argument of the reward: one value for all rows.
        crops: How crops are read from the completions, for rewards with an argument `crops`.
        term: Which part is the reward, if it has parts.
        reading: Keywords of `parse_completions`, such as ``{"tool": "zoom", "think_open": True}``.

    Returns:
        The class; ms-swift makes an instance of it.

    Raises:
        TypeError: The reward has no such argument, or cannot be read so.

    Source:
        The calling convention of ms-swift 4.6.0.

    Example:
        >>> from lfpc_rewards import lfpc_reward
        >>> class ORM:  # in a plug-in: from swift.rewards import ORM, orms
        ...     def __init__(self, args=None, **kwargs):
        ...         self.args = args
        >>> orms = {"lfpc": swift_orm(ORM, "Lfpc", lfpc_reward, columns={"answers": "solution"})}
        >>> orms["lfpc"](args=None)(["<think>so</think><answer>B</answer>"], solution=["B"])
        [0.8]
    """
    binding = Binding(reward, columns or {}, options or {}, crops, term, reading or {})

    def call(self: Any, completions: Sequence[Any], **kwargs: Any) -> list[float | None]:  # noqa: ARG001
        """One score per completion, None where the reward does not apply."""
        return or_none(binding.score({"completions": completions} | kwargs)["score"])

    return type(name, (base,), {"__call__": call, "__doc__": reward.__doc__})
