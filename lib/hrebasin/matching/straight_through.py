"""The straight-through estimator (Ainsworth et al. 2023, algorithm 2): permutations that lower the loss half-way.

A shadow of the moving network starts at the reference. Again and again the moving network is permuted to where the
shadow is (weight matching), and the gradient of the loss at the mean of reference and permuted network, taken for the
latter, moves the shadow.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from ..bank import Bank
from ..batch_statistics import by_batch
from ..checks import check_inputs, check_labels
from ..random_streams import Seed, generator
from .descent import CONVERGENCE, Descent
from .scale import parameters_of
from .weights import Alignment, Found, check_pairs, pair_by_pair

STEPS = 30
BATCH = 200  # images
LEARNING_RATE = 1e-3  # of Adam


def match_straight_through(
    reference: Bank,
    moving: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: Sequence[Seed],
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference`` by the loss of their mean.

    Args:
        reference, moving: banks of one architecture and length; neither is changed.
        pixels: training images (image, ...) as the networks take them.
        labels: (image,) int64.
        seed: of the orders of images and layers, for each pair.
        steps: of Adam, on `BATCH` images each.
        learning_rate: of Adam.

    Returns:
        An alignment, one sweep a step; its objective is that of weight matching.

    Raises:
        ValueError: different architectures or lengths, weights that are not finite, or images that do not fit.
    """
    check_pairs(reference, moving)
    if len(seed) != len(moving):
        raise ValueError(f"{len(seed)} seeds for {len(reference)} reference and {len(moving)} moving networks")
    check_inputs(moving.architecture, pixels)
    check_labels(labels, len(pixels), moving.architecture.n_classes)

    def align(a: Bank, b: Bank, pair: int) -> Found:
        permuted, permutations = _estimate(a, b, pixels, labels, seed[pair], steps, learning_rate)
        ours = parameters_of(a)
        return permutations, sum(float((ours[k].double() * own.double()).sum()) for k, own in permuted.items()), steps

    return pair_by_pair(align, reference, moving)


def _estimate(
    first: Bank, second: Bank, pixels: torch.Tensor, labels: torch.Tensor, seed: Seed, steps: int, learning_rate: float
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The second network's parameters where the shadow is last, and the permutations that take them there."""
    symmetry, b = second.architecture.symmetry, parameters_of(second)
    shadow = {name: tensor.clone() for name, tensor in parameters_of(first).items()}
    optimizer = torch.optim.Adam(shadow.values(), lr=learning_rate)
    descent = Descent(shadow, b, symmetry)
    descent.run(f"{seed}/step-0", CONVERGENCE)
    permuted = symmetry.apply(b, descent.permutations)
    for step in range(steps):
        order = torch.randperm(len(pixels), generator=generator(f"straight-through/{seed}/{step}"))[:BATCH]
        for name, gradient in _gradient(first, permuted, pixels[order], labels[order]).items():
            shadow[name].grad = gradient
        optimizer.step()
        descent = Descent(shadow, b, symmetry, permutations=descent.permutations, prices=descent.prices)
        descent.run(f"{seed}/step-{step + 1}", 1)  # from the last projection one sweep is enough
        permuted = symmetry.apply(b, descent.permutations)
    return permuted, descent.permutations


def _gradient(first: Bank, permuted: dict[str, torch.Tensor], pixels: torch.Tensor, labels: torch.Tensor):
    """Of the loss half-way, for the permuted network's parameters; batch norm takes the statistics of the batch."""
    architecture, device = by_batch(first.architecture), first.device
    leaves = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in permuted.items()}
    buffers = {name: tensor.clone() for name, tensor in first.tensors.items() if name not in leaves}
    middle = {name: (first.tensors[name][0] + leaf)[None] / 2 for name, leaf in leaves.items()} | buffers
    with torch.enable_grad():
        outputs = architecture.logits(middle, architecture.prepare(pixels.to(device)), training=True)[0]
        loss = cross_entropy(outputs, labels.to(device))
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
