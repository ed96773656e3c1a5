"""What every merge records of itself, and the labels of what it makes."""

from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from ..bank import Bank
from ..matching.descent import CONVERGENCE as CONVERGENCE

HISTORY = {
    "pairwise_distance": ("objective: sum of squared distances between the aligned leaves", "1"),
    "sweeps_done": ("sweeps until nothing changed, or the limit", "1"),
    "converged": ("whether the last sweep changed nothing", "1"),
    "seconds": ("matching and averaging, with all that it is merged from; side by side: shared evenly", "s"),
}

PIECE = 1 << 14  # parameters of each network in float64 at once: they stay in the cache


def merged_labels(bank: Bank) -> dict:
    """Labels of one network merged from all of ``bank``."""
    n_merged = int(bank.labels["n_merged"].sum())
    merged = {
        "stage": int(np.log2(n_merged)),
        "n_merged": n_merged,
        "node": bank.labels["node"][:1] // len(bank),
    }
    return {name: values[:1] for name, values in bank.labels.items()} | merged


def squared_norms(bank: Bank) -> torch.Tensor:
    """Squared norm over all parameters of each network, (model,) float64 on the CPU."""
    return sum(
        torch.linalg.vector_norm(bank.tensors[name].flatten(1), dim=1, dtype=torch.float64).square()
        for name in bank.architecture.parameters
    ).cpu()


def squared_distances(a: Bank, b: Bank) -> torch.Tensor:
    """Squared distance over all parameters between network k of both banks, (model,) float64 on the CPU."""
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for name in a.architecture.parameters:
        for x, y in zip(
            a.tensors[name].flatten(1).split(PIECE, 1), b.tensors[name].flatten(1).split(PIECE, 1), strict=True
        ):
            total += (x.double() - y.double()).square().sum(1)
    return total.cpu()


def pairwise_distance(norms: torch.Tensor, means: Bank) -> torch.Tensor:
    """sum_{i<j} |x_i - x_j|^2 = n sum |x_i|^2 - n^2 |mean|^2, from norms (mean, member) and the means."""
    n = norms.shape[1]
    return (n * norms.sum(1) - n**2 * squared_norms(means)).clamp(min=0)


def with_history(bank: Bank, distance, sweeps_done, converged, seconds) -> Bank:
    """The bank with the variables of `HISTORY`, one value per network."""
    columns = (distance, sweeps_done, np.asarray(converged, dtype=np.int8), seconds)
    variables = {
        name: ("model", np.asarray(values), {"long_name": long_name, "units": units})
        for (name, (long_name, units)), values in zip(HISTORY.items(), columns, strict=True)
    }
    return replace(bank, history=xr.Dataset(variables))
