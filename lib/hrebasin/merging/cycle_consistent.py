"""C2M3 (Crisostomi et al. 2024): all networks aligned at once to one common order, so alignments are cycle-consistent.

Maximised is the sum over pairs i < j of <X_i, X_j>, X_i = P_i(W_i), over doubly stochastic matrices P_i, by
Frank-Wolfe from the identity: the gradient for every P_i, a linear assignment for each, one step t in [0, 1] for all.
Then every P_i is projected to a permutation. It may end in a local optimum: from four or more permuted copies of one
network it seldom recovers that network, which methods that match in pairs do. Two shortcuts leave the published
procedure as it is:

- The sum is (||sum X_i||^2 - sum ||X_i||^2) / 2: n terms in place of n^2, and gradients need sum X_i alone.
- A step goes from P_i to (1 - t) P_i + t Q_i with a permutation Q_i, and X_i is linear in each of its matrices. So
  along the step the sum is a polynomial in t, of degree 4 where parameters have two permuted axes; its coefficients
  are inner products of parameters that are only reordered, and its maximum is exact.
"""

from collections.abc import Sequence
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import Polynomial

from ..bank import Bank, check_finite
from ..matching.assignment import NotFiniteError, assign
from ..matching.scale import lifted, overflow_named
from ..random_streams import Seed
from ..resources import side_by_side
from ..symmetry import Symmetry
from ..symmetry.blocks import Block, blocks_of, rows
from .averages import Aligned

MOST_STEPS = 200  # of the published procedure
TOLERANCE = 1e-6  # least gain of a step that counts, relative to the objective; rounding stays below


class CycleConsistent(NamedTuple):
    """What `match_cycle_consistent` finds.

    Attributes:
        permutations: of every network to the common order, ``{"P1": (model, unit) int64, ...}``.
        objectives: the sum over pairs at the start and after every step, over permuted parameters alone.
        converged: whether the last step gained too little to go on.
    """

    permutations: dict[str, torch.Tensor]
    objectives: list[float]
    converged: bool


