"""Attacks that ask whether a network is robust or only hard to attack: PGD and images of other networks."""

from collections.abc import Sequence

import eagerpy as ep
import numpy as np
import torch
import xarray as xr
from foolbox.attacks import LinfProjectedGradientDescentAttack

from ..bank import Bank
from ..checks import check_bank
from ..evaluation import margins
from ..random_streams import generator
from ..resources import plain_torch, subnormals_flushed
from .attacks import check_attack, robust_flags
from .fgsm import FGSM
from .foolbox_model import NETWORKS_AT_ONCE, fitting_samples, in_pieces, in_unit_range, run, select

LOSSES = ("cross-entropy", "margin")
STEPS, RESTARTS = 50, 5
QUICK = 10  # steps of a first try, which breaks most of what breaks at all


class _PGD(LinfProjectedGradientDescentAttack):
    """PGD from a given start, up a chosen loss."""

    def __init__(self, start: torch.Tensor, loss: str, steps: int):
        super().__init__(rel_stepsize=2.5 / steps, steps=steps, random_start=True)
        self.start, self.loss = start, loss

    def get_random_start(self, x0, epsilon):
        return x0 + epsilon * ep.astensor(self.start)

    def get_loss_fn(self, model, labels):
        if self.loss == "cross-entropy":
            return super().get_loss_fn(model, labels)

        return lambda inputs: ep.astensor(-margins(model(inputs).raw, labels.raw).sum())


@subnormals_flushed()
@plain_torch()
def pgd(
    bank: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilons: Sequence[float],
    loss: str = "cross-entropy",
    steps: int = STEPS,
    restarts: int = RESTARTS,
    device: str = "cpu",
) -> xr.DataArray:
    """Projected gradient descent (Madry et al. 2018), L-infinity, from random starts, through Foolbox.

    Args:
        bank, pixels, labels, epsilons, device: as in `hrebasin.robustness.attacks.attack`.
        loss: ``"cross-entropy"``, or ``"margin"``, the largest other logit minus the true one, whose gradient does not
            vanish where a network is sure of itself.
        steps: of size 2.5 epsilon / steps.
        restarts: from starts that are uniform in the ball, the same for every network. An image that one breaks is left
            alone by those that follow and by larger sizes, whose balls hold the same perturbation; the first start is
            tried with `QUICK` steps before.

    Returns:
        Whether each image is still classified correctly, ``robust`` (model, epsilon, image) int8.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")
    if min(steps, restarts) < 1:
        raise ValueError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
    epsilons = check_attack(bank, pixels, labels, "fgsm", epsilons)
    pixels, labels = in_unit_range(pixels).to(device), labels.to(device)
    stream = generator("pgd/starts")
    starts = [(2 * torch.rand(pixels.shape, generator=stream) - 1).to(device) for _ in range(restarts)]
    parts, size = [], fitting_samples(bank, pixels, device)
    for piece in bank.chunks(min(NETWORKS_AT_ONCE[torch.device(device).type], size)):
        piece, columns = piece.to(device), []
        for part, true, *here in in_pieces(piece, size, f"PGD, {loss}", pixels, labels, *starts):
            columns.append(_pgd(piece, part, true, epsilons, here, loss, steps))
        parts.append(np.concatenate(columns, axis=2))
    return robust_flags(bank, np.concatenate(parts), epsilons)


def _pgd(bank, pixels, labels, epsilons, starts, loss, most) -> np.ndarray:
    """Whether each image withstands, (model, epsilon, image)."""
    with torch.no_grad():
        right = bank(pixels).argmax(-1) == labels
    robust = right[:, None].repeat(1, len(epsilons), 1)
    tries = [(starts[0], QUICK)] * (most > QUICK) + [(start, most) for start in starts]
    for position, epsilon in enumerate(epsilons):
        robust[:, position] &= robust[:, max(position - 1, 0)]
        for start, steps in tries if epsilon else ():
            left = robust[:, position]
            if not left.any():
                break
            some, where = select(bank, left)
            attack = _PGD(start[where[1]].flatten(0, 1), loss, steps)
            _, _, broken = run(attack, some, pixels[where[1]], labels[where[1]], [epsilon])
            robust[:, position][where] = ~broken[0].view(where[1].shape)
    return robust.cpu().numpy()


@subnormals_flushed()
@plain_torch()
def transferred(
    bank: Bank,
    source: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilons: Sequence[float],
    kind: str = "fgsm",
    steps: int = STEPS,
) -> xr.DataArray:
    """Robustness to images that were made to fool another network, ``robust`` (model, epsilon, image) int8.

    Args:
        bank: the networks that are asked.
        source: one network, whose gradients make the images; neither asked itself nor one that they were merged from.
        pixels, labels, epsilons: as in `hrebasin.robustness.attacks.attack`.
        kind: ``"fgsm"``, or ``"pgd"`` on the margin from one random start.
        steps: of PGD.
    """
    check_bank(bank, source)
    if len(source) != 1:
        raise ValueError(f"images are transferred from one network, got {len(source)}")
    if kind not in ("fgsm", "pgd"):
        raise ValueError(f"images are transferred from 'fgsm' or 'pgd', got {kind!r}")
    for asked in (source, bank):
        epsilons = check_attack(asked, pixels, labels, "fgsm", epsilons)
    given, labels = in_unit_range(pixels).to(bank.device), labels.to(bank.device)
    start = (2 * torch.rand(given.shape, generator=generator("pgd/starts")) - 1).to(given)
    source, size, parts = source.to(bank.device), fitting_samples(source, given, bank.device), []
    for part, true, here in in_pieces(source, size, kind, given, labels, start):
        attack = _PGD(here, "margin", steps) if kind == "pgd" else FGSM()
        _, images, _ = run(attack, source, part[None], true[None], epsilons)
        with torch.no_grad():
            parts.append(torch.stack([bank(changed).argmax(-1) == true for changed in images], dim=1))
    return robust_flags(bank, torch.cat(parts, dim=2).cpu().numpy(), epsilons)
