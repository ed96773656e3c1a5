"""Coordinate descent on one pair of networks: the products behind weight matching, and one permutation after the other.

A permutation is solved again only when one that it meets in a parameter has changed; its products are then corrected
where that one has changed, and its assignment starts from the last one.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from ..random_streams import Seed, generator
from ..symmetry import Axis, Factor, Place, Symmetry
from ..symmetry.axes import names_of, segment_size
from ..symmetry.blocks import rows, units
from .assignment import assign

CONVERGENCE = 100  # sweeps; stands for "to convergence", reached in 14 to 64 on CIFAR-10
# Least gain that counts, relative to the layer's objective. Float32 products of 512 units carry a relative error
# of about 5e-8 in the sum; anything below this is rounding, not progress.
TOLERANCE = 1e-7
# Largest share of changed units for which correcting a product beats computing it anew.
FEW = 0.4
PIECE = 1 << 16  # numbers converted to float64 at once


class Descent:
    """Coordinate descent on one pair, until no permutation can gain.

    Args:
        a, b: parameters of the reference and the moving network.
        symmetry: which permutations act on which of their axes.
        permutations: to start from, (unit,) on the device of ``b``; by default the identity.
        prices: of the last assignments, (unit,) float64; by default zero. They only save time.
        constants: what never changes of the matrices C, (unit, unit) for each permutation, if it is known already;
            ``a`` then needs no `outer` parameters.

    Attributes:
        permutations, prices: the state after `run`; what was given is not changed.
    """

    def __init__(self, a, b, symmetry: Symmetry, *, permutations=None, prices=None, constants=None):
        self.a, self.b, self.symmetry = a, b, symmetry
        self.names = list(symmetry.permutations)
        like, sizes = next(iter(b.values())), symmetry.permutations
        if permutations is None:
            permutations = {name: torch.arange(size, device=like.device) for name, size in sizes.items()}
        self.permutations = dict(permutations)
        self.prices = dict(prices) if prices else {name: np.zeros(len(permutations[name])) for name in self.names}
        if constants is None:
            constants = {name: like.new_zeros(size, size) for name, size in sizes.items()}
            for name, keys in outer(symmetry, b).items():
                for key, axis in keys:
                    constants[name] = constants[name] + rows(a[key], axis) @ rows(b[key], axis).T
        self.constants = constants
        # permutation -> places whose products depend on others: (place, the other permutations there)
        self.varying: dict[str, list[tuple[Place, tuple[str, ...]]]] = {}
        for name, places in symmetry.places().items():
            inner = [place for place in places if place.tensor in b and not _is_outer(symmetry, place)]
            self.varying[name] = [(place, _others(symmetry, place)) for place in inner]
        # permutations that a parameter holds twice
        self.twice = {name for name in self.names if any(name in others for _, others in self.varying[name])}
        self.products: dict[Place, tuple[torch.Tensor, object]] = {}
        self.layouts: dict[Place, list[Callable]] = {}

    def run(self, seed: Seed, max_sweeps: int) -> int:
        """Descend until no permutation gains; how many sweeps that took."""
        stream = generator(f"layer-order/{seed}")
        stale = dict.fromkeys(self.names, True)  # may gain since last solved
        sweeps = 0
        while any(stale.values()) and sweeps < max_sweeps:
            sweeps += 1
            for position in torch.randperm(len(self.names), generator=stream).tolist():
                name = self.names[position]
                if stale[name]:
                    stale[name] = False
                    if self._solve(name):
                        # of a permutation that stands twice in a parameter, C has changed with itself
                        stale |= {other: True for _, others in self.varying[name] for other in others}
        return sweeps

    def _solve(self, name: str) -> bool:
        """Take the best permutation ``name`` given the others; whether that is a gain."""
        gains = self.constants[name].clone()
        for place, others in self.varying[name]:
            gains += self._product(place, others)
        gains = gains.cpu().numpy()
        old = self.permutations[name].cpu().numpy()
        new, prices = assign(gains[None], old[None], self.prices[name][None])
        new, self.prices[name] = new[0], prices[0]
        # float64 sums: in float32, rounding would read as progress
        rows = np.arange(len(gains))
        before, after = (gains[rows, columns].sum(dtype=np.float64) for columns in (old, new))
        if name in self.twice:  # quadratic: C took the other place as it was
            before, after = (self._objective_with(name, perm) for perm in (old, new))
        gained = bool(after - before > TOLERANCE * max(abs(before), abs(after)))
        if gained:
            self.permutations[name] = torch.from_numpy(new).to(self.permutations[name].device)
        return gained

    def _objective_with(self, name: str, perm: np.ndarray) -> float:
        """The part of the objective that hangs on ``name``, were it ``perm``."""
        perm = torch.from_numpy(perm).to(self.permutations[name].device)
        rows = torch.arange(len(perm), device=perm.device)
        fixed = float(self.constants[name][rows, perm].sum(dtype=torch.float64))
        keys = {place.tensor for place, _ in self.varying[name]}
        return fixed + self._dots(sorted(keys), self.permutations | {name: perm})

    def _product(self, place: Place, others: tuple[str, ...]) -> torch.Tensor:
        """<unit i of A, unit j of B> over one place of a permutation, the others as they are, (unit, unit)."""
        axes = self.symmetry.axes[place.tensor]
        own = axes[place.axis][place.segment][place.factor].name
        once = sorted(names_of(*axes)) == sorted({own, *others})
        if len(others) == 1 and once and _is_simple(self.symmetry, place.tensor):
            return self._inner_product(place, others[0])
        state = [self.permutations[other] for other in others]
        product, used = self.products.get(place, (None, None))
        if used is None or not all(map(torch.equal, used, state)):
            a, b, given = self.a[place.tensor], self.b[place.tensor], dict(zip(others, state, strict=True))
            for number, axis in enumerate(axes):
                moved = _without(axis, place) if number == place.axis else axis
                if given.keys() & names_of(moved):
                    b = b.index_select(number, self.symmetry.expand(moved, given).to(b.device))
            own_units = (place.axis, axes[place.axis], place.segment, place.factor)
            product = units(a, *own_units) @ units(b, *own_units).T
            self.products[place] = product, state
        return product

    def _inner_product(self, place: Place, other: str) -> torch.Tensor:
        """The same of a parameter with two plain axes, corrected where the other permutation has changed."""
        perm, (product, used) = self.permutations[other], self.products.get(place, (None, None))
        a, b = self._laid_out(place, other)
        if used is not None:
            changed = (perm != used).nonzero()[:, 0]
            if len(changed) <= FEW * len(perm):
                if len(changed):
                    difference = b(perm[changed]) - b(used[changed])
                    product.addmm_(a(changed).T, difference)
                    self.products[place] = product, perm
                return product
        product = a(None).T @ b(perm)
        self.products[place] = product, perm
        return product

    def _laid_out(self, place: Place, other: str) -> list[Callable]:
        """Of both networks' parameter, what gives a matrix (everything else, unit) for units of the other axis."""
        axes, key = self.symmetry.axes[place.tensor], place.tensor
        if self.b[key].ndim == 2:  # as it lies
            return [partial(_columns, t[key].movedim(place.axis, 0)) for t in (self.a, self.b)]
        if place not in self.layouts:
            [second] = [k for k, axis in enumerate(axes) if other in names_of(axis)]
            laid = [partial(_kernels, t[key], second) for t in (self.a, self.b)]
            if place.axis:  # whole rows are gathered several times as fast
                ends = (second, place.axis), (0, -1)
                laid = [partial(_rows_of, t[key].movedim(*ends).contiguous()) for t in (self.a, self.b)]
            self.layouts[place] = laid
        return self.layouts[place]

    def objective(self) -> float:
        """Sum over all parameters of <A, pi(B)>."""
        return self._dots(self.a, self.permutations)

    def _dots(self, keys, permutations: dict[str, torch.Tensor]) -> float:
        permuted = ((key, self.symmetry.permute_tensor(key, self.b[key], permutations)) for key in keys)
        return sum(_dot(self.a[key], tensor) for key, tensor in permuted)


