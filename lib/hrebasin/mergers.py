"""Other ways to merge many networks: a star, a fold, trees of other pairs, and MergeMany from where a tree ends."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from .bank import Bank
from .evaluation import evaluate
from .history import merged_labels, pairwise_distance, squared_distances, squared_norms, with_history
from .images import Images
from .matching import Alignment, match_weights
from .merging import CONVERGENCE, merge_many, merge_many_sets, merge_naive
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
    start = time.perf_counter()
    stages, sweeps = _climb(bank, pairing, seed)
    method = "tree" if pairing == "neighbours" else f"tree-{pairing}"
    return _mean(stages[-1], method, sweeps, start)


def merge_many_from_tree(bank: Bank, *, max_sweeps: int = CONVERGENCE, seed: Seed = 0) -> Bank:
    """MergeMany that starts from the alignment that the tree ends with, in place of none."""
    start = time.perf_counter()
    merged = merge_many(align_tree(bank, seed=seed)[-1], max_sweeps=max_sweeps, seed=seed).relabel(
        method="merge-many-from-tree"
    )
    seconds = merged.history.seconds.copy(data=[time.perf_counter() - start])
    return replace(merged, history=merged.history.assign(seconds=seconds))


def align_tree(bank: Bank, *, seed: Seed = 0) -> list[Bank]:
    """The leaves of a tree with their units in the order in which each stage averages them.

    Args:
        bank: 2**k networks, one tree, merged as `hrebasin.merging.merge_tree` does.
        seed: of the layer orders.

    Returns:
        One bank of all leaves a stage, stage 0 (as given) first. Node k of stage s is the mean of the leaves k 2**s to
        (k + 1) 2**s - 1 of bank s, see `average_blocks`.
    """
    return _climb(bank, "neighbours", seed)[0]


def average_blocks(aligned: Bank, size: int) -> Bank:
    """The means of ``size`` networks after one another, as nodes of a tree."""
    blocks = [aligned.select(slice(start, start + size)) for start in range(0, len(aligned), size)]
    tensors = {key: tensor.unflatten(0, (-1, size)).mean(1) for key, tensor in aligned.tensors.items()}
    columns = [merged_labels(block) | {"method": "tree"} for block in blocks]
    labels = {name: np.concatenate([np.atleast_1d(column[name]) for column in columns]) for name in columns[0]}
    return Bank(aligned.architecture, tensors, labels)


def _climb(bank: Bank, pairing: str, seed: Seed) -> tuple[list[Bank], int]:
    """Aligned leaves by stage, and the most sweeps that a matching took."""
    if len(bank) < 2 or len(bank) & (len(bank) - 1):
        raise ValueError(f"a tree needs 2**k networks, got {len(bank)}")
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing must be one of {PAIRINGS}, got {pairing!r}")
    sweeps, leaves, stages = 0, bank, [bank]
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
        stages.append(leaves)
    return stages, sweeps


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


def compare_mergers(
    bank: Bank, images: Images, *, sizes: Sequence[int], limits: Sequence[int], orders: int, seed: Seed = 0
) -> xr.Dataset:
    """Every way to merge the same networks: a data set of stage ``mergers``, see `hrebasin.records.SCHEMAS`.

    Args:
        bank: unmerged networks of some groups.
        images: to be accurate on.
        sizes: how many networks of each group are merged, its first ones; powers of two.
        limits: of MergeMany's sweeps; the largest one stands for convergence.
        orders: draws of MergeMany's orders, which are numbered in ``order``; the first is the one of other stages.
        seed: of all orders.
    """
    merged = []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = bank.where(group=group)
        for size in sizes:
            some = members.select(slice(size))
            merged += [merge_naive(some), merge_paired_tree(some, seed=seed)]
            merged += [merge(some, seed=seed) for merge in MERGERS.values()]
            seeds = [seed, *(f"{seed}/order-{order}" for order in range(1, orders))]
            for order, many in enumerate(merge_many_sets([some] * orders, limits=limits, seeds=seeds)):
                merged.append(many.relabel(node=order))
    everything = Bank.concat(merged)
    scores = evaluate(everything, images).rename(accuracy="test_accuracy", loss="test_loss")
    history = everything.history.reset_coords(drop=True).assign_coords(scores.coords)
    order = everything.array(everything.labels["node"], name="order", long_name="draw of the orders", units="1")
    return xr.merge([scores, history, order.to_dataset()], compat="identical", combine_attrs="override")


# name of a method -> function of the networks (one group) and a seed
MERGERS: dict[str, Callable[..., Bank]] = {
    "star": merge_star,
    "fold": merge_fold,
    "tree-random": lambda bank, *, seed=0: merge_paired_tree(bank, pairing="random", seed=seed),
    "tree-nearest": lambda bank, *, seed=0: merge_paired_tree(bank, pairing="nearest", seed=seed),
    "merge-many-from-tree": merge_many_from_tree,
}
