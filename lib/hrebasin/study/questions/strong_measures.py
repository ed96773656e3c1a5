"""What the question of strong attacks measures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr

from ...bank import Bank
from ...evaluation import accuracy
from ...images.sources import Images
from ...merging.distances import CONVERGENCE
from ...robustness.attacks import along, attack
from ...robustness.square import QUERIES, square
from ...robustness.strong import LOSSES, RESTARTS, STEPS, pgd, transferred
from ..groups import strong

SOURCE_SEED = 1_000_000  # of the network that images are transferred from, far from all seeds of trees
FLOAT32 = "fgsm-float32"


def chosen(bank: Bank, images: Images, networks: int) -> Bank:
    """The networks that strong attacks are tried on.

    Args:
        bank: trees with whatever else a run has.
        images: to be accurate on.
        networks: of each stage and method, the first ones; of MergeMany those that converged. L2-regularised networks
            are all taken, and of early-stopped ones for each stage those nearest to its first node in accuracy.
    """
    labels, right = bank.labels, accuracy(bank, images).values
    kept = np.isin(labels["method"], ["unmerged", "tree"]) & (labels["node"] < networks)
    kept |= (labels["method"] == "merge-many") & (labels["node"] < networks) & (labels["sweeps"] == CONVERGENCE)
    kept |= labels["method"] == "l2"
    stopped = (labels["method"] == "stopped") & (labels["node"] < networks)
    for k in np.flatnonzero((labels["method"] == "tree") & (labels["node"] == 0)):
        for node in range(networks):
            near = np.flatnonzero(stopped & (labels["group"] == labels["group"][k]) & (labels["node"] == node))
            kept[near[np.abs(right[near] - right[k]).argsort()[:2]]] = True  # on either side, mostly
    return replace(bank.select(kept), history=None)


def last_stage(bank: Bank) -> Bank:
    """The network that the first tree of a bank ends in."""
    trees = bank.where(method="tree")
    return trees.where(stage=int(trees.labels["stage"].max())).select(slice(1))


def measure(
    bank: Bank,
    images: Images,
    *,
    epsilons: Sequence[float],
    sources: Mapping[str, Bank],
    steps: int = STEPS,
    restarts: int = RESTARTS,
    queries: int = QUERIES,
    device: str = "cpu",
) -> xr.Dataset:
    """Strong attacks as one data set of stage ``strong``.

    ``worst`` counts an image as robust that no attack breaks, those with images of another network included.

    Args:
        bank, epsilons, steps, restarts, device: as in `hrebasin.robustness.strong.pgd`.
        images: that are attacked.
        sources: name -> one network whose images are tried on all: ``transfer`` of no tree, ``transfer-merged`` of
            another tree.
        queries: of the random search, at the largest strong size, on images that all other attacks leave.
    """
    bank, given = bank.to(device), (images.pixels.to(device), images.labels.to(device))
    fgsm = {kind: attack(bank, *given, kind=kind, epsilons=epsilons, device=device) for kind in ("fgsm", FLOAT32)}
    each = {kind: found.robust for kind, found in fgsm.items()}
    search = {"epsilons": epsilons, "steps": steps, "restarts": restarts, "device": device}
    each |= {f"pgd-{loss}": pgd(bank, *given, loss=loss, **search) for loss in LOSSES}
    for (name, source), kind in product(sources.items(), ("fgsm", "pgd")):
        each[f"{name}-{kind}"] = transferred(bank, source, *given, epsilons=epsilons, kind=kind, steps=steps)
    each["worst"] = along(each, "attack").min("attack")
    robust = along({kind: one.mean("image") for kind, one in each.items()}, "attack")
    withstood = along({kind: strong(one).sum("epsilon") for kind, one in each.items()}, "attack").astype(np.int8)
    hard = strong(each["worst"])
    left = hard.isel(epsilon=-1).values == 1 if hard.sizes["epsilon"] else np.zeros((len(bank), len(images)), bool)
    size = float(hard.epsilon[-1]) if hard.sizes["epsilon"] else 0.0
    standing = square(bank, *given, epsilon=size, left=left, queries=queries)
    columns = {
        "robust_accuracy": (robust, "accuracy under attack", "1"),
        "withstood": (withstood, "strong sizes at which the image is still classified correctly", "sizes"),
        "zero_gradients": (fgsm["fgsm"].zero_gradients, "share of images whose gradient is exactly zero", "1"),
        "zero_gradients_float32": (fgsm[FLOAT32].zero_gradients, "the same of gradients in float32", "1"),
        "searched": (_counts(bank, left), f"images left at {size:g}, which a random search tries", "images"),
        "found": (_counts(bank, left & ~standing), "of them those that it breaks", "images"),
    }
    order = ("model", "attack", "epsilon", "image")
    columns = {name: v.transpose(*order, missing_dims="ignore").assign_attrs(long_name=text, units=units)
               for name, (v, text, units) in columns.items()}  # fmt: skip
    return xr.Dataset(columns)


def _counts(bank: Bank, images: np.ndarray) -> xr.DataArray:
    return bank.array(images.sum(1), name="images", long_name="images", units="images")
