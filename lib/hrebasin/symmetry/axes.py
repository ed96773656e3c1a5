"""The algebra of permutation symmetries: which permutation acts on which axis of which tensor, as plain data.

An axis is a tuple of segments, one behind the other (a concatenation). A segment is a product of factors, the major one
first, as in a flattened array. A factor is a named permutation or fixed. So four channels of 49 pixels each, flattened,
are ``((Factor("P1", 4), Factor(None, 49)),)``.

Permutations are integers in one direction: ``perm[i]`` is the unit of the moving network placed at i.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ..files import read_text, write_atomically
from .table import table


class Factor(NamedTuple):
    """Units that one permutation moves, or that stay (``name=None``)."""

    name: str | None
    size: int


class Place(NamedTuple):
    """Where a permutation stands: ``symmetry.axes[tensor][axis][segment][factor]``."""

    tensor: str
    axis: int
    segment: int
    factor: int


Segment = tuple[Factor, ...]
Axis = tuple[Segment, ...]
Permutations = dict[str, torch.Tensor]


def segment_size(segment: Segment) -> int:
    """Units of a product."""
    return math.prod(factor.size for factor in segment)


def axis_size(axis: Axis) -> int:
    """Units of an axis.

    >>> axis_size(((Factor("P1", 4), Factor(None, 49)), (Factor("P2", 3),)))
    199
    """
    return sum(segment_size(segment) for segment in axis)


def simplify(axis: Axis) -> Axis:
    """The one shortest form of an axis: nothing of size 1, fixed neighbours joined, equal segments counted.

    >>> simplify(((Factor("P1", 4),), (Factor("P1", 4),), (Factor(None, 2),), (Factor(None, 1),)))
    ((Factor(name=None, size=2), Factor(name='P1', size=4)), (Factor(name=None, size=3),))
    """
    counted: list[tuple[int, Segment]] = []  # (how often, the rest of the segment)
    for segment in map(joined, axis):
        repeated = segment and segment[0].name is None
        count, rest = (segment[0].size, segment[1:]) if repeated else (1, segment)
        if counted and counted[-1][1] == rest:
            count += counted.pop()[0]
        counted.append((count, rest))
    return tuple((Factor(None, count), *rest) if count != 1 else rest for count, rest in counted)


def joined(segment: Segment) -> Segment:
    """A product without factors of size 1 and with fixed neighbours as one."""
    found: list[Factor] = []
    for factor in segment:
        if factor.name is None and found and found[-1].name is None:
            found[-1] = Factor(None, found[-1].size * factor.size)
        elif factor.size != 1:
            found.append(factor)
    return tuple(found)


def factors_of(*axes: Axis) -> list[Factor]:
    """All factors, one after the other."""
    return [factor for axis in axes for segment in axis for factor in segment]


def names_of(*axes: Axis) -> list[str]:
    """The permutations of all factors that move, one after the other."""
    return [factor.name for factor in factors_of(*axes) if factor.name is not None]


def numbered(axes: Mapping[str, Iterable[Axis]]) -> tuple[dict[str, int], dict[str, tuple[Axis, ...]]]:
    """Sizes of the permutations, called P1, P2, ... in the order in which axes show them, and the simplified axes."""
    short = {tensor: tuple(simplify(axis) or ((Factor(None, 0),),) for axis in own) for tensor, own in axes.items()}
    sizes = {factor.name: factor.size for own in short.values() for factor in factors_of(*own)}
    names = {old: f"P{number}" for number, old in enumerate((name for name in sizes if name is not None), start=1)}

    def renamed(axis: Axis) -> Axis:
        return tuple(tuple(Factor(names.get(factor.name), factor.size) for factor in segment) for segment in axis)

    axes = {tensor: tuple(map(renamed, own)) for tensor, own in short.items()}
    return {new: sizes[old] for old, new in names.items()}, axes


def inverse(permutations: Mapping[str, torch.Tensor]) -> Permutations:
    """The permutations (..., unit) that take everything back."""
    return {name: torch.argsort(perm, dim=-1) for name, perm in permutations.items()}


@dataclass(frozen=True)
class Symmetry:
    """Which permutations leave a network's outputs as they are, and which axes of its tensors each acts on.

    >>> from hrebasin.symmetry import symmetry_from_spec
    >>> spec = {"fc1.weight": ("P1", None), "fc1.bias": ("P1",), "fc2.weight": (None, "P1")}
    >>> print(symmetry_from_spec(spec, {"fc1.weight": (8, 4), "fc1.bias": (8,), "fc2.weight": (3, 8)}))
    1 permutation: P1 (8)
    fc1.weight  (P1, fixed)
    fc1.bias    (P1)
    fc2.weight  (fixed, P1)

    Args:
        permutations: the number of units that each moves.
        axes: for every parameter and saved buffer one `Axis` a dimension. Integer buffers have fixed axes only.
        without_rule: operations of the network that no rule describes; every axis that touches one is fixed.

    Raises:
        ValueError: an axis with an unknown permutation, or with one of another size.
    """

    permutations: dict[str, int]
    axes: dict[str, tuple[Axis, ...]]
    without_rule: tuple[str, ...] = ()

    def __post_init__(self):
        for tensor, axes in self.axes.items():
            for number, axis in enumerate(axes):
                for factor in factors_of(axis):
                    if factor.name is not None and self.permutations.get(factor.name) != factor.size:
                        raise ValueError(
                            f"axis {number} of {tensor!r} has {factor.size} units of {factor.name!r}, "
                            f"but the permutations are {self.permutations}"
                        )

    def __str__(self) -> str:
        return table(self.permutations, self.axes)

    def places(self) -> dict[str, tuple[Place, ...]]:
        """For every permutation all places where it stands; weight matching sums its cost over these."""
        places: dict[str, list[Place]] = {name: [] for name in self.permutations}
        for tensor, axes in self.axes.items():
            for a, axis in enumerate(axes):
                for s, segment in enumerate(axis):
                    for f, factor in enumerate(segment):
                        if factor.name is not None:
                            places[factor.name].append(Place(tensor, a, s, f))
        return {name: tuple(found) for name, found in places.items()}

    def random_permutations(self, generator: torch.Generator) -> Permutations:
        """Every permutation drawn uniformly, (unit,) int64."""
        return {name: torch.randperm(size, generator=generator) for name, size in self.permutations.items()}

    def expand(self, axis: Axis, permutations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The order of a whole axis, (..., unit) int64, from permutations (..., unit); those left out do not move.

        >>> axis = ((Factor("P1", 2), Factor(None, 3)), (Factor("P1", 2),))
        >>> Symmetry({"P1": 2}, {}).expand(axis, {"P1": torch.tensor([1, 0])}).tolist()
        [3, 4, 5, 0, 1, 2, 7, 6]
        """
        like = next(iter(permutations.values()), torch.zeros(0, dtype=torch.int64))
        orders, start = [], 0
        for segment in axis:
            order = like.new_zeros((*like.shape[:-1], 1))
            for factor in segment:
                perm = permutations.get(factor.name, torch.arange(factor.size, device=like.device))
                order = (order[..., :, None] * factor.size + perm[..., None, :]).flatten(-2)
            orders.append(start + order)
            start += segment_size(segment)
        return torch.cat(orders, dim=-1)

    def apply(
        self, tensors: Mapping[str, torch.Tensor], permutations: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The tensors with every axis in its new order. The given ones are not changed; those that nothing moves are
        returned as they are.

        Args:
            tensors: of one network, or of several, each (model, ...). Not all names of the symmetry need be there.
            permutations: (unit,) for one network, (model, unit) for several; those left out do not move.

        Raises:
            ValueError: tensors or permutations that do not belong to this symmetry.
        """
        self._check_permutations(permutations)
        return {name: self.permute_tensor(name, tensor, permutations) for name, tensor in tensors.items()}

    def permute_tensor(self, name: str, tensor: torch.Tensor, permutations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One tensor as of `apply`, which also checks the permutations."""
        stacked = any(perm.ndim > 1 for perm in permutations.values())
        shape = tuple(map(axis_size, self.axes.get(name, ())))
        if name not in self.axes or tuple(tensor.shape[stacked:]) != shape:
            known = f"must have shape {shape}" if name in self.axes else "is not in the symmetry"
            raise ValueError(f"{name!r} {known}{' for every network' * stacked}, got {tuple(tensor.shape)}")
        for number, axis in enumerate(self.axes[name]):
            if permutations.keys() & names_of(axis):
                index = self.expand(axis, permutations).to(tensor.device)
                tensor = _take(tensor, index, number) if stacked else tensor.index_select(number, index)
        return tensor

    def _check_permutations(self, permutations: Mapping[str, torch.Tensor]) -> None:
        for name, perm in permutations.items():
            size = self.permutations.get(name)
            if size is None:
                raise ValueError(f"there is no permutation {name!r}; there are {list(self.permutations)}")
            if perm.dtype != torch.int64 or perm.ndim not in (1, 2) or perm.shape[-1] != size:
                raise ValueError(
                    f"permutation {name!r} must be int64 of shape ({size},) or (model, {size}), "
                    f"got {perm.dtype} of shape {tuple(perm.shape)}"
                )
            if not torch.equal(perm.sort(dim=-1).values, torch.arange(size, device=perm.device).expand_as(perm)):
                raise ValueError(f"permutation {name!r} does not hold every unit from 0 to {size - 1} once")
        if len({perm.shape[:-1] for perm in permutations.values()}) > 1:
            shapes = {name: tuple(perm.shape) for name, perm in permutations.items()}
            raise ValueError(f"permutations are for different numbers of networks: {shapes}")

    def agrees_with(self, other: "Symmetry") -> bool:
        """Whether both say the same, whatever their permutations are called."""
        ours, theirs = (numbered(dict(sorted(each.axes.items()))) for each in (self, other))
        return ours == theirs and len(self.permutations) == len(other.permutations)

    def to_json(self) -> str:
        """As text: an axis is a list of segments, these lists of factors, a permutation's name or a fixed size."""
        axes = {
            tensor: [[[factor.name or factor.size for factor in segment] for segment in axis] for axis in axes]
            for tensor, axes in self.axes.items()
        }
        return json.dumps({"permutations": self.permutations, "axes": axes, "without_rule": list(self.without_rule)})

    @classmethod
    def from_json(cls, text: str) -> "Symmetry":
        """What `to_json` wrote.

        Raises:
            ValueError: text that it did not write.
        """
        try:
            given = json.loads(text)
            sizes = {str(name): int(size) for name, size in given["permutations"].items()}

            def factor(entry):
                return Factor(None, entry) if isinstance(entry, int) else Factor(entry, sizes[entry])

            axes = {
                tensor: tuple(tuple(tuple(map(factor, segment)) for segment in axis) for axis in axes)
                for tensor, axes in given["axes"].items()
            }
            return cls(sizes, axes, tuple(given["without_rule"]))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"this text is no symmetry: {type(error).__name__} {error}") from error

    def save(self, path: str | Path) -> None:
        """Write `to_json` to a file."""
        write_atomically(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Symmetry":
        """Read what `save` wrote; raises as `from_json`, and OSError where there is no file."""
        return cls.from_json(read_text(Path(path)))


def _take(tensor: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """Each network's tensor (model, ...) with its ``axis`` in the order of its row of ``index`` (model, unit)."""
    # whole rows are copied; a gather would first spell the index out for every single number
    taken = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    for source, order, target in zip(tensor, index, taken, strict=True):
        torch.index_select(source, axis, order, out=target)
    return taken
