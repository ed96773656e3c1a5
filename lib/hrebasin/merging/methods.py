"""Merge methods by name: what `register` adds is run by the notebooks, attacked, measured and drawn as any other.

At the end of this file a method takes part in every run; registered in a notebook, in that notebook. A method is a
function of the networks to merge, a `Bank`, and of a seed; it gives a bank of one network:

>>> register("halved", lambda bank, seed: merge_naive(bank.select([0, 1])), title="mean of the first two")
>>> of_every_run(), added()
(['naive', 'merge-many-from-tree', 'halved'], ['halved'])
>>> unregister("halved")
"""

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch  # noqa: F401 - at hand for methods that are added at the end

from ..bank import Bank
from ..checks import check_bank
from ..matching.weights import match_weights
from ..random_streams import Seed
from .aligned_many import align_many, align_many_from_tree
from .averages import Aligned, align_fold, align_star, align_transport, merge_naive
from .cycle_consistent import align_cycle_consistent
from .distances import with_history
from .looks import BUILT_IN, ENSEMBLE, LOOKS, RIVALS, SPARE
from .many import largest_first, merge_many, merge_many_sets
from .method import NEEDS, Method, TrainingImages, parts_of
from .tree import align_by_activations, align_paired_tree, align_straight_through, align_tree, merge_tree

OF_EVERY_RUN = ("naive", "merge-many-from-tree")  # beside the tree and MergeMany, which notebooks call themselves


MERGES: dict[str, Method] = {
    method.name: method
    for method in [
        Method("tree", lambda bank, seed: merge_tree(bank, seed=seed)[-1],
               align=lambda bank, seed: Aligned(align_tree(bank, seed=seed)[-1], 0), trees=True),
        Method("merge-many", lambda bank, seed: merge_many(bank, seed=seed), align=align_many),
        Method("naive", lambda bank, seed: merge_naive(bank), align=lambda bank, seed: Aligned(bank, 0), draws=False),
        Method("merge-many-from-tree", align_many_from_tree, trees=True),
        Method("star", align_star),
        Method("fold", align_fold),
        Method("tree-random", partial(align_paired_tree, pairing="random"), trees=True),
        Method("tree-nearest", partial(align_paired_tree, pairing="nearest"), trees=True),
        Method("cycle-consistent", align_cycle_consistent, draws=False),
        Method("activations", align_by_activations, needs="pixels", trees=True, draws=False),
        Method("correlations", partial(align_by_activations, correlated=True), needs="pixels", trees=True, draws=False),
        Method("ot-fusion", align_transport, draws=False),
        Method("straight-through", align_straight_through, needs="labels", trees=True),
    ]
}  # fmt: skip


def method_named(name: str) -> Method:
    """A method of `MERGES`.

    Raises:
        ValueError: there is none. The ensemble is none: it makes no network of the same architecture.
    """
    if name == ENSEMBLE[0]:
        raise ValueError(
            "an ensemble keeps all networks, so no method merges into one: hrebasin.ensemble(bank) runs them as one "
            "module, and hrebasin.merging.distillation.distilled teaches that to a merged network"
        )
    if not isinstance(name, str) or name not in MERGES:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(MERGES)}")
    return MERGES[name]


