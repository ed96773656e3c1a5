"""Weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

Coordinate descent on ||A - pi(B)||^2: in random layer order, each hidden layer's permutation becomes the best
one given its neighbours', by linear assignment on C_l = W_l^A P_{l-1} (W_l^B)^T + (W_{l+1}^A)^T P_{l+1} W_{l+1}^B
+ b_l^A (b_l^B)^T. It ends in a local minimum that depends on the order.

Products run for all pairs together where the banks live; assignments run on CPU threads. A layer is solved again
only when a neighbour has changed, and each assignment starts from that layer's last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .assignment import assign
from .bank import Bank, check_same_architecture
from .networks import PermutationSpec, permutation_spec
from .seeding import Seed, generator

# Least gain that counts, relative to the layer's objective. Float32 products of 512 units carry a relative error
# of about 5e-8 in the sum; anything below this is rounding, not progress.
TOLERANCE = 1e-7


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
        """The bank with its units permuted; logits stay the same. The given bank is left as it is."""
        if len(bank) != len(self):
            raise ValueError(f"an alignment of {len(self)} pairs cannot permute a bank of {len(bank)} networks")
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
    taken = [t.index_select(axis - 1, order) for t, order in zip(tensor, index, strict=True)]
    return torch.stack(taken) if len(taken) > 1 else taken[0][None]


def match_weights(
    reference: Bank,
    moving: Bank,
    *,
    seed: Seed | Sequence[Seed] = 0,
    max_sweeps: int = 100,
    tolerance: float = TOLERANCE,
) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference``, for all k.

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
        for name, tensor in bank.tensors.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{role} network: {name} holds weights that are not finite")
    descent = Descent(reference.tensors, moving.tensors, permutation_spec(moving.architecture), tolerance=tolerance)
    sweeps = descent.run(seeds, max_sweeps)
    permutations = {name: perm.cpu() for name, perm in descent.permutations.items()}
    return Alignment(permutations, descent.objective(), sweeps)


class Descent:
    """Coordinate descent on all pairs in lockstep; a pair rests when no layer of it can gain.

    Args:
        a, b: parameters of the reference and the moving networks, (pair, ...).
        spec: which permutation acts on which axis.
        permutations: to start from, (pair, unit) on the device of ``b``; by default the identity.
        prices: of the last assignments, (pair, unit) float64; by default zero. They only save time.
        constants: what never changes of the matrices C, (pair, unit, unit) for each permutation, if it is known
            already; ``a`` then needs only the parameters with two permuted axes.
        tolerance: see `match_weights`.

    Attributes:
        permutations, prices: the state after `run`; what was given is not changed.
    """

    def __init__(
        self, a, b, spec: PermutationSpec, *, permutations=None, prices=None, constants=None, tolerance=TOLERANCE
    ):
        self.a, self.b, self.spec, self.tolerance = a, b, spec, tolerance
        self.names = sorted({name for axes in spec.values() for name in axes if name is not None})
        self.n_pairs = len(next(iter((permutations or b).values())))
        self.permutations, self.prices, self.neighbours, self.terms = {}, {}, {}, {}
        for name in self.names:
            terms = [(key, axes.index(name)) for key, axes in spec.items() if name in axes]
            self.terms[name] = terms
            self.neighbours[name] = {p for key, _ in terms for p in spec[key]} - {name, None}
            if permutations is None:
                tensor = b[terms[0][0]]
                shape = (self.n_pairs, tensor.shape[1 + terms[0][1]])
                self.permutations[name] = torch.arange(shape[1], device=tensor.device).repeat(shape[0], 1)
            else:
                self.permutations[name] = permutations[name].clone()
            self.prices[name] = prices[name].copy() if prices else np.zeros(tuple(self.permutations[name].shape))
        # Products with no permuted axis but their own never change.
        self.constants = constants or {name: self._products(name, None, constant=True) for name in self.names}

    def run(self, seeds: Sequence[Seed], max_sweeps: int) -> torch.Tensor:
        """Descend until no layer gains; the sweeps that each pair took, (pair,) int64."""
        streams = [generator(f"layer-order/{seed}") for seed in seeds]
        sweeps = torch.zeros(self.n_pairs, dtype=torch.int64)
        stale = {name: np.ones(self.n_pairs, dtype=bool) for name in self.names}  # may gain since last solved
        for _ in range(max_sweeps):
            active = np.flatnonzero(np.any(list(stale.values()), axis=0))
            if len(active) == 0:
                break
            sweeps[active] += 1
            orders = np.array([torch.randperm(len(self.names), generator=streams[p]).tolist() for p in active])
            for layers in orders.T:
                for number, name in enumerate(self.names):
                    pairs = active[layers == number]
                    pairs = pairs[stale[name][pairs]]
                    if len(pairs) == 0:
                        continue
                    stale[name][pairs] = False
                    gained = self._solve(name, pairs)
                    for neighbour in self.neighbours[name]:
                        stale[neighbour][pairs[gained]] = True
        return sweeps

    def _solve(self, name: str, pairs: np.ndarray) -> np.ndarray:
        """Give each pair the best permutation ``name``; returns which of them gained."""
        index = torch.as_tensor(pairs, device=self.permutations[name].device)
        gains = self._products(name, None if len(pairs) == self.n_pairs else index, constant=False)
        gains = gains.add_(self.constants[name][index]).cpu().numpy()
        old = self.permutations[name][index].cpu().numpy()
        new, self.prices[name][pairs] = assign(gains, old, self.prices[name][pairs])
        # float64 sums: in float32, rounding would read as progress
        before, after = (np.take_along_axis(gains, p[..., None], 2).sum((1, 2), dtype=np.float64) for p in (old, new))
        gained = after - before > self.tolerance * np.abs(before)
        if gained.any():
            self.permutations[name][index[gained]] = torch.as_tensor(new[gained], device=index.device)
        return gained

    def _products(self, name: str, index: torch.Tensor | None, *, constant: bool) -> torch.Tensor:
        """The matrices C (pair, unit of A, unit of B): without, or with only, the terms that never change."""
        n_units = self.permutations[name].shape[1]
        n_pairs = self.n_pairs if index is None else len(index)
        total = torch.zeros(n_pairs, n_units, n_units, device=self.permutations[name].device)
        for key, axis in self.terms[name]:
            others = [p for p in self.spec[key] if p not in (name, None)]
            if constant == bool(others):
                continue
            a, b = (t[key] if index is None else t[key][index] for t in (self.a, self.b))
            for other_axis, other in enumerate(self.spec[key]):
                if other not in (name, None):
                    permutation = self.permutations[other]
                    b = _take(b, permutation if index is None else permutation[index], other_axis + 1)
            a, b = (t.movedim(axis + 1, 1).flatten(2) if t.ndim > 2 else t[..., None] for t in (a, b))
            total.baddbmm_(a, b.transpose(1, 2))
        return total

    def objective(self) -> torch.Tensor:
        """Sum over all parameters of <A, pi(B)>, (pair,) float64."""
        permuted = permute(self.b, self.spec, self.permutations)
        products = [(self.a[key].double() * permuted[key].double()).flatten(1).sum(1) for key in self.spec]
        return torch.stack(products).sum(0).cpu()
