"""Weight matching (Ainsworth et al. 2023, algorithm 1) for many pairs of networks at once.

Coordinate descent on ||A - pi(B)||^2: in random layer order, each hidden layer's permutation becomes the best
one given its neighbours', by linear assignment on C_l = W_l^A P_{l-1} (W_l^B)^T + (W_{l+1}^A)^T P_{l+1} W_{l+1}^B
+ b_l^A (b_l^B)^T. It ends in a local minimum that depends on the order.

Pairs run side by side on CPU threads, their products where the banks live; see `hrebasin.matching.descent`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..bank import Bank, check_finite, check_same_architecture
from ..checks import check_bank
from ..random_streams import Seed
from ..resources import plain_torch, side_by_side
from ..symmetry import inverse
from .descent import TOLERANCE, Descent
from .scale import lifted, overflow_named


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


@plain_torch()
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
        ValueError: different architectures or lengths, or weights that are not finite, or so large (from about 1e18)
            that their products are not; network and tensor are named.
    """
    check_bank(reference, moving)
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
    symmetry, parameters = moving.architecture.symmetry, moving.architecture.parameters

    def align(pair: int) -> tuple[dict[str, torch.Tensor], float, int]:
        a, b = ({name: bank.tensors[name][pair] for name in parameters} for bank in (reference, moving))
        (a, up), (b, other_up) = lifted(a), lifted(b)
        descent, alone = Descent(a, b, symmetry, tolerance=tolerance), slice(pair, pair + 1)
        with overflow_named(reference.select(alone), moving.select(alone)):
            sweeps = descent.run(seeds[pair], max_sweeps)
        permutations = {name: perm.cpu() for name, perm in descent.permutations.items()}
        return permutations, descent.objective() * 2.0 ** -(up + other_up), sweeps

    if not symmetry.permutations:
        raise ValueError(f"{moving.architecture.title} has no permutation symmetry: there is nothing to match")
    permutations, objectives, sweeps = zip(*side_by_side(align, range(len(moving))), strict=True)
    stacked = {name: torch.stack([perms[name] for perms in permutations]) for name in permutations[0]}
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), torch.tensor(sweeps))
