"""Rules that cost something, applied once to what the rollouts of a prompt say again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np

from lfpc_rewards._typing import Scores


def once_each(rule: Callable[..., float], *columns: Sequence[Hashable]) -> Scores:
    """(B,) ``rule(*row)`` for the rows of some columns, applied to each different row once."""
    return np.fromiter(map(cache(rule), *columns), np.float64, len(columns[0]))
