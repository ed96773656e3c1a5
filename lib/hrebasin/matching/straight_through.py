"""The straight-through estimator (Ainsworth et al. 2023, algorithm 2): permutations that lower the loss half-way.

A shadow of the moving network starts at the reference. Again and again the moving network is permuted to where the
shadow is (weight matching), and the gradient of the loss at the mean of reference and permuted network, taken for the
latter, moves the shadow.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from ..bank import Bank, check_finite, check_same_architecture
from ..batch_statistics import by_batch
from ..checks import check_inputs, check_labels
from ..random_streams import Seed, generator
from ..resources import side_by_side
from .descent import Descent
from .scale import overflow_named
from .weights import Alignment

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
    check_same_architecture(reference, moving)
    if not len(reference) == len(moving) == len(seed):
        raise ValueError(f"{len(seed)} seeds for {len(reference)} reference and {len(moving)} moving networks")
    check_inputs(moving.architecture, pixels)
    check_labels(labels, len(pixels), moving.architecture.n_classes)
    for role, bank in (("reference", reference), ("moving", moving)):
        check_finite(bank, f"{role} networks")

    def align(pair: int) -> Descent:
        a, b = reference.select([pair]), moving.select([pair])
        with overflow_named(a, b):
            return _estimate(a, b, pixels, labels, seed[pair], steps, learning_rate)

    found = side_by_side(align, range(len(moving)))
    names = moving.architecture.symmetry.permutations
    stacked = {name: torch.stack([descent.permutations[name].cpu() for descent in found]) for name in names}
    objectives = [
        sum(float((reference.tensors[name][k].double() * permuted[name].double()).sum()) for name in permuted)
        for k, permuted in enumerate(_parameters(moving, k, descent.permutations) for k, descent in enumerate(found))
    ]
    sweeps = torch.full((len(moving),), steps)
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), sweeps)


def _parameters(bank: Bank, model: int, permutations=None) -> dict[str, torch.Tensor]:
    """Parameters of one network, permuted."""
    own = {name: bank.tensors[name][model] for name in bank.architecture.parameters}
    return own if permutations is None else bank.architecture.symmetry.apply(own, permutations)


def _estimate(
    first: Bank, second: Bank, pixels: torch.Tensor, labels: torch.Tensor, seed: Seed, steps: int, learning_rate: float
) -> Descent:
    """The last projection of the shadow."""
    architecture = second.architecture
    a, b = _parameters(first, 0), _parameters(second, 0)
    shadow = {name: tensor.clone() for name, tensor in a.items()}
    optimizer = torch.optim.Adam(shadow.values(), lr=learning_rate)
    state: dict = {}
    for step in range(steps + 1):
        descent = Descent(shadow, b, architecture.symmetry, **state)
        descent.run(f"{seed}/step-{step}", 1 if step else 100)  # from the last projection one sweep is enough
        state = {"permutations": descent.permutations, "prices": descent.prices}
        if step == steps:
            return descent
        order = torch.randperm(len(pixels), generator=generator(f"straight-through/{seed}/{step}"))[:BATCH]
        permuted = architecture.symmetry.apply(b, descent.permutations)
        for name, gradient in _gradient(first, permuted, pixels[order], labels[order]).items():
            shadow[name].grad = gradient
        optimizer.step()
    raise AssertionError("unreachable")


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
