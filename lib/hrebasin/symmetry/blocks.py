"""Parameters cut into parts that have an axis for each factor, so that a permutation moves whole axes."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch

from .axes import Axis, Segment, Symmetry, segment_size


class Block(NamedTuple):
    """A part of a parameter with an axis for each factor of its symmetry.

    Attributes:
        tensor: name of the parameter.
        where: a slice for each of its axes.
        shape: of the part, an axis for each factor.
        axis_of: the parameter's own axis that each of them is a part of.
        moved: axes that a permutation moves, and its name.
    """

    tensor: str
    where: tuple[slice, ...]
    shape: tuple[int, ...]
    axis_of: tuple[int, ...]
    moved: dict[int, str]


def blocks_of(symmetry: Symmetry, parameters: Sequence[str]) -> list[Block]:
    """The parts of parameters that permutations move; concatenated segments are parts of their own."""
    found = []
    for name in parameters:
        for segments in product(*(_located(axis) for axis in symmetry.axes[name])):
            factors = [factor for _, segment in segments for factor in segment]
            axis_of = tuple(number for number, (_, segment) in enumerate(segments) for _ in segment)
            moved = {number: factor.name for number, factor in enumerate(factors) if factor.name is not None}
            if moved:
                shape = tuple(factor.size for factor in factors)
                found.append(Block(name, tuple(where for where, _ in segments), shape, axis_of, moved))
    return found


def rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """A tensor as a matrix (unit along ``axis``, everything else)."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def units(tensor: torch.Tensor, number: int, axis: Axis, segment: int, factor: int) -> torch.Tensor:
    """What axis ``number`` of a tensor holds of one factor of its symmetry: a matrix (unit, everything else)."""
    where, factors = list(_located(axis))[segment]
    part = tensor.narrow(number, where.start, where.stop - where.start)
    return rows(part.unflatten(number, [each.size for each in factors]), number + factor)


def _located(axis: Axis) -> Iterator[tuple[slice, Segment]]:
    """The segments of an axis and where each lies."""
    start = 0
    for segment in axis:
        end = start + segment_size(segment)
        yield slice(start, end), segment
        start = end
