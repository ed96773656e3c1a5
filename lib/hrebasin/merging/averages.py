"""Averages of many networks: as they are, aligned to the first one (star), or one after the other (fold)."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from ..bank import Bank, average, check_finite
from ..checks import check_bank
from ..matching.transport import match_transport
from ..matching.weights import Alignment, match_weights
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
    return finished(average_aligned(bank, "naive"), pixels)


def align_star(bank: Bank, seed: Seed = 0) -> Aligned:
    """Every network aligned to the first one."""
    names = [f"{seed}/star/{place_of(bank)}/model-{number}" for number in range(1, len(bank))]
    return _aligned_to_first(bank, partial(match_weights, seed=names))


def align_transport(bank: Bank, seed: Seed = 0) -> Aligned:
    """Every network aligned to the first one by optimal transport fusion; ``seed`` does not count: nothing is drawn."""
    return _aligned_to_first(bank, match_transport)


def _aligned_to_first(bank: Bank, match: Callable[[Bank, Bank], Alignment]) -> Aligned:
    reference, moving = bank.select([0] * (len(bank) - 1)), bank.select(slice(1, None))
    alignment = match(reference, moving)
    return aligned_by(Bank.concat([bank.select([0]), alignment.apply(moving)]), int(alignment.sweeps.max()))


def align_fold(bank: Bank, seed: Seed = 0) -> Aligned:
    """Each network in turn aligned to the mean of those before it."""
    sweeps, aligned = 0, bank.select([0])
    for number in range(1, len(bank)):
        mean = average_aligned(aligned, "fold")
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


def average_aligned(
    aligned: Bank, method: str, sweeps: int = 0, start: float | None = None, *, converged: bool = True
) -> Bank:
    """The mean of aligned networks, with the variables of `hrebasin.merging.distances.HISTORY`.

    ``start`` is what `time.perf_counter` gave when aligning began; by default that took no time.
    """
    tensors = {key: average(tensor) for key, tensor in aligned.tensors.items()}
    merged = Bank(aligned.architecture, tensors, merged_labels(aligned) | {"method": method})
    distance = pairwise_distance(squared_norms(aligned)[None], merged)
    seconds = 0.0 if start is None else time.perf_counter() - start
    return with_history(merged, distance, [sweeps], [converged], [seconds])
