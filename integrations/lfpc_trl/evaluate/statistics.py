"""A mean and how far it can be trusted: percentile bootstrap over questions.

A question is the unit, because the rows and samples of one question are not independent. So callers average
those first, and hand over one value per question.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
LEAST = 10
"""Questions below which no interval is given. Our choice: the bootstrap only sees the values that it has, and
so few of them do not show how far values spread."""

_CHUNK = 1 << 20  # values drawn at a time: 8 MB


@dataclass(frozen=True)
class Estimate:
    """A mean over questions.

    Attributes:
        value: the mean, None over no questions.
        low: lower end of the interval; None where none is given.
        high: upper end; None where none is given.
        n: the questions it is over.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def excludes_zero(low: float | None, high: float | None) -> bool:
    """Whether an interval holds only values of one sign; without an interval that is not known.

    Example:
        >>> excludes_zero(0.1, 0.3), excludes_zero(0.0, 0.3), excludes_zero(None, None)
        (True, False, False)
    """
    rounding = 1e-12
    return low is not None and high is not None and (low > rounding or high < -rounding)


def mean_of(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """The mean with its 95 % percentile bootstrap interval.

    No interval is given below `LEAST` values, nor where all values are equal: resampling cannot show what it
    has never seen, and an interval of no width would claim a certainty that is not there.

    Args:
        values: one per question, NaN where it has none: those are left out and not counted.
        seed: of the resampling.

    Returns:
        The mean over the values that are there, and how many.

    Raises:
        ValueError: `values` is not one-dimensional or holds an infinite value.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Example:
        >>> mean_of([1.0, 0.0, float("nan")])
        Estimate(value=0.5, low=None, high=None, n=2)
        >>> mean_of([1.0, 0.0] * 50)
        Estimate(value=0.5, low=0.4, high=0.6, n=100)
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or np.isinf(given).any():
        raise ValueError(f"values must be finite or NaN and one per question, got shape {given.shape}")
    known = given[~np.isnan(given)]
    n = len(known)
    if n == 0:
        return Estimate(None, None, None, 0)
    value = float(known.mean())
    if n < LEAST or known.min() == known.max():
        return Estimate(value, None, None, n)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(_resampled_means(known, np.random.default_rng(seed)), [tail, 100 - tail])
    return Estimate(value, float(low), float(high), n)


def difference_of(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    *,
    seed: int = 0,
) -> Estimate:
    """The mean of `first - second` over the questions that have both, with its interval.

    Pairing removes what makes questions easy or hard, so the interval is that of the change alone.

    Args:
        first: one value per question, NaN where it has none.
        second: the same questions in the same order.
        seed: of the resampling.

    Returns:
        The mean difference over the questions with two values, and how many.

    Raises:
        ValueError: the two differ in length, or as `mean_of`.

    Example:
        >>> difference_of([1.0, 1.0, 0.0], [0.0, 1.0, float("nan")])
        Estimate(value=0.5, low=None, high=None, n=2)
    """
    if len(first) != len(second):
        raise ValueError(f"first and second must hold the same questions, got {len(first)} and {len(second)}")
    return mean_of(np.asarray(first, np.float64) - np.asarray(second, np.float64), seed=seed)


def group_means(values: NDArray[np.float64], groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The mean of each group, over the values that are there.

    Args:
        values: one per member, NaN where it has none.
        groups: the group of each member, from 0.
        count: how many groups there are.

    Returns:
        (count,) means, NaN for a group without a value.

    Example:
        >>> group_means(np.array([1.0, 0.0, np.nan, np.nan]), np.array([0, 0, 0, 1]), 2)
        array([0.5, nan])
    """
    known = ~np.isnan(values)
    sums = np.bincount(groups[known], values[known], minlength=count)
    members = np.bincount(groups[known], minlength=count)
    means = np.full(count, math.nan)
    np.divide(sums, members, out=means, where=members > 0)
    return means


def _resampled_means(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(RESAMPLES,) means of as many draws with replacement as there are values."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if 16 * len(distinct) <= n:
        # Right and wrong repeat: how often each value is drawn says all, and is drawn at once.
        return np.asarray(rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n)
    means = np.empty(RESAMPLES)
    size = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, size):
        part = means[start : start + size]
        # Short integers are drawn faster.
        drawn = rng.integers(n, size=(len(part), n), dtype=np.uint16 if n <= 1 << 16 else np.int64)
        values.take(drawn).mean(axis=1, out=part)
    return means
