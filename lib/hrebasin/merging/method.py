"""What every way to merge many networks has in common: it is timed, checked, labelled, and repaired if asked to."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..bank import Bank
from ..images.sources import Images
from ..matching.weights import match_weights
from ..random_streams import Seed
from ..resources import plain_torch
from .averages import Aligned, average_aligned
from .batch_norm import finished, measured_later
from .distances import HISTORY, merged_labels, with_history
from .repair import moments, repair

NEEDS = {"": (), "pixels": ("pixels",), "labels": ("pixels", "labels")}

# Training images, inputs (image, ...) as the networks take them, or a pair of these and labels (image,) int64.
TrainingImages = Images | torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def parts_of(images: TrainingImages | None) -> dict[str, torch.Tensor | None]:
    """Pixels and labels, None where there are none."""
    if isinstance(images, Images):
        images = images.pixels, images.labels
    if isinstance(images, tuple) and len(images) != 2:
        raise ValueError(f"images must be a tensor, `Images`, or a pair of inputs and labels, got {len(images)} parts")
    pixels, labels = images if isinstance(images, tuple) else (images, None)
    return {"pixels": pixels, "labels": labels}


@dataclass(frozen=True)
class Method:
    """One way to merge a set of networks.

    Attributes:
        name: its label ``method`` in data sets.
        merge: takes the networks and a seed, and by name what it ``needs``; gives a bank of one network, or `Aligned`
            networks to be averaged.
        align: gives those of a ``merge`` that gives a bank; by default networks are matched to the merged one. Only
            REPAIR asks for them.
        needs: training images, ``"pixels"`` alone or with ``"labels"``; by default none.
        trees: takes 2, 4, 8, ... networks only.
        draws: whether the seed makes a difference.
    """

    name: str
    merge: Callable[..., Bank | Aligned]
    align: Callable[[Bank, Seed], Aligned] | None = None
    needs: str = ""
    trees: bool = False
    draws: bool = True

    def takes(self, n: int) -> bool:
        """Whether so many networks can be merged."""
        return n >= 2 and not (self.trees and n & (n - 1))

    def __call__(
        self, bank: Bank, seed: Seed = 0, images: TrainingImages | None = None, *, repaired: bool = False
    ) -> Bank:
        """Merge all networks of a bank into a bank of one, with `hrebasin.merging.distances.HISTORY`.

        Args:
            bank: two or more networks; not changed.
            seed: of all orders.
            images: see `TrainingImages`; batch norm is measured anew on them.
            repaired: with REPAIR towards the leaves, on these images.

        Raises:
            ValueError: a number of networks that it does not take, images that are missing, or a result that is no
                network of this architecture.
        """
        return self._merged(bank, seed, images, plain=not repaired, repaired=repaired)[0]

    def both(self, bank: Bank, seed: Seed, images: TrainingImages) -> list[Bank]:
        """What the method makes, without and with REPAIR; arguments as above."""
        return self._merged(bank, seed, images, plain=True, repaired=True)

    @plain_torch()
    def _merged(self, bank: Bank, seed: Seed, images, *, plain: bool, repaired: bool) -> list[Bank]:
        if not self.takes(len(bank)):
            numbers = "2, 4, 8, ..." if self.trees else "two or more"
            raise ValueError(f"method {self.name!r} takes {numbers} networks, got {len(bank)}")
        given = self.given(images, repaired=repaired)
        start = time.perf_counter()
        with measured_later():  # `finished` measures batch norm, or says what that it cannot costs
            made = self.merge(bank, seed, **{name: given[name] for name in NEEDS[self.needs]})
        merged, pixels = self._checked(made, bank, start), given["pixels"]
        results = [finished(merged, pixels)] if plain else []
        return results + ([self._repaired(merged, made, bank, seed, pixels)] if repaired else [])

    def lacks(self, images: TrainingImages | None) -> list[str]:
        """What it needs of training images, and these do not hold: pixels, labels."""
        given = parts_of(images)
        return [name for name in NEEDS[self.needs] if given[name] is None]

    def given(self, images: TrainingImages | None, *, repaired: bool) -> dict[str, torch.Tensor | None]:
        """`parts_of` images; ValueError where they lack what it, or REPAIR, needs."""
        given = parts_of(images)
        if missing := self.lacks(images):
            how = "images=(inputs, labels)" if "labels" in missing else "images="
            what = f"method {self.name!r} needs training images, their {' and '.join(missing)}"
            raise ValueError(f"{what}: give training images as {how}")
        if repaired and given["pixels"] is None:
            raise ValueError("REPAIR needs training images: give training images as images=")
        return given

    def _checked(self, made: Bank | Aligned, bank: Bank, start: float) -> Bank:
        """One merged network with its labels and its history."""
        if isinstance(made, Aligned):
            return average_aligned(made.bank, self.name, made.sweeps, start, converged=made.converged)
        seconds = time.perf_counter() - start
        if not isinstance(made, Bank) or len(made) != 1 or made.architecture != bank.architecture:
            raise ValueError(f"method {self.name!r} must give one network of {bank.architecture.title}, got {made!r}")
        for parameter, tensor in made.tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"method {self.name!r}: {parameter} holds weights that are not finite")
        labelled = Bank(bank.architecture, made.tensors, merged_labels(bank) | {"method": self.name})
        history = made.history
        if history is None or not set(HISTORY) <= set(history):
            return with_history(labelled, [np.nan], [0], [True], [seconds])
        known = (history[column].values for column in ("pairwise_distance", "sweeps_done", "converged"))
        return with_history(labelled, *known, [seconds])

    def _repaired(self, merged: Bank, made: Bank | Aligned, bank: Bank, seed: Seed, pixels: torch.Tensor) -> Bank:
        if isinstance(made, Aligned):
            leaves = made.bank
        elif self.align:
            leaves = self.align(bank, seed).bank
        else:
            leaves = match_weights(merged.select([0] * len(bank)), bank, seed=seed).apply(bank)
        return repair(merged, moments(leaves, pixels).average([range(len(bank))]), pixels)
