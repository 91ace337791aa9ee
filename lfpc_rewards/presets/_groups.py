"""Groups: rollouts of the same prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._typing import Scores


def number_groups(groups: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """Number groups in the order of appearance; return each rollout's group number (B,) and the count."""
    listed = groups.tolist() if isinstance(groups, np.ndarray) else groups
    distinct = dict.fromkeys(listed)
    number_of = dict(zip(distinct, range(len(distinct)), strict=True))
    return np.fromiter(map(number_of.__getitem__, listed), np.int64, len(listed)), len(number_of)


def drop_groups(scores: Scores, groups: Sequence[Any] | None) -> Scores:
    """Return the (B,) scores, all NaN for a group that has a NaN; the originals drop such groups."""
    if groups is None:
        return scores
    numbers, count = number_groups(groups)
    dropped = np.bincount(numbers, np.isnan(scores), count) > 0
    return np.where(dropped[numbers], np.nan, scores)


def group_mean(values: Scores, numbers: NDArray[np.int64], count: int) -> Scores:
    """Return the (groups,) mean of each group."""
    return np.bincount(numbers, values, count) / np.bincount(numbers, minlength=count)


def index_in_group(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the (B,) index of each rollout within its group."""
    order = np.argsort(numbers, kind="stable")
    sizes = np.bincount(numbers, minlength=count)
    places = np.empty(len(numbers), np.int64)
    places[order] = np.arange(len(numbers)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places
