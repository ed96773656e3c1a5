"""The aligned networks that MergeMany averages: after several numbers of sweeps, and started from where a tree ends."""

from collections.abc import Sequence

from ..bank import Bank, check_finite
from ..random_streams import Seed
from .averages import Aligned, aligned_by
from .distances import CONVERGENCE
from .many import MergeManyRun
from .tree import align_tree


def align_many_by_sweeps(bank: Bank, limits: Sequence[int], seed: Seed = 0) -> tuple[Bank, list[Bank]]:
    """What `merge_many` gives for several limits of its sweeps, and for each the networks as it averages them."""
    check_finite(bank, "MergeMany")
    run, orders = MergeManyRun(bank, list(limits), seed, 1), {}
    while run.model is not None:
        run.realign()
        orders.setdefault(run.sweeps, {name: perm.clone() for name, perm in run.permutations.items()})
    symmetry, aligned = bank.architecture.symmetry, []
    for limit in limits:  # of a sweep that changed nothing, the state is the last one
        permuted = symmetry.apply(bank.tensors, orders.get(limit, run.permutations))
        aligned.append(Bank(bank.architecture, permuted, bank.labels))
    return run.result(), aligned


def align_many(bank: Bank, seed: Seed = 0) -> Aligned:
    """The networks as converged MergeMany averages them."""
    merged, [aligned] = align_many_by_sweeps(bank, [CONVERGENCE], seed)
    return aligned_by(aligned, int(merged.history.sweeps_done[0]))


def align_many_from_tree(bank: Bank, seed: Seed = 0) -> Aligned:
    """The networks as MergeMany averages them that starts from the alignment that the tree ends with, not from none."""
    return align_many(align_tree(bank, seed=seed)[-1], seed)
