"""Weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

Coordinate descent on ||A - pi(B)||^2: in random layer order, each hidden layer's permutation becomes the best
one given its neighbours', by linear assignment on C_l = W_l^A P_{l-1} (W_l^B)^T + (W_{l+1}^A)^T P_{l+1} W_{l+1}^B
+ b_l^A (b_l^B)^T. It ends in a local minimum that depends on the order.

Pairs run side by side on CPU threads, their products where the banks live. A layer is solved again only when a
neighbour has changed; its products are then corrected where that neighbour has changed, and its assignment starts from
the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..bank import Bank, check_finite, check_same_architecture
from ..networks import PermutationSpec, permutation_spec
from ..random_streams import Seed, generator
from ..resources import side_by_side
from .assignment import assign

# Least gain that counts, relative to the layer's objective. Float32 products of 512 units carry a relative error
# of about 5e-8 in the sum; anything below this is rounding, not progress.
TOLERANCE = 1e-7
# Largest share of changed units for which correcting a product beats computing it anew.
FEW = 0.4
PIECE = 1 << 16  # numbers converted to float64 at once


@dataclass(frozen=True, eq=False)
class Alignment:
    """Permutations that place the units of moving networks, pair by pair.

    Attributes:
        permutations: ``{"P1": (pair, unit) int64, ...}``; ``permutations[p][k, i]`` is the unit of moving network k
            placed at i.
        objective: sum over all parameters of <A, pi(B)>, (pair,) float64; the larger, the closer.
        sweeps: sweeps over the layers until none gained, (pair,) int64.
    """

    permutations: dict[str, torch.Tensor]
    objective: torch.Tensor
    sweeps: torch.Tensor

    def __len__(self) -> int:
        return len(self.objective)

    def apply(self, bank: Bank) -> Bank:
        """The bank with its units permuted; logits stay the same. The given bank is left as it is.

        Raises:
            ValueError: a bank of another length or of other hidden widths.
        """
        if len(bank) != len(self):
            raise ValueError(f"an alignment of {len(self)} pairs cannot permute a bank of {len(bank)} networks")
        widths = {f"P{number}": width for number, width in enumerate(bank.architecture.widths, start=1)}
        given = {name: tuple(perm.shape) for name, perm in self.permutations.items()}
        if given != {name: (len(bank), width) for name, width in widths.items()}:
            raise ValueError(f"permutations {given} (pair, unit) cannot permute {len(bank)} networks of units {widths}")
        spec = permutation_spec(bank.architecture)
        permuted = permute(bank.tensors, spec, self.permutations)
        return Bank(bank.architecture, permuted, bank.labels, bank.history)

    def inverse(self) -> "Alignment":
        """The alignment that takes the permuted networks back."""
        inverted = {name: torch.argsort(perm, dim=1) for name, perm in self.permutations.items()}
        return Alignment(inverted, self.objective, self.sweeps)


def permute(
    tensors: dict[str, torch.Tensor], spec: PermutationSpec, permutations: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Every parameter (model, ...) with each axis in the order of its permutation (model, unit)."""
    permuted = {}
    for name, tensor in tensors.items():
        for axis, permutation in enumerate(spec[name], start=1):
            if permutation is not None:
                tensor = _take(tensor, permutations[permutation].to(tensor.device), axis)
        permuted[name] = tensor
    return permuted


