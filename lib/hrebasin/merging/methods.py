"""Merge methods by name: what `register` adds is run by the notebooks, attacked, measured and drawn as any other.

At the end of this file a method takes part in every run; registered in a notebook, in that notebook. A method is a
function of the networks to merge, a `Bank`, and of a seed; it gives a bank of one network:

>>> register("halved", lambda bank, seed: merge_naive(bank.select([0, 1])), title="mean of the first two")
>>> list(MERGES), added()
(['naive', 'halved'], ['halved'])
>>> unregister("halved")
"""

import re
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ..bank import Bank
from ..matching.weights import match_weights
from ..random_streams import Seed
from .averages import merge_naive
from .batch_norm import finished
from .distances import HISTORY, merged_labels, with_history
from .looks import LOOKS, PAPER, SPARE
from .many import merge_many_sets
from .tree import merge_tree

Merge = Callable[[Bank, Seed], Bank]

# Methods that merge a set of networks at once. The tree, which gives every stage, and MergeMany, whose sweeps are
# limited, have more to say than one network, so notebooks call them themselves.
MERGES: dict[str, Callable[..., Bank]] = {"naive": lambda bank, seed, pixels=None: merge_naive(bank, pixels=pixels)}


def register(name: str, merge: Merge, *, title: str = "", colour: str = "") -> None:
    """Add a merge method, or replace one that was added before.

    Args:
        name: its label ``method`` in data sets: small letters, digits and hyphens.
        merge: takes the networks to merge and a seed, gives a bank of one network of the same architecture. With
            `hrebasin.merging.distances.HISTORY` where it has some; its time is measured here.
        title: its name in figures; by default the same.
        colour: in figures, such as ``"#A89048"``; by default one that no other method has.

    Raises:
        ValueError: a name that is no label or belongs to a method of the paper, a colour that is taken or none.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"a method's name is made of small letters, digits and hyphens, got {name!r}")
    if name in PAPER:
        raise ValueError(f"{name!r} is a method of the paper; give yours another name")
    if colour and not re.fullmatch("#[0-9A-Fa-f]{6}", colour):
        raise ValueError(f"the colour of {name!r} must be like '#A89048', got {colour!r}")
    others = {other: used for other, (_, used) in LOOKS.items() if other != name}
    spare = [candidate for candidate in SPARE if candidate not in others.values()]
    if not colour and not spare:
        raise ValueError(f"no colour is left for {name!r}; name one that is none of {sorted(others.values())}")
    colour = (colour or spare[0]).upper()
    if taken := [other for other, used in others.items() if used == colour]:
        raise ValueError(f"colour {colour} of {name!r} is that of {taken[0]!r} already")
    MERGES[name] = partial(_merge, name, merge)
    LOOKS[name] = title or name, colour


def unregister(name: str) -> None:
    """Forget a method that was added."""
    if name not in added():
        raise ValueError(f"{name!r} was not registered; registered are {added()}")
    del MERGES[name], LOOKS[name]


def match_to_first(bank: Bank, *, seed: Seed = 0) -> Bank:
    """The same networks, their hidden units in the order of the first one's: what many methods start with."""
    return match_weights(bank.select([0] * len(bank)), bank, seed=seed).apply(bank)


def _merge(name: str, merge: Merge, bank: Bank, seed: Seed, pixels: torch.Tensor | None = None) -> Bank:
    """Merge with a method that was added, check what it gives, and label it."""
    start = time.perf_counter()
    merged = merge(bank, seed)
    seconds = time.perf_counter() - start
    if not isinstance(merged, Bank) or len(merged) != 1 or merged.architecture != bank.architecture:
        raise ValueError(f"method {name!r} must give one network of {bank.architecture.title}, got {merged!r}")
    for parameter, tensor in merged.tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"method {name!r}: {parameter} holds weights that are not finite")
    labelled = finished(Bank(bank.architecture, merged.tensors, merged_labels(bank) | {"method": name}), pixels)
    history = merged.history
    if history is None or not set(HISTORY) <= set(history):
        return with_history(labelled, [np.nan], [0], [True], [seconds])
    known = (history[column].values for column in ("pairwise_distance", "sweeps_done", "converged"))
    return with_history(labelled, *known, [seconds])


def merge_all(bank: Bank, *, seed: Seed = 0, pixels: torch.Tensor | None = None) -> Bank:
    """The networks of a group and what every method makes of them.

    The tree takes the first 2^k networks; MergeMany (to convergence) and all methods in `MERGES` take the first 2, 4,
    8, ... and all networks.

    Args:
        bank: at least two networks of one group.
        seed: of the orders of layers and networks.
        pixels: training images (image, channel, y, x), which batch norm is measured on anew.

    Returns:
        One bank, the networks as they are first; with the variables of `hrebasin.merging.distances.HISTORY`.
    """
    if len(bank) < 2 or len(set(bank.labels["group"])) > 1:
        groups = sorted(set(bank.labels["group"]))
        raise ValueError(f"merging needs at least 2 networks of one group, got {len(bank)} of the groups {groups}")
    stages = int(np.log2(len(bank)))
    tree = merge_tree(bank.select(slice(2**stages)), seed=seed, pixels=pixels)[1:]
    sizes = sorted({2**stage for stage in range(1, stages + 1)} | {len(bank)})
    sets = [bank.select(slice(size)) for size in sizes]
    by_method = [merge_many_sets(sets, seeds=[seed] * len(sets), pixels=pixels)]
    by_method += [[merge(members, seed, pixels) for members in sets] for merge in MERGES.values()]
    # All networks, where they are no power of two, stand beside a smaller set of the same stage.
    places = [int(size & (size - 1) > 0) for size in sizes]
    merged = [one.relabel(node=place) for row in by_method for one, place in zip(row, places, strict=True)]
    nothing = np.zeros(len(bank))
    unmerged = with_history(bank, nothing, nothing.astype(int), nothing + 1, nothing)
    return Bank.concat([unmerged, *tree, *merged])


def added() -> list[str]:
    """Names of the methods that were registered."""
    return [name for name in MERGES if name not in PAPER]
