"""Optimal one-to-one assignment, with the same results as scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards._jit import kernel

Costs = NDArray[np.float64]


@kernel
def assign(costs: Costs, partners: NDArray[np.int64]) -> bool:
    """Write to `partners` the column of each row (-1: none) that minimizes the sum of the (n, m) costs.

    Returns False where scipy raises: a cost is NaN or minus infinity, or every assignment costs infinity.

    Shortest augmenting paths (Crouse, 2016). Ties are broken as in `scipy.optimize.linear_sum_assignment`:
    columns are tried from the last to the first, and of equal paths one that ends at a free column is
    preferred.
    """
    if costs.shape[0] <= costs.shape[1]:
        return assign_rows(costs, partners)
    rows = np.empty(costs.shape[1], np.int64)
    if not assign_rows(costs.T.copy(), rows):
        return False
    partners[:] = -1
    for column in range(rows.size):
        partners[rows[column]] = column
    return True


@kernel
def assign_rows(costs: Costs, partners: NDArray[np.int64]) -> bool:
    # There are at least as many columns as rows, so every row gets a column.
    n, m = costs.shape
    for cost in costs.flat:
        if not cost > -np.inf:
            return False
    owners = np.full(m, -1)
    row_prices, column_prices = np.zeros(n), np.zeros(m)
    partners[:] = -1
    came_from = np.empty(m, np.int64)
    open_columns = np.empty(m, np.int64)
    for new in range(n):
        distance = np.full(m, np.inf)
        reached = np.zeros(n, np.bool_)
        closed = np.zeros(m, np.bool_)
        for k in range(m):
            open_columns[k] = m - 1 - k
        left, row, free, so_far = m, new, -1, 0.0
        while free < 0:
            reached[row] = True
            best, nearest = np.inf, -1
            for k in range(left):
                column = open_columns[k]
                path = so_far + costs[row, column] - row_prices[row] - column_prices[column]
                if path < distance[column]:
                    distance[column] = path
                    came_from[column] = row
                if distance[column] < best or (distance[column] == best and owners[column] < 0):
                    best, nearest = distance[column], k
            if best == np.inf:
                return False
            so_far = best
            column = open_columns[nearest]
            closed[column] = True
            left -= 1
            open_columns[nearest] = open_columns[left]
            if owners[column] < 0:
                free = column
            else:
                row = owners[column]
        row_prices[new] += so_far
        for row in range(n):
            if reached[row] and row != new:
                row_prices[row] += so_far - distance[partners[row]]
        for column in range(m):
            if closed[column]:
                column_prices[column] -= so_far - distance[column]
        while free >= 0:
            row = came_from[free]
            owners[free] = row
            free, partners[row] = partners[row], free
            if row == new:
                break
    return True
