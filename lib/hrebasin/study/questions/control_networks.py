"""Networks that are less accurate than others without having been merged: of fewer units, or with noise on weights."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ...bank import Bank
from ...images.sources import Images
from ...random_streams import generator
from ...small_networks import narrowed
from ...training.recipe import Recipe
from ...training.run import DivergedError
from ...training.train import train


def narrow(leaf: Bank, images: Images, recipe: Recipe, shares: Sequence[float], *, device: str = "cpu") -> list[Bank]:
    """Networks of fewer units, fully trained, a bank a share of all hidden widths, method ``narrow``.

    Shares at which a network learns nothing, which can happen to very narrow ones, are left out with a warning.

    Args:
        leaf: one network, whose seed, labels and architecture they have but for their widths.
        images: training images.
        recipe: of the leaf.
        shares: of all hidden widths; each is the ``strength`` of its network.
        device: where to train.
    """
    seed, banks = leaf.labels["seed"][0], []
    labels = {name: leaf.labels[name] for name in ("group", "node")} | {"method": "narrow"}
    for share in shares:
        label = f"narrow networks, {share:g} of the widths"
        try:
            bank = train(narrowed(leaf.architecture, share), images, [seed], recipe, device=device, label=label)
        except DivergedError as error:
            warnings.warn(f"{share:g} of the widths is left out: {error}", stacklevel=2)
        else:
            banks.append(replace(bank, history=None).relabel(**labels, strength=share))
    return banks


def noised(leaf: Bank, levels: Sequence[float]) -> Bank:
    """One network with Gaussian noise on its weights, a copy for each level in standard deviations of each layer's
    weights, method ``noised``; the level is its ``strength``.

    All levels take the same draw, from the stream ``weight-noise/<seed>/<tensor>``.
    """
    if len(leaf) != 1:
        raise ValueError(f"noise is put on one network, got {len(leaf)}")
    seed, tensors = leaf.labels["seed"][0], {}
    for name, tensor in leaf.tensors.items():
        tensors[name] = tensor.repeat(len(levels), *[1] * (tensor.ndim - 1))
        if name.endswith(".weight") and tensor.ndim > 2:  # not the scales of norms
            draw = torch.randn(tensor.shape[1:], generator=generator(f"weight-noise/{seed}/{name}"))
            steps = torch.as_tensor(np.asarray(levels), dtype=tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))
            tensors[name] += (steps * draw * tensor.cpu().std()).to(tensor)
    labels = {name: leaf.labels[name][0] for name in ("seed", "group", "node")}
    return Bank(leaf.architecture, tensors, labels | {"method": "noised", "strength": list(levels)})
