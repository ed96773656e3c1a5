"""The order of a folder's images: the first n of them, which many parts of a study take, must be a fair part."""

import math
from pathlib import Path

import numpy as np
import torch

from ..random_streams import generator

# Of orders drawn at random fewer than one in ten million fails one of these, in standard deviations.
AHEAD = 4.0  # how far a class may be ahead of its share, or behind, anywhere
TOGETHER = 6.0  # by how much more often than by chance neighbours may be of one class


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
    if np.count_nonzero(same) - chance * len(same) > TOGETHER * math.sqrt(len(same) * chance * (1 - chance)):
        return False
    place = np.arange(1, n + 1)
    for number, share in enumerate(shares):
        ahead = np.abs(np.cumsum(labels == number) - share * place).max()
        if ahead > AHEAD * math.sqrt(n * share * (1 - share)):
            return False
    return True