def _columns(matrix: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
    """Chosen columns of a matrix (unit, other), or all, transposed."""
    return (matrix if chosen is None else matrix[:, chosen]).T


def _kernels(tensor: torch.Tensor, axis: int, chosen: torch.Tensor | None) -> torch.Tensor:
    """Chosen kernels along an axis of a tensor (unit, ...), or all, as a matrix (everything else, unit)."""
    return (tensor if chosen is None else tensor.index_select(axis, chosen)).flatten(1).T


def _rows_of(tensor: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
    """Chosen rows of a tensor (other, ..., unit), or all, as a matrix (everything else, unit)."""
    return (tensor if chosen is None else tensor.index_select(0, chosen)).flatten(0, -2)


def outer(symmetry: Symmetry, tensors: Mapping) -> dict[str, list[tuple[str, int]]]:
    """By permutation, the tensors that it alone permutes, along one whole axis: (name, axis)."""
    return {
        name: [(p.tensor, p.axis) for p in places if p.tensor in tensors and _is_outer(symmetry, p)]
        for name, places in symmetry.places().items()
    }


def _is_simple(symmetry: Symmetry, tensor: str) -> bool:
    """Whether every axis is fixed or one permutation as a whole."""
    return all(len(axis) == len(axis[0]) == 1 or not names_of(axis) for axis in symmetry.axes[tensor])


def _is_outer(symmetry: Symmetry, place: Place) -> bool:
    return len(names_of(*symmetry.axes[place.tensor])) == 1 and _is_simple(symmetry, place.tensor)


def _others(symmetry: Symmetry, place: Place) -> tuple[str, ...]:
    """The permutations that the product of a place depends on: of other axes and of other factors of its segment."""
    found = []
    for number, axis in enumerate(symmetry.axes[place.tensor]):
        if number == place.axis:
            segment = axis[place.segment]
            axis = ((*segment[: place.factor], *segment[place.factor + 1 :]),)
        found += names_of(axis)
    return tuple(dict.fromkeys(found))


def _without(axis: Axis, place: Place) -> Axis:
    """An axis in which a place's factor stays, and so do all segments but its own."""
    parts = []
    for number, segment in enumerate(axis):
        if number == place.segment:
            parts.append(tuple(Factor(None, f.size) if k == place.factor else f for k, f in enumerate(segment)))
        else:
            parts.append((Factor(None, segment_size(segment)),))
    return tuple(parts)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Inner product in float64, in pieces that stay in the cache."""
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True)
    return float(sum(torch.dot(x.double(), y.double()) for x, y in pieces))
