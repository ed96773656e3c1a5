"""Averages of many networks: as they are, aligned to the first one (star), or one after the other (fold)."""

import time
from typing import NamedTuple

import torch

from ..bank import Bank, average, check_finite
from ..checks import check_bank
from ..matching.transport import match_transport
from ..matching.weights import match_weights
from ..random_streams import Seed
from ..resources import plain_torch
from .batch_norm import finished
from .distances import CONVERGENCE, merged_labels, pairwise_distance, squared_norms, with_history


class Aligned(NamedTuple):
    """Networks with their units in one common order, to be averaged.

    Attributes:
        bank: all networks; each gives the logits that it gave before.
        sweeps: most sweeps, or steps, that an alignment took.
        converged: whether it ended before its limit.
    """

    bank: Bank
    sweeps: int = 0
    converged: bool = True


@plain_torch()
def merge_naive(bank: Bank, *, pixels: torch.Tensor | None = None) -> Bank:
    """The mean of all networks of a bank as they are, without any alignment: a bank of one network."""
    check_bank(bank)
    check_finite(bank, "naive average")
    tensors = {name: average(tensor) for name, tensor in bank.tensors.items()}
    merged = finished(Bank(bank.architecture, tensors, merged_labels(bank) | {"method": "naive"}), pixels)
    distance = pairwise_distance(squared_norms(bank)[None], merged)
    return with_history(merged, distance, [0], [True], [0.0])


def align_star(bank: Bank, seed: Seed = 0) -> Aligned:
    """Every network aligned to the first one."""
    reference, moving = bank.select([0] * (len(bank) - 1)), bank.select(slice(1, None))
    names = [f"{seed}/star/{place_of(bank)}/model-{number}" for number in range(1, len(bank))]
    alignment = match_weights(reference, moving, seed=names)
    return aligned_by(Bank.concat([bank.select([0]), alignment.apply(moving)]), int(alignment.sweeps.max()))


def align_transport(bank: Bank, seed: Seed = 0) -> Aligned:
    """Every network aligned to the first one by optimal transport fusion; ``seed`` does not count: nothing is drawn."""
    reference, moving = bank.select([0] * (len(bank) - 1)), bank.select(slice(1, None))
    return aligned_by(Bank.concat([bank.select([0]), match_transport(reference, moving).apply(moving)]), 1)


def align_fold(bank: Bank, seed: Seed = 0) -> Aligned:
    """Each network in turn aligned to the mean of those before it."""
    sweeps, aligned = 0, bank.select([0])
    for number in range(1, len(bank)):
        mean = average_aligned(aligned, "fold", 0, 0.0)
        alignment = match_weights(mean, bank.select([number]), seed=f"{seed}/fold/{place_of(bank)}/model-{number}")
        aligned = Bank.concat([aligned, alignment.apply(bank.select([number]))])
        sweeps = max(sweeps, int(alignment.sweeps.max()))
    return aligned_by(aligned, sweeps)


def aligned_by(bank: Bank, sweeps: int) -> Aligned:
    """Networks that took at most so many sweeps of weight matching or MergeMany."""
    return Aligned(bank, sweeps, sweeps < CONVERGENCE)


def place_of(bank: Bank) -> str:
    """Group and node of the first network: they name the random streams of a set."""
    return f"group-{bank.labels['group'][0]}/node-{bank.labels['node'][0]}"


def average_aligned(aligned: Bank, method: str, sweeps: int, start: float, *, converged: bool = True) -> Bank:
    """The mean of aligned networks, with the variables of `hrebasin.merging.distances.HISTORY`."""
    tensors = {key: average(tensor) for key, tensor in aligned.tensors.items()}
    merged = Bank(aligned.architecture, tensors, merged_labels(aligned) | {"method": method})
    distance = pairwise_distance(squared_norms(aligned)[None], merged)
    return with_history(merged, distance, [sweeps], [converged], [time.perf_counter() - start])
