"""Ablations on pairs of unmerged networks: lines before and after matching, and which network is permuted."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from ..bank import Bank
from ..evaluation import accuracy
from ..images.sources import Images
from ..matching.weights import match_weights
from ..random_streams import Seed
from .path import barrier, paths
from .tree import merge_pairs


def pairs_of(bank: Bank, n: int) -> tuple[Bank, Bank]:
    """The first and the second networks of ``n`` pairs of each group.

    Neighbours (0, 1), (2, 3), ... come first, as in the tree; then (0, 2), (1, 3), ..., then (0, 3), ... and so on.
    """
    first, second = [], []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = np.flatnonzero(bank.labels["group"] == group)
        size = len(members)
        rounds = [(i, i + 1) for i in range(0, size - 1, 2)]
        rounds += [(i, i + gap) for gap in range(2, size) for i in range(size - gap)]
        if n > len(rounds):
            raise ValueError(f"{n} pairs asked for, {size} networks have {len(rounds)} here")
        first += [members[i] for i, _ in rounds[:n]]
        second += [members[j] for _, j in rounds[:n]]
    return bank.select(first), bank.select(second)


def lines(
    first: Bank,
    second: Bank,
    images: Mapping[str, Images],
    lambdas: Sequence[float],
    *,
    seed: Seed,
    device: str = "cpu",
    pixels: torch.Tensor | None = None,
) -> xr.Dataset:
    """Accuracy and loss on the line between the networks of each pair, before and after matching.

    Args:
        first, second: the pairs; the second is matched to the first.
        images: a data set for each split, such as ``{"train": ..., "test": ...}``.
        lambdas: weights of the second network, with 0 and 1.
        seed: of the layer orders of matching.
        device: where to evaluate.
        pixels: training images (image, channel, y, x), which batch norm is measured on anew at every point.

    Returns:
        ``loss`` and ``accuracy`` (pair, alignment, split, lambda), ``loss_barrier`` and ``accuracy_barrier`` (pair,
        alignment, split).
    """
    first, second = first.to(device), second.to(device)
    aligned = match_weights(first, second, seed=_names(first, second, seed)).apply(second)
    by_alignment = []
    for other in (second, aligned):
        curves = list(paths(first, other, images.values(), lambdas, pixels=pixels))
        by_alignment.append(_along("split", images, curves))
    curves = _along("alignment", ("before", "after"), by_alignment)
    return _over_pairs(xr.merge([curves, barrier(curves)], compat="identical"), first, second)


def permutation_choice(
    first: Bank,
    second: Bank,
    images: Images,
    *,
    seed: Seed,
    device: str = "cpu",
    pixels: torch.Tensor | None = None,
) -> xr.Dataset:
    """Accuracy of the merged pair when the first or the second network is permuted.

    With the same layer order both choices solve transposed problems, so the merged networks are one another's
    permutation and differ only where assignments tie. ``order="other"`` draws an independent layer order.

    Returns:
        ``choice_accuracy`` (pair, permuted, order).
    """
    interleaved = Bank.concat([first, second]).select(np.arange(2 * len(first)).reshape(2, -1).T.ravel())
    # every pair its own stream: merge_pairs names it after group and node
    interleaved = interleaved.relabel(node=np.arange(len(interleaved)))
    results = []
    for order in ("same", "other"):
        by_choice = []
        for permuted in ("first", "second"):
            stream = f"{seed}/{order}/{permuted}" if order == "other" else f"{seed}/{order}"
            merged = merge_pairs(interleaved, seed=stream, permute=permuted, pixels=pixels)
            by_choice.append(accuracy(merged, images, device=device).rename("choice_accuracy"))
        results.append(_along("permuted", ("first", "second"), by_choice))
    joined = _along("order", ("same", "other"), results)
    joined.attrs = {"long_name": "accuracy of the merged pair", "units": "1"}
    return _over_pairs(joined.transpose("model", "permuted", "order").to_dataset(), first, second)


def _names(first: Bank, second: Bank, seed: Seed) -> list[str]:
    return [f"{seed}/{a}-{b}" for a, b in zip(first.labels["seed"], second.labels["seed"], strict=True)]


def _along(name: str, values: Iterable[str], parts: Sequence):
    """The parts joined along a new dimension."""
    axis = xr.Variable(name, np.array(list(values), dtype=object), {"long_name": name, "units": "1"})
    return xr.concat(parts, dim=axis, coords="minimal", compat="override")


def _over_pairs(dataset: xr.Dataset, first: Bank, second: Bank) -> xr.Dataset:
    """The ``model`` dimension renamed to ``pair`` with what identifies a pair."""
    bare = dataset.drop_vars([name for name in dataset.coords if dataset[name].dims == ("model",)])
    columns = {
        "group": (first.labels["group"], "tree that both networks belong to"),
        "first": (first.labels["seed"], "seed of the first network"),
        "second": (second.labels["seed"], "seed of the second network"),
    }
    coords = {name: ("pair", values, {"long_name": text, "units": "1"}) for name, (values, text) in columns.items()}
    names = np.array(_names(first, second, "pair"), dtype=object)
    coords["pair"] = xr.Variable("pair", names, {"long_name": "pair of networks, by seeds", "units": "1"})
    return bare.rename(model="pair").assign_coords(coords).transpose("pair", ...)
