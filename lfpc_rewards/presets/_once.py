"""Rules that cost something, applied once to what the rollouts of a prompt say again and again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from lfpc_rewards._typing import Scores


class _Known(dict[tuple[Hashable, ...], float]):
    """Scores of rows; that of a row that is not known yet is computed when it is asked for."""

    def __init__(self, rule: Callable[..., float]) -> None:
        self._rule = rule

    def __missing__(self, row: tuple[Hashable, ...]) -> float:
        score = self[row] = float(self._rule(*row))
        return score


def once_each(rule: Callable[..., float], rows: Sequence[Hashable], *columns: Iterable[Hashable]) -> Scores:
    """(B,) ``rule(row, *of_columns)``, applied to each different row once."""
    known = _Known(rule)
    return np.fromiter(map(known.__getitem__, zip(rows, *columns, strict=True)), np.float64, len(rows))
