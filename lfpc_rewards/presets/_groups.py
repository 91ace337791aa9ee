"""Groups: which rollouts are of the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._typing import Scores


def number_groups(groups: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """(B,) the number of each rollout's group, in the order in which the groups appear, and how many."""
    listed = groups.tolist() if isinstance(groups, np.ndarray) else groups
    different = dict.fromkeys(listed)
    places = dict(zip(different, range(len(different)), strict=True))
    return np.fromiter(map(places.__getitem__, listed), np.int64, len(listed)), len(places)


def drop_groups(scores: Scores, groups: Sequence[Any] | None) -> Scores:
    """(B,) the scores, with NaN in all rows of a group that has one; the originals drop such groups."""
    if groups is None:
        return scores
    numbers, count = number_groups(groups)
    dropped = np.bincount(numbers, np.isnan(scores), count) > 0
    return np.where(dropped[numbers], np.nan, scores)


def group_mean(values: Scores, numbers: NDArray[np.int64], count: int) -> Scores:
    """(groups,) the mean of each group."""
    return np.bincount(numbers, values, count) / np.bincount(numbers, minlength=count)


def places_in_groups(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(B,) how many rollouts of the same group come before each."""
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers, minlength=count)
    places = np.empty(len(numbers), np.int64)
    places[order] = np.arange(len(numbers)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places
