"""Optimal transport fusion (Singh & Jaggi 2020): units matched by incoming weights, from the input on, in one pass.

With as many units on both sides and equal masses an optimal transport is a permutation, so it is found by assignment.
The cost is the squared distance of incoming weights and biases, after the previous layer's transport.
"""

from collections.abc import Collection, Mapping

import torch
from torch.nn.modules.conv import _ConvTransposeNd

from ..architectures import NetworkArchitecture
from ..bank import Bank
from ..networks import Architecture
from ..symmetry import Symmetry
from ..symmetry.blocks import Block, blocks_of, rows
from .assignment import assign
from .scale import lifted, parameters_of
from .weights import Alignment, Found, check_pairs, pair_by_pair


def match_transport(reference: Bank, moving: Bank) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference``, one pass over the layers; nothing is drawn.

    Args:
        reference, moving: banks of one architecture and length; neither is changed.

    Returns:
        An alignment, one sweep each; its objective sums the inner products of incoming weights.

    Raises:
        ValueError: different architectures or lengths, or weights that are not finite.
    """
    check_pairs(reference, moving)
    architecture = moving.architecture
    blocks = blocks_of(architecture.symmetry, architecture.parameters)
    transposed = _transposed(architecture)

    def align(a: Bank, b: Bank, _pair: int) -> Found:
        (ours, up), (theirs, other_up) = lifted(parameters_of(a)), lifted(parameters_of(b))
        permutations, objective = _one_pass(ours, theirs, blocks, architecture.symmetry, transposed)
        return permutations, objective * 2.0 ** -(up + other_up), 1

    return pair_by_pair(align, reference, moving)


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
    return found, total


def _next(blocks: list[Block], found: Mapping, transposed: Collection[str]) -> tuple[str, list[tuple[Block, int]]]:
    """The next permutation, and the parts of weights that come into its units from known ones."""
    unknown = [(block, axis, name) for block in blocks for axis, name in block.moved.items() if name not in found]
    given = [each for each in unknown if each[0].axis_of[each[1]] == (each[0].tensor in transposed)]
    outputs: dict[str, list[tuple[Block, int]]] = {}  # in the order of the layers
    for block, axis, name in given or unknown:  # where no layer gives them, as a table's columns: all that holds them
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
    return rows(ours, axis) @ rows(theirs, axis).T
