"""Weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

Coordinate descent on ||A - pi(B)||^2: in random layer order, each hidden layer's permutation becomes the best
one given its neighbours', by linear assignment on C_l = W_l^A P_{l-1} (W_l^B)^T + (W_{l+1}^A)^T P_{l+1} W_{l+1}^B
+ b_l^A (b_l^B)^T. It ends in a local minimum that depends on the order.

Pairs run side by side on CPU threads, their products where the banks live; see `hrebasin.matching.descent`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..bank import Bank, check_finite, check_same_architecture
from ..checks import check_bank, check_permutations
from ..random_streams import Seed
from ..resources import plain_torch, side_by_side
from ..symmetry import inverse
from .descent import CONVERGENCE, Descent
from .scale import lifted, overflow_named, parameters_of

Found = tuple[dict[str, torch.Tensor], float, int]  # permutations of one pair, its objective, and sweeps


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
        symmetry = bank.architecture.symmetry
        given = {name: tuple(perm.shape) for name, perm in self.permutations.items()}
        if given != {name: (len(bank), width) for name, width in symmetry.permutations.items()}:
            wanted = f"{len(bank)} networks of units {symmetry.permutations}"
            raise ValueError(f"permutations {given} (pair, unit) cannot permute {wanted}")
        permuted = symmetry.apply(bank.tensors, self.permutations)
        return Bank(bank.architecture, permuted, bank.labels, bank.history)

    def inverse(self) -> "Alignment":
        """The alignment that takes the permuted networks back."""
        return Alignment(inverse(self.permutations), self.objective, self.sweeps)


def check_pairs(reference: Bank, moving: Bank) -> None:
    """Raise ValueError unless these are as many finite networks of one architecture, with units to permute."""
    check_same_architecture(reference, moving)
    if len(reference) != len(moving):
        raise ValueError(f"{len(reference)} reference networks cannot be paired with {len(moving)} moving ones")
    for role, bank in (("reference", reference), ("moving", moving)):
        check_finite(bank, f"{role} networks")
    check_permutations(moving)


def pair_by_pair(
    align: Callable[[Bank, Bank, int], Found], reference: Bank, moving: Bank, *, what: str = "products of weights"
) -> Alignment:
    """The alignment of all pairs, side by side on CPU threads.

    Args:
        align: takes both networks of a pair, as banks of one, and its number.
        reference, moving: as `check_pairs` wants them.
        what: may leave float32, for an error that names the largest weight.
    """

    def aligned(pair: int) -> Found:
        alone = slice(pair, pair + 1)
        a, b = reference.select(alone), moving.select(alone)
        with overflow_named(a, b, what=what):
            return align(a, b, pair)

    permutations, objectives, sweeps = zip(*side_by_side(aligned, range(len(moving))), strict=True)
    names = moving.architecture.symmetry.permutations
    stacked = {name: torch.stack([perms[name].cpu() for perms in permutations]) for name in names}
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), torch.tensor(sweeps))


@plain_torch()
def match_weights(
    reference: Bank,
    moving: Bank,
    *,
    seed: Seed | Sequence[Seed] = 0,
    max_sweeps: int = CONVERGENCE,
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

    Raises:
        ValueError: different architectures or lengths, or weights that are not finite, or so large (from about 1e18)
            that their products are not; network and tensor are named.
    """
    check_bank(reference, moving)
    check_pairs(reference, moving)
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    seeds = [seed] * len(moving) if isinstance(seed, (int, str, np.integer)) else list(seed)
    if len(seeds) != len(moving):
        raise ValueError(f"{len(seeds)} seeds given for {len(moving)} pairs")
    symmetry = moving.architecture.symmetry

    def align(a: Bank, b: Bank, pair: int) -> Found:
        (ours, up), (theirs, other_up) = lifted(parameters_of(a)), lifted(parameters_of(b))
        descent = Descent(ours, theirs, symmetry)
        sweeps = descent.run(seeds[pair], max_sweeps)
        return descent.permutations, descent.objective() * 2.0 ** -(up + other_up), sweeps

    return pair_by_pair(align, reference, moving)
