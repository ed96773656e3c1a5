"""Merging in pairs, and the paper's tree: pairs, then pairs of pairs, up to one network."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..bank import Bank, average, blend
from ..checks import check_bank
from ..matching.activations import match_activations
from ..matching.straight_through import match_straight_through
from ..matching.weights import Alignment, match_weights
from ..random_streams import Seed, generator
from ..resources import plain_torch
from .averages import Aligned, aligned_by, average_aligned, place_of
from .batch_norm import finished, measure_batch_norm
from .distances import CONVERGENCE, merged_labels, pairwise_distance, squared_distances, squared_norms, with_history


@plain_torch()
def merge_pairs(
    bank: Bank,
    *,
    seed: Seed = 0,
    weight: float = 0.5,
    permute: str = "second",
    pixels: torch.Tensor | None = None,
) -> Bank:
    """Merge neighbours: networks 0 and 1, 2 and 3, and so on.

    Args:
        bank: an even number of networks; not changed.
        seed: of the layer orders; each pair's own order is named after its group, stage and node.
        weight: of the second network in the average.
        permute: ``"second"`` (the paper) moves the second network into the first one's basin, ``"first"`` the
            other way round.
        pixels: training images (image, channel, y, x), which batch norm is measured on anew.

    Returns:
        Half as many networks, with the variables of `hrebasin.merging.distances.HISTORY`.

    Raises:
        ValueError: an odd number of networks, or ``weight`` or ``permute`` that cannot be.
    """
    check_bank(bank)
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
        alignment = match_weights(first, second, seed=seeds)
        second = alignment.apply(second)
    else:
        alignment = match_weights(second, first, seed=seeds)
        first = alignment.apply(first)
    result = finished(Bank(bank.architecture, blend(first, second, weight), labels), pixels)
    seconds = (time.perf_counter() - start) / len(result)
    return with_history(
        result,
        squared_distances(first, second),
        alignment.sweeps.numpy(),
        alignment.sweeps.numpy() < CONVERGENCE,
        np.full(len(result), seconds),
    )


@plain_torch()
def merge_tree(
    bank: Bank, *, leaves: int | None = None, seed: Seed = 0, pixels: torch.Tensor | None = None
) -> list[Bank]:
    """Merge in pairs, then the merged ones in pairs, up to one network a tree (the paper's method).

    >>> from hrebasin.networks import mlp
    >>> bank = Bank.stack([mlp((8,), n_classes=3, image_shape=(1, 2, 2), mean=[0.5], std=[0.25]) for _ in range(8)])
    >>> [len(stage) for stage in merge_tree(bank)], [len(stage) for stage in merge_tree(bank, leaves=4)]
    ([8, 4, 2, 1], [8, 4, 2])

    Args:
        bank: one or more trees of leaves, one after the other.
        leaves: networks per tree, a power of two; by default all of them form one tree.
        seed: of the layer orders.
        pixels: as in `merge_pairs`.

    Returns:
        One bank a stage, stage 0 (the leaves) first; 16 leaves give 16, 8, 4, 2, 1 networks. Distances and seconds
        of a node are those of its whole subtree.

    Raises:
        ValueError: ``leaves`` is no power of two, or does not divide the bank.
    """
    check_bank(bank)
    leaves = len(bank) if leaves is None else leaves
    if leaves < 2 or leaves & (leaves - 1):
        raise ValueError(f"a tree needs 2**k leaves, got {leaves}")
    if len(bank) % leaves:
        raise ValueError(f"{len(bank)} networks do not divide into trees of {leaves} leaves")
    norms = squared_norms(bank)
    stages = [bank]
    while len(stages[-1]) > len(bank) // leaves:
        merged = merge_pairs(stages[-1], seed=seed, pixels=pixels)
        # A node is the mean of its aligned leaves, and permutations keep norms: so the leaves need not be kept.
        distance = pairwise_distance(norms.view(len(merged), -1), merged)
        told = merged.history
        seconds = told.seconds.values
        if len(stages) > 1:
            seconds = seconds + stages[-1].history.seconds.values.reshape(-1, 2).sum(1)
        stages.append(with_history(merged, distance, told.sweeps_done.values, told.converged.values, seconds))
    return stages


PAIRINGS = ("neighbours", "random", "nearest")
Match = Callable[..., Alignment]  # of network k of one bank to network k of another, with a seed for each pair


def align_paired_tree(
    bank: Bank, seed: Seed = 0, *, pairing: str = "neighbours", match: Match = match_weights
) -> Aligned:
    """The leaves of a tree whose pairs are chosen anew at every stage, aligned as its top averages them.

    Args:
        bank: 2**k networks, one tree.
        seed: of layer orders and random pairs.
        pairing: ``"neighbours"`` (the paper's, in seed order), ``"random"``, or ``"nearest"``: again and again the two
            networks that are closest once aligned.
        match: aligns pairs, as `match_weights` does.
    """
    stages, sweeps = _climb(bank, pairing, seed, match)
    return aligned_by(stages[-1], sweeps)


def align_by_activations(bank: Bank, seed: Seed, pixels: torch.Tensor, *, correlated: bool = False) -> Aligned:
    """The leaves of a tree of neighbours whose units are matched by what they do on images.

    Args:
        bank: 2**k networks, one tree.
        seed: does not count, for nothing is drawn.
        pixels: training images (image, ...) as the networks take them.
        correlated: see `hrebasin.matching.activations.match_activations`.
    """

    def match(*pair: Bank, seed: Seed) -> Alignment:
        first, second = (measure_batch_norm(each, pixels) for each in pair)  # averaged statistics fit no mean
        return match_activations(first, second, pixels, correlated=correlated)

    return align_paired_tree(bank, seed, match=match)


def align_straight_through(bank: Bank, seed: Seed, pixels: torch.Tensor, labels: torch.Tensor) -> Aligned:
    """The leaves of a tree of neighbours, matched by the straight-through estimator.

    Args:
        bank: 2**k networks, one tree.
        seed: of the orders of layers and images.
        pixels, labels: training images (image, ...) as the networks take them.
    """

    def match(first: Bank, second: Bank, *, seed: Sequence[str]) -> Alignment:
        return match_straight_through(first, second, pixels, labels, seed=seed)

    return align_paired_tree(bank, seed, match=match)


def align_tree(bank: Bank, *, seed: Seed = 0) -> list[Bank]:
    """The leaves of a tree with their units in the order in which each stage averages them.

    Args:
        bank: 2**k networks, one tree, merged as `hrebasin.merging.tree.merge_tree` does.
        seed: of the layer orders.

    Returns:
        One bank of all leaves a stage, stage 0 (as given) first. Node k of stage s is the mean of the leaves k 2**s to
        (k + 1) 2**s - 1 of bank s, see `average_blocks`.
    """
    return _climb(bank, "neighbours", seed, match_weights)[0]


def average_blocks(aligned: Bank, size: int) -> Bank:
    """The means of ``size`` networks after one another, as nodes of a tree."""
    blocks = [aligned.select(slice(start, start + size)) for start in range(0, len(aligned), size)]
    tensors = {key: average(tensor, size) for key, tensor in aligned.tensors.items()}
    columns = [merged_labels(block) | {"method": "tree"} for block in blocks]
    labels = {name: np.concatenate([np.atleast_1d(column[name]) for column in columns]) for name in columns[0]}
    return Bank(aligned.architecture, tensors, labels)


def _climb(bank: Bank, pairing: str, seed: Seed, match: Match) -> tuple[list[Bank], int]:
    """Aligned leaves by stage, and the most sweeps that a matching took."""
    if len(bank) < 2 or len(bank) & (len(bank) - 1):
        raise ValueError(f"a tree needs 2**k networks, got {len(bank)}")
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {PAIRINGS}, got {pairing!r}")
    sweeps, leaves, stages = 0, bank, [bank]
    nodes = [[leaf] for leaf in range(len(bank))]  # the leaves of each node
    while len(nodes) > 1:
        means = _means(leaves, nodes)
        pairs = _pairs(means, pairing, f"{seed}/{place_of(bank)}/{len(nodes)}")
        first, second = (means.select([pair[side] for pair in pairs]) for side in (0, 1))
        step = int(np.log2(len(bank) // len(nodes))) + 1
        # the streams that `merge_pairs` names, so that neighbours give the paper's tree
        group, stage, node = (int(bank.labels[name][0]) for name in ("group", "stage", "node"))
        names = [f"{seed}/group-{group}/stage-{stage + step}/node-{(node >> step) + n}" for n in range(len(pairs))]
        alignment = match(first, second, seed=names)
        sweeps = max(sweeps, int(alignment.sweeps.max()))
        leaves = _move(leaves, {n: nodes[pair[1]] for n, pair in enumerate(pairs)}, alignment)
        nodes = [nodes[a] + nodes[b] for a, b in pairs]
        stages.append(leaves)
    return stages, sweeps


def _move(leaves: Bank, moved: dict[int, list[int]], alignment: Alignment) -> Bank:
    """The leaves with those under the second network of each pair permuted with it."""
    where = [leaf for under in moved.values() for leaf in under]
    pair = [n for n, under in moved.items() for _ in under]
    order = {name: perm[pair] for name, perm in alignment.permutations.items()}
    permuted = leaves.architecture.symmetry.apply(leaves.select(where).tensors, order)
    tensors = {key: tensor.clone() for key, tensor in leaves.tensors.items()}
    for key, tensor in tensors.items():
        tensor[where] = permuted[key]
    return Bank(leaves.architecture, tensors, leaves.labels)


def _means(leaves: Bank, nodes: Sequence[Sequence[int]]) -> Bank:
    return Bank.concat([average_aligned(leaves.select(node), "mean") for node in nodes])


def _pairs(means: Bank, pairing: str, name: str) -> list[tuple[int, int]]:
    n = len(means)
    if pairing == "nearest":
        every = [(a, b) for a in range(n) for b in range(a + 1, n)]
        first, second = (means.select([pair[side] for pair in every]) for side in (0, 1))
        aligned = match_weights(first, second, seed=[f"{name}/{a}-{b}" for a, b in every]).apply(second)
        return _greedy(every, squared_distances(first, aligned).tolist())
    order = torch.randperm(n, generator=generator(f"pairs/{name}")).tolist() if pairing == "random" else list(range(n))
    return list(zip(order[::2], order[1::2], strict=True))


def _greedy(pairs: Sequence[tuple[int, int]], distances: Sequence[float]) -> list[tuple[int, int]]:
    """The closest pair, then the closest of those left, and so on."""
    free, chosen = {network for pair in pairs for network in pair}, []
    for _, (a, b) in sorted(zip(distances, pairs, strict=True)):
        if {a, b} <= free:
            free -= {a, b}
            chosen.append((a, b))
    return chosen