class _Network:
    """One network under its matrices P: each block with P applied along any of its moved axes."""

    def __init__(self, tensors: dict[str, torch.Tensor], blocks: list[Block], symmetry: Symmetry):
        self.blocks = blocks
        weights = [tensors[block.tensor][block.where].reshape(block.shape) for block in blocks]
        # at the start P is the identity
        self.parts = [dict.fromkeys(_subsets(b.moved), w) for b, w in zip(blocks, weights, strict=True)]
        device, sizes = weights[0].device, symmetry.permutations
        self.matrices = {name: torch.eye(size, device=device) for name, size in sizes.items()}
        self.towards = {name: torch.arange(size, device=device) for name, size in sizes.items()}  # the permutations Q
        self.prices = {name: np.zeros(size) for name, size in sizes.items()}

    def whole(self, number: int) -> torch.Tensor:
        """Block ``number`` of X."""
        return self.parts[number][tuple(self.blocks[number].moved)]

    def aim(self, total: Sequence[torch.Tensor]) -> None:
        """Choose Q: the permutations along which the sum over pairs rises fastest. ``total``: blocks of sum X."""
        for name, gradient in self.gradient(total).items():
            old, prices = self.towards[name].cpu().numpy()[None], self.prices[name][None]
            new, prices = assign(gradient.cpu().numpy()[None], old, prices)
            self.towards[name], self.prices[name] = torch.from_numpy(new[0]).to(gradient.device), prices[0]

    def gradient(self, total: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of the sum over pairs, for the matrix of each permutation."""
        found = {name: torch.zeros_like(matrix) for name, matrix in self.matrices.items()}
        for number, (block, parts) in enumerate(zip(self.blocks, self.parts, strict=True)):
            others = total[number] - self.whole(number)
            for axis, name in block.moved.items():
                rest = parts[tuple(other for other in block.moved if other != axis)]
                found[name] += rows(others, axis) @ rows(rest, axis).T
        return found

    def terms(self, number: int, axes: tuple[int, ...] | None = None) -> list[torch.Tensor]:
        """Tensors T_k with X(t) = sum_k (1 - t)^(d - k) t^k T_k along the step to Q: a block with P along d axes.

        Args:
            number: of the block.
            axes: along which P is applied; by default all that move.
        """
        block, parts = self.blocks[number], self.parts[number]
        axes = tuple(block.moved) if axes is None else axes
        terms = [None] * (len(axes) + 1)
        for chosen in _subsets(axes):
            term = parts[tuple(axis for axis in axes if axis not in chosen)]
            for axis in chosen:
                term = term.index_select(axis, self.towards[block.moved[axis]])
            k = len(chosen)
            terms[k] = term if terms[k] is None else terms[k] + term
        return terms

    def step(self, t: float, whole: Sequence[Sequence[torch.Tensor]]) -> None:
        """Go to (1 - t) P + t Q; ``whole``: what `terms` gave of every block."""
        for number, block in enumerate(self.blocks):
            all_axes = tuple(block.moved)
            self.parts[number] = {  # each from those before the step
                axes: _combine(whole[number] if axes == all_axes else self.terms(number, axes), t)
                for axes in self.parts[number]
            }
        for name, matrix in self.matrices.items():
            matrix *= 1 - t
            matrix[torch.arange(len(matrix), device=matrix.device), self.towards[name]] += t

    def projected(self) -> dict[str, torch.Tensor]:
        """The permutations nearest to P."""
        return {name: torch.from_numpy(assign(m.cpu().numpy()[None])[0][0]) for name, m in self.matrices.items()}


def match_cycle_consistent(bank: Bank, *, max_steps: int = MOST_STEPS, tolerance: float = TOLERANCE) -> CycleConsistent:
    """Align all networks of a bank to a common order of their units.

    Args:
        bank: two or more networks; not changed.
        max_steps: of Frank-Wolfe.
        tolerance: least gain of a step that counts, relative to the objective.

    Raises:
        ValueError: fewer than two networks, none with permutations, or weights that are not finite or so large (from
            about 1e18) that their products are not.
    """
    symmetry, parameters = bank.architecture.symmetry, bank.architecture.parameters
    if len(bank) < 2 or not symmetry.permutations:
        raise ValueError(f"C2M3 needs at least 2 networks with permutations, got {bank}")
    check_finite(bank, "C2M3")
    blocks = blocks_of(symmetry, parameters)
    tensors, up = lifted({name: bank.tensors[name] for name in parameters})
    each = ({name: tensor[k] for name, tensor in tensors.items()} for k in range(len(bank)))
    networks = [_Network(own, blocks, symmetry) for own in each]
    objectives: list[float] = []
    with overflow_named(bank):
        converged = _climb(networks, objectives, max_steps, tolerance)
    projected = [network.projected() for network in networks]
    stacked = {name: torch.stack([each[name] for each in projected]) for name in symmetry.permutations}
    return CycleConsistent(stacked, [objective * 4.0**-up for objective in objectives], converged)


def _climb(networks: list[_Network], objectives: list[float], max_steps: int, tolerance: float) -> bool:
    """Frank-Wolfe; fills in the objectives and tells whether it converged."""
    numbers = range(len(networks[0].blocks))
    # Of two networks one moves, as in the published matching of pairs: both would step past one another.
    held = networks[:1] if len(networks) == 2 else []
    for _ in range(max_steps):
        total = [sum(network.whole(number) for network in networks) for number in numbers]

        def towards(network: _Network, total=total) -> tuple[list[list[torch.Tensor]], list[np.ndarray]]:
            if network not in held:
                network.aim(total)
            terms = [network.terms(number) for number in numbers]
            return terms, [_gram(some) for some in terms]

        found = side_by_side(towards, networks)
        along = Polynomial([0.0])
        for number in numbers:
            moved = zip(*(terms[number][1:] for terms, _ in found), strict=True)
            summed = _gram([total[number], *map(sum, moved)])
            own = sum(grams[number] for _, grams in found)
            if not np.isfinite([summed, own]).all():
                raise NotFiniteError("the objective must be finite")
            along += _polynomial((summed - own) / 2)
        start, (t, best) = float(along(0.0)), _maximum(along)
        objectives += [] if objectives else [start]
        if best - start <= tolerance * abs(start):
            return True
        for network, (terms, _) in zip(networks, found, strict=True):
            network.step(t, terms)
        objectives.append(best)
    return False


def _polynomial(gram: np.ndarray) -> Polynomial:
    """sum_kl gram[k, l] b_k(t) b_l(t) with b_k(t) = (1 - t)^(d - k) t^k."""
    d, t = len(gram) - 1, Polynomial([0.0, 1.0])
    basis = [(1 - t) ** (d - k) * t**k for k in range(d + 1)]
    return sum((gram[k, m] * basis[k] * basis[m] for k in range(d + 1) for m in range(d + 1)), Polynomial([0.0]))


def _maximum(polynomial: Polynomial) -> tuple[float, float]:
    """Where in [0, 1] a polynomial is largest, and what it is there."""
    turns = polynomial.deriv().roots()
    turns = turns.real[(abs(turns.imag) < 1e-9) & (turns.real > 0) & (turns.real < 1)]
    return max(((float(t), float(polynomial(t))) for t in (0.0, 1.0, *turns)), key=lambda pair: pair[1])


def _gram(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """Inner products of tensors of one shape: of rows in their precision, summed in float64."""
    found = np.empty((len(tensors), len(tensors)))
    matrices = [rows(tensor, 0) for tensor in tensors]
    for i, a in enumerate(matrices):
        for j, b in enumerate(matrices[: i + 1]):
            found[i, j] = found[j, i] = float(torch.linalg.vecdot(a, b).sum(dtype=torch.float64))
    return found


def _combine(terms: Sequence[torch.Tensor], t: float) -> torch.Tensor:
    """sum_k (1 - t)^(d - k) t^k T_k."""
    d = len(terms) - 1
    if d == 0:
        return terms[0]
    total = (1 - t) ** d * terms[0]
    for k, term in enumerate(terms[1:], start=1):
        total.add_(term, alpha=(1 - t) ** (d - k) * t**k)
    return total


def _subsets(axes) -> list[tuple[int, ...]]:
    axes = tuple(axes)
    return list(chain.from_iterable(combinations(axes, k) for k in range(len(axes) + 1)))


def align_cycle_consistent(bank: Bank, seed: Seed = 0) -> Aligned:
    """The networks in the common order that C2M3 finds; ``seed`` does not count, for it draws nothing."""
    found = match_cycle_consistent(bank)
    permuted = bank.architecture.symmetry.apply(bank.tensors, found.permutations)
    return Aligned(Bank(bank.architecture, permuted, bank.labels), len(found.objectives) - 1, found.converged)
