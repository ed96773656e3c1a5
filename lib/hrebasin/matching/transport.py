"""Optimal transport fusion (Singh & Jaggi 2020): units matched by incoming weights, from the input on, in one pass.

With as many units on both sides and equal masses an optimal transport is a permutation, so it is found by assignment.
The cost is the squared distance of incoming weights and biases, after the previous layer's transport.
"""

from collections.abc import Collection, Mapping

import torch
from torch.nn.modules.conv import _ConvTransposeNd

from ..architectures import NetworkArchitecture
from ..bank import Bank, check_finite, check_same_architecture
from ..networks import Architecture
from ..resources import side_by_side
from ..symmetry import Symmetry
from ..symmetry.blocks import Block, blocks_of
from .assignment import assign
from .scale import lifted, overflow_named
from .weights import Alignment


def match_transport(reference: Bank, moving: Bank) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference``, one pass over the layers; nothing is drawn.

    Args:
        reference, moving: banks of one architecture and length; neither is changed.

    Returns:
        An alignment, one sweep each; its objective sums the inner products of incoming weights.

    Raises:
        ValueError: different architectures or lengths, or weights that are not finite.
    """
    check_same_architecture(reference, moving)
    if len(reference) != len(moving):
        raise ValueError(f"{len(reference)} reference networks cannot be paired with {len(moving)} moving ones")
    for role, bank in (("reference", reference), ("moving", moving)):
        check_finite(bank, f"{role} networks")
    architecture = moving.architecture
    blocks = blocks_of(architecture.symmetry, architecture.parameters)
    transposed = _transposed(architecture)

    def align(pair: int) -> tuple[dict[str, torch.Tensor], float]:
        a, b = ({name: bank.tensors[name][pair] for name in architecture.parameters} for bank in (reference, moving))
        (a, up), (b, other_up) = lifted(a), lifted(b)
        with overflow_named(reference.select([pair]), moving.select([pair])):
            permutations, objective = _one_pass(a, b, blocks, architecture.symmetry, transposed)
        return permutations, objective * 2.0 ** -(up + other_up)

    found, objectives = zip(*side_by_side(align, range(len(moving))), strict=True)
    stacked = {name: torch.stack([perms[name] for perms in found]) for name in architecture.symmetry.permutations}
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), torch.ones(len(moving), dtype=torch.int64))


def _transposed(architecture: Architecture | NetworkArchitecture) -> set[str]:
    """Names of weights whose first axis takes and whose second gives: those of transposed convolutions."""
    modules = architecture.template.named_modules() if isinstance(architecture, NetworkArchitecture) else ()
    return {f"{name}.weight".removeprefix(".") for name, module in modules if isinstance(module, _ConvTransposeNd)}


def _one_pass(
    a: Mapping, b: Mapping, blocks: list[Block], symmetry: Symmetry, transposed: Collection[str]
) -> tuple[dict[str, torch.Tensor], float]:
    found: dict[str, torch.Tensor] = {}
    total = 0.0
    while len(found) < len(symmetry.permutations):
        name, incoming = _next(blocks, found, transposed)
        gains = sum(_products(a, b, block, axis, found) for block, axis in incoming)
        perm = torch.from_numpy(assign(gains.cpu().numpy()[None])[0][0])
        total += float(gains.cpu().gather(1, perm[:, None]).sum(dtype=torch.float64))
        found[name] = perm.to(gains.device)
    return {name: perm.cpu() for name, perm in found.items()}, total


def _next(blocks: list[Block], found: Mapping, transposed: Collection[str]) -> tuple[str, list[tuple[Block, int]]]:
    """The next permutation, and the parts of weights that come into its units from known ones."""
    outputs: dict[str, list[tuple[Block, int]]] = {}  # in the order of the layers
    for block in blocks:
        for axis, name in block.moved.items():
            if name not in found and block.axis_of[axis] == (block.tensor in transposed):
                outputs.setdefault(name, []).append((block, axis))
    if not outputs:  # units that no layer gives, such as a table's columns: by all that holds them
        for block in blocks:
            for axis, name in block.moved.items():
                if name not in found:
                    outputs.setdefault(name, []).append((block, axis))
    for name, places in outputs.items():
        known = [(block, axis) for block, axis in places
                 if all(other in found for k, other in block.moved.items() if k != axis)]  # fmt: skip
        if any(len(block.shape) > 1 for block, _ in known):  # more than a bias
            return name, known
    return next(iter(outputs.items()))


def _products(a: Mapping, b: Mapping, block: Block, axis: int, found: Mapping) -> torch.Tensor:
    """<unit i of A, unit j of B> over one part, (unit, unit), known units of B in their new order."""
    ours, theirs = (each[block.tensor][block.where].reshape(block.shape) for each in (a, b))
    for other, name in block.moved.items():
        if other != axis and name in found:
            theirs = theirs.index_select(other, found[name])
    ours, theirs = (each.movedim(axis, 0).reshape(each.shape[axis], -1) for each in (ours, theirs))
    return ours @ theirs.T
