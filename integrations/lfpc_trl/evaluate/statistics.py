"""Means with confidence intervals: percentile bootstrap over questions.

The question is the unit of resampling, because the rows and samples of one question are not independent.
Callers average those first and pass one value per question.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
LEAST = 10
"""Minimum number of questions for an interval. Our choice: the bootstrap only sees the values in the sample,
and fewer do not show how far values spread."""

_CHUNK = 1 << 20  # values drawn at a time: 8 MB


@dataclass(frozen=True)
class Estimate:
    """A mean over questions.

    Attributes:
        value: the mean; None if there are no questions.
        low: lower end of the interval; None without an interval.
        high: upper end of the interval; None without an interval.
        n: number of questions.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def excludes_zero(low: float | None, high: float | None) -> bool:
    """Whether all values of an interval have the same sign; False without an interval.

    Example:
        >>> excludes_zero(0.1, 0.3), excludes_zero(0.0, 0.3), excludes_zero(None, None)
        (True, False, False)
    """
    rounding = 1e-12
    return low is not None and high is not None and (low > rounding or high < -rounding)


def mean_of(values: Sequence[float] | NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Compute a mean with its 95 % percentile bootstrap interval.

    There is no interval for fewer than `LEAST` values, or if all values are equal: resampling equal values
    gives an interval of zero width, which would claim too much certainty.

    Args:
        values: one per question; NaN values are left out and not counted.
        seed: seed of the resampling.

    Returns:
        The mean over the values that are not NaN, and their number.

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
    """Compute the mean of `first - second` over the questions that have both values, with its interval.

    Pairing removes the variation in the difficulty of questions, so the interval reflects the change alone.

    Args:
        first: one value per question, NaN where it has none.
        second: the same questions in the same order.
        seed: seed of the resampling.

    Returns:
        The mean difference over the questions with both values, and their number.

    Raises:
        ValueError: the two differ in length, or an error of `mean_of`.

    Example:
        >>> difference_of([1.0, 1.0, 0.0], [0.0, 1.0, float("nan")])
        Estimate(value=0.5, low=None, high=None, n=2)
    """
    if len(first) != len(second):
        raise ValueError(f"first and second must hold the same questions, got {len(first)} and {len(second)}")
    return mean_of(np.asarray(first, np.float64) - np.asarray(second, np.float64), seed=seed)


def group_means(values: NDArray[np.float64], groups: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Compute the mean of each group, ignoring NaN.

    Args:
        values: one per member, NaN where it has none.
        groups: the group of each member, from 0.
        count: the number of groups.

    Returns:
        (count,) means, NaN for a group without values.

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
    """Return the (RESAMPLES,) means of resamples drawn with replacement, each as large as `values`."""
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if 16 * len(distinct) <= n:
        # Few distinct values, such as right and wrong: draw how often each one occurs.
        return np.asarray(rng.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n)
    means = np.empty(RESAMPLES)
    size = max(1, _CHUNK // n)
    for start in range(0, RESAMPLES, size):
        part = means[start : start + size]
        # 16-bit integers are drawn faster.
        drawn = rng.integers(n, size=(len(part), n), dtype=np.uint16 if n <= 1 << 16 else np.int64)
        values.take(drawn).mean(axis=1, out=part)
    return means