def _take(tensor: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """Each network's parameter (model, ...) with ``axis`` in the order of its row of ``index`` (model, unit)."""
    # whole rows are copied; a gather would first spell the index out for every single weight
    taken = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    for source, order, target in zip(tensor, index, taken, strict=True):
        torch.index_select(source, axis - 1, order, out=target)
    return taken


def match_weights(
    reference: Bank,
    moving: Bank,
    *,
    seed: Seed | Sequence[Seed] = 0,
    max_sweeps: int = 100,
    tolerance: float = TOLERANCE,
) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference``, for all k.

    >>> from hrebasin.networks import mlp
    >>> bank = Bank.stack([mlp((4,), n_classes=3, image_shape=(1, 2, 2), mean=[0.5], std=[0.25])])
    >>> match_weights(bank, bank).permutations["P1"].tolist()  # a network is aligned to itself
    [[0, 1, 2, 3]]

    Args:
        reference, moving: banks of one architecture and length; neither is changed.
        seed: names the random layer order, one for all pairs or one for each; a pair's result does not depend on
            the other pairs.
        max_sweeps: at most so many sweeps over the hidden layers.
        tolerance: least gain that counts, relative to the layer's objective, judged in float64.

    Raises:
        ValueError: different architectures or lengths, or weights that are not finite.
    """
    check_same_architecture(reference, moving)
    if len(reference) != len(moving):
        raise ValueError(f"{len(reference)} reference networks cannot be paired with {len(moving)} moving ones")
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    seeds = [seed] * len(moving) if isinstance(seed, (int, str, np.integer)) else list(seed)
    if len(seeds) != len(moving):
        raise ValueError(f"{len(seeds)} seeds given for {len(moving)} pairs")
    for role, bank in (("reference", reference), ("moving", moving)):
        check_finite(bank, f"{role} networks")
    spec = permutation_spec(moving.architecture)

    def align(pair: int) -> tuple[dict[str, torch.Tensor], float, int]:
        a, b = ({name: tensor[pair] for name, tensor in bank.tensors.items()} for bank in (reference, moving))
        descent = Descent(a, b, spec, tolerance=tolerance)
        sweeps = descent.run(seeds[pair], max_sweeps)
        return {name: perm.cpu() for name, perm in descent.permutations.items()}, descent.objective(), sweeps

    permutations, objectives, sweeps = zip(*side_by_side(align, range(len(moving))), strict=True)
    stacked = {name: torch.stack([perms[name] for perms in permutations]) for name in permutations[0]}
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), torch.tensor(sweeps))


class Descent:
    """Coordinate descent on one pair, until no layer can gain.

    Args:
        a, b: parameters of the reference and the moving network.
        spec: which permutation acts on which axis; a parameter has at most two that are permuted.
        permutations: to start from, (unit,) on the device of ``b``; by default the identity.
        prices: of the last assignments, (unit,) float64; by default zero. They only save time.
        constants: what never changes of the matrices C, (unit, unit) for each permutation, if it is known already;
            ``a`` then needs only the parameters with two permuted axes.
        tolerance: see `match_weights`.

    Attributes:
        permutations, prices: the state after `run`; what was given is not changed.
    """

    def __init__(
        self, a, b, spec: PermutationSpec, *, permutations=None, prices=None, constants=None, tolerance=TOLERANCE
    ):
        self.a, self.b, self.spec, self.tolerance = a, b, spec, tolerance
        self.names = sorted({name for axes in spec.values() for name in axes if name is not None})
        if permutations is None:
            sizes = {name: b[key].shape[axes.index(name)] for key, axes in spec.items() for name in axes if name}
            device = next(iter(b.values())).device
            permutations = {name: torch.arange(sizes[name], device=device) for name in self.names}
        self.permutations = dict(permutations)
        self.prices = dict(prices) if prices else {name: np.zeros(len(permutations[name])) for name in self.names}
        # permutation -> parameters whose other axis is permuted too: (parameter, own axis, the other permutation)
        self.varying: dict[str, list[tuple[str, int, str]]] = {name: [] for name in self.names}
        fixed: dict[str, list[tuple[str, int]]] = {name: [] for name in self.names}
        for key, axes in spec.items():
            permuted = [name for name in axes if name is not None]
            if len(set(permuted)) != len(permuted) or len(permuted) > 2:
                raise ValueError(f"{key} has the permutations {axes}: at most two different ones can be matched")
            for axis, name in enumerate(axes):
                if name is None:
                    continue
                others = [other for other in axes if other not in (name, None)]
                if others:
                    self.varying[name].append((key, axis, others[0]))
                else:
                    fixed[name].append((key, axis))
        self.constants = constants or {
            name: sum(_rows(a[key], axis) @ _rows(b[key], axis).T for key, axis in fixed[name]) for name in self.names
        }
        self.products: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}

    def run(self, seed: Seed, max_sweeps: int) -> int:
        """Descend until no layer gains; how many sweeps that took."""
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
                        stale |= {other: True for _, _, other in self.varying[name]}
        return sweeps

    def _solve(self, name: str) -> bool:
        """Take the best permutation ``name`` given the others; whether that is a gain."""
        gains = self.constants[name].clone()
        for key, axis, other in self.varying[name]:
            gains += self._product(name, key, axis, self.permutations[other])
        gains = gains.cpu().numpy()
        old = self.permutations[name].cpu().numpy()
        new, prices = assign(gains[None], old[None], self.prices[name][None])
        new, self.prices[name] = new[0], prices[0]
        # float64 sums: in float32, rounding would read as progress
        rows = np.arange(len(gains))
        before, after = (gains[rows, columns].sum(dtype=np.float64) for columns in (old, new))
        gained = bool(after - before > self.tolerance * max(abs(before), abs(after)))
        if gained:
            self.permutations[name] = torch.from_numpy(new).to(self.permutations[name].device)
        return gained

    def _product(self, name: str, key: str, axis: int, perm: torch.Tensor) -> torch.Tensor:
        """<unit i of A, unit j of B> over one parameter whose other axis is in the order ``perm``, (unit, unit)."""
        a, b = (t[key] if axis == 0 else t[key].T for t in (self.a, self.b))
        if (name, key) in self.products:
            product, used = self.products[name, key]
            changed = (perm != used).nonzero()[:, 0]
            if len(changed) <= FEW * len(perm):
                if len(changed):
                    difference = b[:, perm[changed]] - b[:, used[changed]]
                    product.addmm_(a[:, changed], difference.T)
                    self.products[name, key] = product, perm
                return product
        product = a @ b[:, perm].T
        self.products[name, key] = product, perm
        return product

    def objective(self) -> float:
        """Sum over all parameters of <A, pi(B)>."""
        batch = {name: tensor[None] for name, tensor in self.b.items()}
        permuted = permute(batch, self.spec, {name: perm[None] for name, perm in self.permutations.items()})
        return sum(_dot(self.a[key], permuted[key][0]) for key in self.spec)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """Inner product in float64, in pieces that stay in the cache."""
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True)
    return float(sum(torch.dot(x.double(), y.double()) for x, y in pieces))


def _rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """A parameter as a matrix (unit along ``axis``, everything else)."""
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)
