"""Other ways to merge many networks: a star, a fold, trees of other pairs, and MergeMany from where a tree ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from .bank import Bank
from .history import merged_labels, pairwise_distance, squared_distances, squared_norms, with_history
from .matching import Alignment, match_weights
from .merging import CONVERGENCE, merge_many
from .seeding import Seed, generator

PAIRINGS = ("neighbours", "random", "nearest")


def merge_star(bank: Bank, *, seed: Seed = 0) -> Bank:
    """Align every network to the first one; the mean of all: a bank of one network, method ``star``."""
    start = time.perf_counter()
    reference, moving = bank.select([0] * (len(bank) - 1)), bank.select(slice(1, None))
    names = [f"{seed}/star/{_place(bank)}/model-{number}" for number in range(1, len(bank))]
    alignment = match_weights(reference, moving, seed=names)
    aligned = Bank.concat([bank.select([0]), alignment.apply(moving)])
    return _mean(aligned, "star", int(alignment.sweeps.max()), start)


def merge_fold(bank: Bank, *, seed: Seed = 0) -> Bank:
    """Align each network in turn to the mean of those before it: a bank of one network, method ``fold``."""
    start, sweeps, aligned = time.perf_counter(), 0, bank.select([0])
    for number in range(1, len(bank)):
        mean = _mean(aligned, "fold", 0, start)
        alignment = match_weights(mean, bank.select([number]), seed=f"{seed}/fold/{_place(bank)}/model-{number}")
        aligned = Bank.concat([aligned, alignment.apply(bank.select([number]))])
        sweeps = max(sweeps, int(alignment.sweeps.max()))
    return _mean(aligned, "fold", sweeps, start)


def merge_paired_tree(bank: Bank, *, pairing: str = "neighbours", seed: Seed = 0) -> Bank:
    """The top of a tree whose pairs are chosen anew at every stage: a bank of one network.

    Args:
        bank: 2**k networks, one tree.
        pairing: ``"neighbours"`` (the paper's, in seed order), ``"random"``, or ``"nearest"``: again and again the two
            networks that are closest once aligned.
        seed: of layer orders and random pairs.

    Returns:
        Method ``tree`` for neighbours, else ``tree-random`` or ``tree-nearest``.
    """
    return _mean(*_climb(bank, pairing, seed))


def merge_many_from_tree(bank: Bank, *, max_sweeps: int = CONVERGENCE, seed: Seed = 0) -> Bank:
    """MergeMany that starts from the alignment that the tree ends with, in place of none."""
    start = time.perf_counter()
    aligned = _climb(bank, "neighbours", seed)[0]
    merged = merge_many(aligned, max_sweeps=max_sweeps, seed=seed).relabel(method="merge-many-from-tree")
    seconds = merged.history.seconds.copy(data=[time.perf_counter() - start])
    return replace(merged, history=merged.history.assign(seconds=seconds))


def align_tree(bank: Bank, *, seed: Seed = 0) -> Bank:
    """The leaves of a tree in the order of units in which the tree averages them; their mean is its top.

    Args:
        bank: 2**k networks, one tree, merged as `hrebasin.merging.merge_tree` does.
        seed: of the layer orders.
    """
    return _climb(bank, "neighbours", seed)[0]


def _climb(bank: Bank, pairing: str, seed: Seed) -> tuple[Bank, str, int, float]:
    """Aligned leaves, the name of the method, the most sweeps of a matching, and when it started."""
    if len(bank) < 2 or len(bank) & (len(bank) - 1):
        raise ValueError(f"a tree needs 2**k networks, got {len(bank)}")
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {PAIRINGS}, got {pairing!r}")
    start, sweeps, leaves = time.perf_counter(), 0, bank
    nodes = [[leaf] for leaf in range(len(bank))]  # the leaves of each node
    while len(nodes) > 1:
        means = _means(leaves, nodes)
        pairs = _pairs(means, pairing, f"{seed}/{_place(bank)}/{len(nodes)}")
        first, second = (means.select([pair[side] for pair in pairs]) for side in (0, 1))
        stage = int(np.log2(len(bank) // len(nodes))) + 1
        # the streams that `merge_pairs` names, so that neighbours give the paper's tree
        names = [f"{seed}/group-{bank.labels['group'][0]}/stage-{stage}/node-{n}" for n in range(len(pairs))]
        alignment = match_weights(first, second, seed=names)
        sweeps = max(sweeps, int(alignment.sweeps.max()))
        leaves = _move(leaves, {n: nodes[pair[1]] for n, pair in enumerate(pairs)}, alignment)
        nodes = [nodes[a] + nodes[b] for a, b in pairs]
    return leaves, "tree" if pairing == "neighbours" else f"tree-{pairing}", sweeps, start


def _move(leaves: Bank, moved: dict[int, list[int]], alignment: Alignment) -> Bank:
    """The leaves with those under the second network of each pair permuted with it."""
    where = [leaf for under in moved.values() for leaf in under]
    pair = [n for n, under in moved.items() for _ in under]
    each = Alignment(
        {name: perm[pair] for name, perm in alignment.permutations.items()},
        alignment.objective[pair],
        alignment.sweeps[pair],
    )
    permuted = each.apply(leaves.select(where))
    tensors = {}
    for key, tensor in leaves.tensors.items():
        tensors[key] = tensor.clone()
        tensors[key][where] = permuted.tensors[key]
    return Bank(leaves.architecture, tensors, leaves.labels)


def _means(leaves: Bank, nodes: Sequence[Sequence[int]]) -> Bank:
    return Bank.concat([_mean(leaves.select(node), "mean", 0, 0.0) for node in nodes])


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


def _place(bank: Bank) -> str:
    return f"group-{bank.labels['group'][0]}/node-{bank.labels['node'][0]}"


def _mean(aligned: Bank, method: str, sweeps: int, start: float) -> Bank:
    """The mean of aligned networks, with the variables of `hrebasin.history.HISTORY`."""
    tensors = {key: tensor.mean(0, keepdim=True) for key, tensor in aligned.tensors.items()}
    merged = Bank(aligned.architecture, tensors, merged_labels(aligned) | {"method": method})
    distance = pairwise_distance(squared_norms(aligned)[None], merged)
    return with_history(merged, distance, [sweeps], [sweeps < CONVERGENCE], [time.perf_counter() - start])


# name of a method -> function of the networks (one group) and a seed
MERGERS: dict[str, Callable[..., Bank]] = {
    "star": merge_star,
    "fold": merge_fold,
    "tree-random": lambda bank, *, seed=0: merge_paired_tree(bank, pairing="random", seed=seed),
    "tree-nearest": lambda bank, *, seed=0: merge_paired_tree(bank, pairing="nearest", seed=seed),
    "merge-many-from-tree": merge_many_from_tree,
}
