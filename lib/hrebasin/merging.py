"""Merging: pairs, the paper's tree, MergeMany of Git Re-Basin (algorithm 3), and plain averages."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from .bank import Bank, check_finite, check_same_architecture
from .history import merged_labels, pairwise_distance, squared_distances, squared_norms, with_history
from .matching import match_weights
from .mergemany import CONVERGENCE, merge_many, merge_many_sets
from .seeding import Seed

__all__ = [
    "CONVERGENCE",
    "interpolate",
    "merge_many",
    "merge_many_sets",
    "merge_naive",
    "merge_pairs",
    "merge_tree",
]


def merge_pairs(
    bank: Bank, *, seed: Seed = 0, weight: float = 0.5, permute: str = "second", max_sweeps: int = CONVERGENCE
) -> Bank:
    """Merge neighbours: networks 0 and 1, 2 and 3, and so on.

    Args:
        bank: an even number of networks; not changed.
        seed: of the layer orders; each pair's own order is named after its group, stage and node.
        weight: of the second network in the average.
        permute: ``"second"`` (the paper) moves the second network into the first one's basin, ``"first"`` the
            other way round.
        max_sweeps: of weight matching.

    Returns:
        Half as many networks, with the variables of `hrebasin.history.HISTORY`.

    Raises:
        ValueError: an odd number of networks, or ``weight`` or ``permute`` that cannot be.
    """
    if len(bank) % 2:
        raise ValueError(f"merging in pairs needs an even number of networks, got {len(bank)}")
    if permute not in ("first", "second"):
        raise ValueError(f"permute must be 'first' or 'second', got {permute!r}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    start = time.perf_counter()
    first, second = bank.select(slice(0, None, 2)), bank.select(slice(1, None, 2))
    labels = first.labels | {
        "method": "tree",
        "stage": first.labels["stage"] + 1,
        "n_merged": first.labels["n_merged"] + second.labels["n_merged"],
        "node": first.labels["node"] // 2,
    }
    seeds = [
        f"{seed}/group-{group}/stage-{stage}/node-{node}"
        for group, stage, node in zip(labels["group"], labels["stage"], labels["node"], strict=True)
    ]
    if permute == "second":
        alignment = match_weights(first, second, seed=seeds, max_sweeps=max_sweeps)
        second = alignment.apply(second)
    else:
        alignment = match_weights(second, first, seed=seeds, max_sweeps=max_sweeps)
        first = alignment.apply(first)
    merged = {name: torch.lerp(first.tensors[name], second.tensors[name], weight) for name in first.tensors}
    result = Bank(bank.architecture, merged, labels)
    seconds = (time.perf_counter() - start) / len(result)
    return with_history(
        result,
        squared_distances(first, second),
        alignment.sweeps.numpy(),
        alignment.sweeps.numpy() < max_sweeps,
        np.full(len(result), seconds),
    )


def merge_tree(bank: Bank, *, leaves: int | None = None, seed: Seed = 0) -> list[Bank]:
    """Merge in pairs, then the merged ones in pairs, up to one network a tree (the paper's method).

    >>> from hrebasin.networks import mlp
    >>> bank = Bank.stack([mlp((8,), n_classes=3, image_shape=(1, 2, 2), mean=[0.5], std=[0.25]) for _ in range(8)])
    >>> [len(stage) for stage in merge_tree(bank)], [len(stage) for stage in merge_tree(bank, leaves=4)]
    ([8, 4, 2, 1], [8, 4, 2])

    Args:
        bank: one or more trees of leaves, one after the other.
        leaves: networks a tree, a power of two; by default all of them form one tree.
        seed: of the layer orders.

    Returns:
        One bank a stage, stage 0 (the leaves) first; 16 leaves give 16, 8, 4, 2, 1 networks. Distances and seconds
        of a node are those of its whole subtree.

    Raises:
        ValueError: ``leaves`` is no power of two, or does not divide the bank.
    """
    leaves = len(bank) if leaves is None else leaves
    if leaves < 2 or leaves & (leaves - 1):
        raise ValueError(f"a tree needs 2**k leaves, got {leaves}")
    if len(bank) % leaves:
        raise ValueError(f"{len(bank)} networks do not divide into trees of {leaves} leaves")
    norms = squared_norms(bank)
    stages = [bank]
    while len(stages[-1]) > len(bank) // leaves:
        merged = merge_pairs(stages[-1], seed=seed)
        # A node is the mean of its aligned leaves, and permutations keep norms: so the leaves need not be kept.
        distance = pairwise_distance(norms.view(len(merged), -1), merged)
        history = merged.history.assign(
            pairwise_distance=("model", distance.numpy(), merged.history.pairwise_distance.attrs)
        )
        if len(stages) > 1:
            history["seconds"] = history.seconds + stages[-1].history.seconds.values.reshape(-1, 2).sum(1)
            history.seconds.attrs = merged.history.seconds.attrs
        stages.append(replace(merged, history=history))
    return stages


def merge_naive(bank: Bank) -> Bank:
    """The mean of all networks of a bank as they are, without any alignment: a bank of one network."""
    check_finite(bank, "naive average")
    tensors = {name: tensor.mean(0, keepdim=True) for name, tensor in bank.tensors.items()}
    merged = Bank(bank.architecture, tensors, merged_labels(bank) | {"method": "naive"})
    distance = pairwise_distance(squared_norms(bank)[None], merged)
    return with_history(merged, distance, [0], [True], [0.0])


def interpolate(a: Bank, b: Bank, lambdas: Sequence[float]) -> Iterator[Bank]:
    """The networks (1 - lambda) A + lambda B, pair by pair: one bank for each lambda, made when asked for.

    Raises:
        ValueError: banks of different architectures or lengths, a lambda outside [0, 1], weights that are not finite.
    """
    check_same_architecture(a, b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} networks cannot be paired with {len(b)}")
    for value in lambdas:
        if not 0 <= value <= 1:
            raise ValueError(f"lambda must lie in [0, 1], got {value}")
    for role, bank in (("first", a), ("second", b)):
        check_finite(bank, f"{role} networks")
    return (
        Bank(
            a.architecture,
            {name: torch.lerp(a.tensors[name], b.tensors[name], value) for name in a.tensors},
            a.labels,
        )
        for value in map(float, lambdas)
    )