def register(
    name: str, merge: Callable[..., Bank | Aligned], *, title: str = "", colour: str = "", needs: str = ""
) -> None:
    """Add a merge method, or replace one that was added before.

    Args:
        name: its label ``method`` in data sets: small letters, digits and hyphens.
        merge: takes the networks to merge and a seed, gives a bank of one network of the same architecture, or
            `hrebasin.merging.averages.Aligned` ones to be averaged. With `hrebasin.merging.distances.HISTORY` where it
            has some; its time is measured here.
        title: its name in figures; by default the same.
        colour: in figures, such as ``"#A89048"``; by default one that no other method has.
        needs: training images that it takes by name: ``"pixels"`` (image, ...), or ``"labels"`` for these and labels.

    Raises:
        ValueError: a name that is no label or belongs to a method of the library, a colour that is taken or none, or
            another need.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"a method's name is made of small letters, digits and hyphens, got {name!r}")
    if name in (*BUILT_IN, *RIVALS, ENSEMBLE[0]):
        raise ValueError(f"{name!r} is a method of the library; give yours another name")
    if needs not in NEEDS:
        raise ValueError(f"a method needs one of {list(NEEDS)}, got {needs!r}")
    if colour and not re.fullmatch("#[0-9A-Fa-f]{6}", colour):
        raise ValueError(f"the colour of {name!r} must be like '#A89048', got {colour!r}")
    others = {other: used for other, (_, used) in LOOKS.items() if other != name}
    spare = [candidate for candidate in SPARE if candidate not in others.values()]
    if not colour and not spare:
        raise ValueError(f"no colour is left for {name!r}; name one that is none of {sorted(others.values())}")
    colour = (colour or spare[0]).upper()
    if taken := [other for other, used in others.items() if used == colour]:
        raise ValueError(f"colour {colour} of {name!r} is that of {taken[0]!r} already")
    MERGES[name] = Method(name, merge, needs=needs)
    LOOKS[name] = title or name, colour


def unregister(name: str) -> None:
    """Forget a method that was added."""
    if name not in added():
        raise ValueError(f"{name!r} was not registered; registered are {added()}")
    del MERGES[name], LOOKS[name]


def added() -> list[str]:
    """Names of the methods that were registered."""
    return [name for name in MERGES if name not in BUILT_IN and name not in RIVALS]


def of_every_run() -> list[str]:
    """Names of the methods that merge the sets of every run, beside the tree and MergeMany."""
    return [*OF_EVERY_RUN, *added()]


def match_to_first(bank: Bank, *, seed: Seed = 0) -> Bank:
    """The same networks, their hidden units in the order of the first one's: what many methods start with."""
    return match_weights(bank.select([0] * len(bank)), bank, seed=seed).apply(bank)


def merge_sets(
    sets: Sequence[Bank],
    names: Sequence[str],
    *,
    seed: Seed = 0,
    images: TrainingImages | None = None,
    repaired: bool = False,
) -> list[Bank]:
    """What each method makes of each set of networks that it takes, method by method; side by side on CPU threads.

    Args:
        sets: of networks.
        names: of methods in `MERGES`.
        seed, images, repaired: as of `Method.__call__`. Methods that need more of images than there is are left out,
            with a warning.

    Raises:
        ValueError: an unknown method.
    """
    methods = [method_named(name) for name in names]
    if without := {method.name: method.lacks(images) for method in methods if method.lacks(images)}:
        told = ", ".join(f"{name} (which needs {' and '.join(lacked)})" for name, lacked in without.items())
        warnings.warn(f"left out for want of training images: {told}", stacklevel=2)
    able = [method for method in methods if method.name not in without]
    work = [(method, some) for method in able for some in sets if method.takes(len(some))]

    def merge(method: Method, some: Bank) -> Bank:
        return method(some, seed, images, repaired=repaired)

    return largest_first(merge, work, [len(some) for _, some in work])


def merge_all(bank: Bank, *, seed: Seed = 0, images: TrainingImages | None = None) -> Bank:
    """The networks of a group and what every method makes of them.

    The tree takes the first 2^k networks; MergeMany (to convergence) and all methods `of_every_run` take the first 2,
    4, 8, ... and all networks, where they can.

    Args:
        bank: at least two networks of one group.
        seed: of the orders of layers and networks.
        images: as of `Method.__call__`; batch norm is measured anew on them, and methods may need their labels.

    Returns:
        One bank, the networks as they are first; with the variables of `hrebasin.merging.distances.HISTORY`.
    """
    check_bank(bank)
    if len(bank) < 2 or len(set(bank.labels["group"])) > 1:
        groups = sorted(set(bank.labels["group"]))
        raise ValueError(f"merging needs at least 2 networks of one group, got {len(bank)} of the groups {groups}")
    pixels = parts_of(images)["pixels"]
    stages = int(np.log2(len(bank)))
    tree = merge_tree(bank.select(slice(2**stages)), seed=seed, pixels=pixels)[1:]
    sizes = sorted({2**stage for stage in range(1, stages + 1)} | {len(bank)})
    sets = [bank.select(slice(size)) for size in sizes]
    merged = merge_many_sets(sets, seeds=[seed] * len(sets), pixels=pixels)
    merged += merge_sets(sets, of_every_run(), seed=seed, images=images)
    # All networks, where they are no power of two, stand beside a smaller set of the same stage.
    merged = [one.relabel(node=int((n := int(one.labels["n_merged"][0])) & (n - 1) > 0)) for one in merged]
    nothing = np.zeros(len(bank))
    unmerged = with_history(bank, nothing, nothing.astype(int), nothing + 1, nothing)
    return Bank.concat([unmerged, *tree, *merged])
