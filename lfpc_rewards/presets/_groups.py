"""Rewards that look at all rollouts of a prompt: which rollouts belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._typing import Scores


def number_groups(groups: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """(B,) the number of each rollout's group, in the order in which the groups appear, and how many."""
    different = dict.fromkeys(groups)
    numbers = dict(zip(different, range(len(different)), strict=True))
    return np.fromiter(map(numbers.__getitem__, groups), np.int64, len(groups)), len(numbers)


def group_mean(values: Scores, numbers: NDArray[np.int64], count: int) -> Scores:
    """(groups,) the mean of each group."""
    return np.bincount(numbers, values, count) / np.bincount(numbers, minlength=count)


def places_in_groups(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(B,) how many rollouts of its group stand before each rollout."""
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers, minlength=count)
    places = np.empty(len(numbers), np.int64)
    places[order] = np.arange(len(numbers)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places
