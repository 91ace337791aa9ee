"""Slow rules, applied once to each different row: rollouts of a prompt often say the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np

from lfpc_rewards._typing import Scores


def once_each(rule: Callable[..., float], *columns: Sequence[Hashable]) -> Scores:
    """(B,) ``rule(*row)`` of each row of the columns, called once for each different row."""
    return np.fromiter(map(cache(rule), *columns), np.float64, len(columns[0]))
