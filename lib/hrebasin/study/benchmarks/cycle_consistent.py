"""C2M3 beside its published procedure (Crisostomi et al. 2024): pairs of networks in a loop, a numerical line search.

Written from the description of the public code: dense matrices, SciPy's assignment, SciPy's bounded minimiser with at
most 20 values of the objective a step. Products that the public code takes only to read their trace are left out.
"""

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import numpy as np
import torch
import xarray as xr
from scipy.optimize import fminbound, linear_sum_assignment

from ...bank import Bank
from ...merging.cycle_consistent import match_cycle_consistent
from ...networks import permutation_spec
from .speed import Row

# by networks: twice as many are twice the work, and more than four times as many pairs
GOALS = {2: 1, 4: 5, 8: 10, 16: 20}
STEPS = 2  # of both sides; a step takes as long at the start as later
PATIENCE, LEAST_GAIN = 5, 1e-6  # steps that gain less than this in a row end the search

Matrices = Mapping[str, torch.Tensor]


def rows(bank: Bank) -> dict[str, Row]:
    """The comparisons by name; MLPs only."""
    return {f"cycle-consistent-{size}": _row(bank.select(slice(size))) for size in GOALS}


def exponents(benchmarks: xr.Dataset) -> tuple[float, float] | None:
    """The powers of n with which the times of both sides grow, ours first: least squares of logarithms of the median
    seconds over all rows; 1 is a straight line, 2 a square.

    Args:
        benchmarks: as `hrebasin.study.benchmarks.speed.compare` gives it; None where fewer than two rows are in it.
    """
    sizes = [size for size in GOALS if f"cycle-consistent-{size}" in benchmarks.row.values]
    if len(sizes) < 2:
        return None
    some = benchmarks.seconds.sel(row=[f"cycle-consistent-{size}" for size in sizes]).median("repeat")
    ours, theirs = np.polyfit(np.log(sizes), np.log(some.transpose("row", "side").values), 1)[0]
    return float(ours), float(theirs)


def _row(bank: Bank) -> Row:
    return Row(
        f"C2M3 of {len(bank)} networks, {STEPS} steps",
        "pairs of networks in a loop, numerical line search",
        partial(match_cycle_consistent, bank, max_steps=STEPS, tolerance=0.0),
        partial(published, bank, max_steps=STEPS),
        lambda ours, theirs: 100 * (1 - ours.objectives[-1] / theirs[-1]),
        "% of the objective, ours below the alternative's",
        GOALS[len(bank)],
    )


def published(bank: Bank, *, max_steps: int = 200) -> list[float]:
    """The objective at the start and after every step."""
    spec = {name: axes for name, axes in permutation_spec(bank.architecture).items() if any(axes)}
    networks = [{name: bank.tensors[name][k] for name in spec} for k in range(len(bank))]
    sizes = bank.architecture.symmetry.permutations
    matrices = [{name: torch.eye(size) for name, size in sizes.items()} for _ in networks]
    found, patience = [_objective(networks, matrices, spec)], 0
    for _ in range(max_steps):
        aims = [{name: _projected(matrix) for name, matrix in each.items()}
                for each in _gradients(networks, matrices, spec)]  # fmt: skip
        t = fminbound(partial(_loss, networks, matrices, aims, spec), 0, 1, xtol=1e-3, maxfun=20)
        matrices = _towards(matrices, aims, t)
        found.append(_objective(networks, matrices, spec))
        patience = patience + 1 if found[-1] - found[-2] < LEAST_GAIN else 0
        if patience == PATIENCE:
            break
    return found


def _loss(networks: list[Matrices], matrices: list[Matrices], aims: list[Matrices], spec: Mapping, t: float) -> float:
    """What the line search minimises."""
    return -_objective(networks, _towards(matrices, aims, t), spec)


def _objective(networks: list[Matrices], matrices: list[Matrices], spec: Mapping) -> float:
    """Sum over pairs and parameters of <P_a W_a R_a^T, P_b W_b R_b^T>."""
    total = 0.0
    for a, b in combinations(range(len(networks)), 2):
        for name, axes in spec.items():
            other = networks[b][name]
            for axis, perm in enumerate(axes):
                if perm is not None:
                    other = _multiplied(matrices[a][perm].T @ matrices[b][perm], other, axis)
            total += float((networks[a][name] * other).sum())
    return total


def _gradients(networks: list[Matrices], matrices: list[Matrices], spec: Mapping) -> list[dict[str, torch.Tensor]]:
    """Of the objective for every matrix of every network, pair by pair."""
    found = [{name: torch.zeros_like(matrix) for name, matrix in each.items()} for each in matrices]
    for pair in combinations(range(len(networks)), 2):
        for a, b in (pair, pair[::-1]):
            for name, axes in spec.items():
                whole = networks[b][name]
                for axis, perm in enumerate(axes):
                    whole = whole if perm is None else _multiplied(matrices[b][perm], whole, axis)
                for axis, perm in enumerate(axes):
                    if perm is None:
                        continue
                    own = networks[a][name]
                    for other, second in enumerate(axes):
                        if other != axis and second is not None:
                            own = _multiplied(matrices[a][second], own, other)
                    found[a][perm] += _flat(whole, axis) @ _flat(own, axis).T
    return found


def _towards(matrices: list[Matrices], aims: list[Matrices], t: float) -> list[dict[str, torch.Tensor]]:
    pairs = zip(matrices, aims, strict=True)
    return [{name: (1 - t) * own[name] + t * aim[name] for name in own} for own, aim in pairs]


def _projected(gradient: torch.Tensor) -> torch.Tensor:
    """The permutation matrix along which the objective rises fastest."""
    rows, columns = linear_sum_assignment(gradient.numpy(), maximize=True)
    matrix = torch.zeros_like(gradient)
    matrix[rows, columns] = 1
    return matrix


def _multiplied(matrix: torch.Tensor, tensor: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.tensordot(matrix, tensor, dims=([1], [axis])).movedim(0, axis)


def _flat(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
