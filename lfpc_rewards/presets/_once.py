"""Apply slow rules once per distinct row: rollouts of a prompt often have the same answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np

from lfpc_rewards._typing import Scores


def once_each(rule: Callable[..., float], *columns: Sequence[Hashable]) -> Scores:
    """Return the (B,) results of ``rule(*row)``, called once per distinct row of the columns."""
    return np.fromiter(map(cache(rule), *columns), np.float64, len(columns[0]))
