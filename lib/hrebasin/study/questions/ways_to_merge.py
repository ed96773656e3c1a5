"""Other ways to merge many networks: a star, a fold, trees of other pairs, and MergeMany from where a tree ends."""

from collections.abc import Callable, Sequence

import xarray as xr

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.averages import merge_fold, merge_naive, merge_star
from ...merging.many import merge_many_from_tree, merge_many_sets
from ...merging.tree import merge_paired_tree
from ...random_streams import Seed


def compare_mergers(
    bank: Bank, images: Images, *, sizes: Sequence[int], limits: Sequence[int], orders: int, seed: Seed = 0
) -> xr.Dataset:
    """Every way to merge the same networks: a data set of stage ``mergers``, see `hrebasin.study.records.schemas.SCHEMAS`.

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
