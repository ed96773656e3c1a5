"""Linear assignment that starts from the last solution.

Shortest augmenting paths (Jonker & Volgenant 1987, in the form of Crouse 2016 that SciPy also uses) with two
additions: column prices and the assignment of an earlier, similar problem are taken up, and only the rows that they
no longer serve are solved again; and the inner loops run over whole rows, so that the compiler vectorises them. The
optimum is the same as SciPy's wherever it is unique.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit

from ..compiled import Compiled

LARGEST = 1e150  # gain or price that is taken as it is


class NotFiniteError(ValueError):
    """Gains that are not finite."""


def assign(
    gains: np.ndarray, start: np.ndarray | None = None, prices: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The permutations that maximise sum_i gains[k, i, perm[k, i]], one for each problem k, solved on threads.

    Args:
        gains: (problem, row, column), finite; solved in float64, where near-ties do not flip.
        start: (problem, row) int64, permutations to start from, -1 for none; by default none.
        prices: (problem, column) float64, prices that an earlier call returned; by default zero.

    Returns:
        permutations (problem, row) int64, and prices (problem, column) float64 for a later call.

    >>> assign(np.array([[[1.0, 2.0], [3.0, 5.0]]]))[0].tolist()
    [[0, 1]]
    """
    if gains.ndim != 3 or gains.shape[1] != gains.shape[2]:
        raise ValueError(f"gains must be (problem, unit, unit), got {gains.shape}")
    n_problems, n, _ = gains.shape
    costs = np.negative(gains, dtype=np.float64)
    largest = max(costs.max(initial=0.0), -costs.min(initial=0.0))  # NaN where one is
    if not np.isfinite(largest):
        raise NotFiniteError("gains must be finite")
    permutations = np.full((n_problems, n), -1) if start is None else np.array(start, dtype=np.int64)
    prices = np.zeros((n_problems, n)) if prices is None else np.array(prices, dtype=np.float64)
    if permutations.shape != (n_problems, n) or prices.shape != (n_problems, n):
        raise ValueError(f"start {permutations.shape} and prices {prices.shape} must be {(n_problems, n)}")
    if not np.isfinite(prices).all():
        raise ValueError("prices must be finite")
    outside = permutations[(permutations < -1) | (permutations >= n)]
    if len(outside):  # compiled code does not check
        raise ValueError(f"start must hold columns 0 to {n - 1}, or -1 for none, got {outside[0]}")
    # Compiled code counts on finite sums of many gains and prices; by a power of two they stay what they are.
    scale = 1.0 if largest <= LARGEST else 2.0 ** -int(np.log2(largest))
    if scale != 1.0:
        costs, prices = costs * scale, prices * scale
    prices[np.abs(prices) > LARGEST] = 0.0
    if n_problems == 1:
        _solve(costs[0], permutations[0], prices[0])
    elif n_problems:
        with ThreadPoolExecutor(min(n_problems, torch.get_num_threads())) as pool:
            list(pool.map(_solve, costs, permutations, prices))
    with np.errstate(over="ignore"):
        return permutations, np.nan_to_num(prices / scale)


def _minimise(cost, col_of_row, v):
    """Minimise in place: ``col_of_row`` and column prices ``v`` are taken up and replaced."""
    n = len(cost)
    u = np.empty(n)
    row_of_col = np.full(n, -1)
    # Keep what is still optimal under the given prices; complementary slackness must hold exactly.
    for i in range(n):
        u[i] = np.inf
        for j in range(n):
            u[i] = min(u[i], cost[i, j] - v[j])
        j = col_of_row[i]
        if j >= 0 and row_of_col[j] < 0 and cost[i, j] - v[j] <= u[i]:
            row_of_col[j] = i
        else:
            col_of_row[i] = -1
    distance = np.empty(n)  # of the shortest path to each closed column
    tentative = np.empty(n)  # the same for open columns, infinite once closed
    blocked = np.empty(n)  # 0 for open columns, infinite once closed
    previous = np.empty(n, np.int64)
    closed = np.empty(n, np.int64)
    for free_row in range(n):
        if col_of_row[free_row] >= 0:
            continue
        tentative[:] = np.inf
        blocked[:] = 0.0
        n_closed = 0
        reached = 0.0
        i = free_row
        while True:
            _relax(cost[i], v, reached - u[i], i, tentative, blocked, previous)
            column = _argmin(tentative)
            reached = tentative[column]
            distance[column] = reached
            tentative[column] = np.inf
            blocked[column] = np.inf
            closed[n_closed] = column
            n_closed += 1
            if row_of_col[column] < 0:
                break
            i = row_of_col[column]
        u[free_row] += reached
        for k in range(n_closed):
            j = closed[k]
            v[j] -= reached - distance[j]
            if row_of_col[j] >= 0:
                u[row_of_col[j]] += reached - distance[j]
        while True:  # flip the path
            i = previous[column]
            row_of_col[column] = i
            col_of_row[i], column = column, col_of_row[i]
            if i == free_row:
                break


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _relax(row, v, offset, i, tentative, blocked, previous):
    """Shorten the paths to all open columns by going through row ``i``; branch-free, so it vectorises."""
    for j in range(len(row)):
        candidate = offset + row[j] - v[j] + blocked[j]
        shorter = candidate < tentative[j]
        tentative[j] = candidate if shorter else tentative[j]
        previous[j] = i if shorter else previous[j]


@njit(nogil=True, error_model="numpy")
def _argmin(values):
    """First position of the least value; distances are not negative, so their bits compare as integers.

    LLVM vectorises the minimum of integers but, because of NaN, not that of floats.
    """
    bits = values.view(np.int64)
    least = bits[0]
    for j in range(1, len(bits)):
        least = min(least, bits[j])
    for j in range(len(bits)):
        if bits[j] == least:
            return j
    return 0


_solve = Compiled(_minimise, nogil=True, error_model="numpy")
