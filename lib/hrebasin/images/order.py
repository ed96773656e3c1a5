"""The order of a folder's images: the first n of them, which many parts of a study take, must be a fair part."""

import math
from pathlib import Path

import numpy as np
import torch

from ..random_streams import generator

# Standard deviations that a class may be ahead of its share anywhere; one random order in ten million is more.
AHEAD = 4.0
# Of n images more neighbours are of one class than in all but TOGETHER / n**2 of random orders: no mixture.
TOGETHER = 10


def in_order(files: list[tuple[Path, int]]) -> tuple[list[tuple[Path, int]], bool]:
    """Images with their classes, in an order that mixes classes, and whether that is the order of their names.

    Numbers for names are places in an original order, if that mixes classes. All others are shuffled, always alike.

    Args:
        files: paths and classes, by class and name.
    """
    stems = [path.stem for path, _ in files]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        by_number = sorted(files, key=lambda file: int(file[0].stem))
        if mixes(np.array([number for _, number in by_number])):
            return by_number, True
    order = torch.randperm(len(files), generator=generator("image-order"))
    return [files[position] for position in order], False


def mixes(labels: np.ndarray) -> bool:
    """Whether classes (image,) come as mixed as in a random order, or more evenly; never if one follows the other."""
    n, same = len(labels), labels[1:] == labels[:-1]
    shares = np.bincount(labels) / n
    if n > np.count_nonzero(shares) > len(same) - np.count_nonzero(same):
        return False
    chance = float((shares**2).sum())
    together = np.count_nonzero(same) / max(len(same), 1)
    if together > chance:  # Chernoff's bound, by relative entropy; small folders lose nothing when they are shuffled
        surprise = together * math.log(together / chance) + (1 - together) * math.log((1 - together) / (1 - chance))
        if len(same) * surprise > math.log(n**2 / TOGETHER):
            return False
    place = np.arange(1, n + 1)
    for number, share in enumerate(shares):
        ahead = np.abs(np.cumsum(labels == number) - share * place).max()
        if ahead > AHEAD * math.sqrt(n * share * (1 - share)):
            return False
    return True
