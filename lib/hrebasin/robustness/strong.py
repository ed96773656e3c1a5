"""Attacks that ask whether a network is robust or only hard to attack: PGD, transfer, float64, rescaled logits."""

from collections.abc import Sequence

import eagerpy as ep
import numpy as np
import torch
import xarray as xr
from foolbox.attacks import LinfFastGradientAttack, LinfProjectedGradientDescentAttack

from ..bank import Bank, check_finite
from ..checks import check_pixels, is_relu_mlp
from ..random_streams import generator
from .attacks import check_attack, fixed_size
from .foolbox_model import NETWORKS_AT_ONCE, SAMPLES_AT_ONCE, fitting_samples, in_pieces, run, select

LOSSES = ("cross-entropy", "margin")
STEPS, RESTARTS = 50, 5


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

        def margin(inputs):
            logits, true = model(inputs).raw, labels.raw[:, None]
            others = logits.scatter(1, true, -torch.inf).amax(1)
            return ep.astensor((others - logits.gather(1, true)[:, 0]).sum())

        return margin


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
        restarts: from starts that are uniform in the ball, the same for every network; an image that one breaks is left
            alone by those that follow.

    Returns:
        Whether each image is still classified correctly, ``robust`` (model, epsilon, image) int8.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {LOSSES}, got {loss!r}")
    if min(steps, restarts) < 1:
        raise ValueError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
    epsilons = check_attack(bank, pixels, labels, "fgsm", epsilons)
    pixels, labels = _floats(pixels).to(device), labels.to(device)
    stream = generator("pgd/starts")
    starts = [(2 * torch.rand(pixels.shape, generator=stream) - 1).to(device) for _ in range(restarts)]
    parts, size = [], _at_once(bank, pixels, device)
    for piece in bank.chunks(min(NETWORKS_AT_ONCE[torch.device(device).type], size)):
        piece, done, columns = piece.to(device), 0, []
        for _, part, true in in_pieces(piece, pixels, labels, size, f"PGD, {loss}"):
            here = [start[done : done + len(part)] for start in starts]
            columns.append(_pgd(piece, part, true, epsilons, here, loss, steps))
            done += len(part)
        parts.append(np.concatenate(columns, axis=2))
    return _robust(bank, np.concatenate(parts), epsilons)


def _pgd(bank, pixels, labels, epsilons, starts, loss, steps) -> np.ndarray:
    """Whether each image withstands, (model, epsilon, image)."""
    with torch.no_grad():
        right = bank(pixels).argmax(-1) == labels
    robust = right[:, None].repeat(1, len(epsilons), 1)
    for position, epsilon in enumerate(epsilons):
        for start in starts if epsilon else ():
            left = robust[:, position]
            if not left.any():
                break
            some, where = select(bank, left)
            attack = _PGD(start[where[1]].flatten(0, 1), loss, steps)
            _, _, broken = run(attack, some, pixels[where[1]], labels[where[1]], [epsilon])
            robust[:, position][where] = ~broken[0].view(where[1].shape)
    return robust.cpu().numpy()


def transferred(
    bank: Bank, source: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, epsilons: Sequence[float]
) -> xr.DataArray:
    """Robustness to FGSM images of another network, ``robust`` (model, epsilon, image) int8.

    Args:
        bank: the networks that are asked.
        source: one network, whose gradients make the images.
        pixels, labels, epsilons: as in `hrebasin.robustness.attacks.attack`.
    """
    if len(source) != 1:
        raise ValueError(f"images are transferred from one network, got {len(source)}")
    for asked in (source, bank):
        epsilons = check_attack(asked, pixels, labels, "fgsm", epsilons)
    given, labels = _floats(pixels).to(bank.device), labels.to(bank.device)
    attack, parts = LinfFastGradientAttack(random_start=False), []
    size = fitting_samples(bank, given, device=bank.device)
    for one, part, true in in_pieces(source.to(bank.device), given, labels, size, "transfer"):
        _, images, _ = run(attack, one, part[None], true[None], epsilons)
        with torch.no_grad():
            parts.append(torch.stack([bank(changed).argmax(-1) == true for changed in images], dim=1))
    return _robust(bank, torch.cat(parts, dim=2).cpu().numpy(), epsilons)


def fgsm_in_float64(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, epsilons: Sequence[float]
) -> xr.DataArray:
    """FGSM with all arithmetic in float64, ``robust`` (model, epsilon, image) int8."""
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in bank.tensors.items()}  # counters stay
    double = Bank(bank.architecture, tensors, bank.labels)
    return fgsm(double, _floats(pixels).double(), labels, epsilons=epsilons)


def fgsm_with_rescaled_logits(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, epsilons: Sequence[float], factor: float
) -> xr.DataArray:
    """FGSM on networks whose logits are ``factor`` times as large, ``robust`` (model, epsilon, image) int8.

    Decisions are those of the given networks; only the loss that gives the gradient differs. So what a network seems to
    gain from small or large logits disappears.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor must be positive and finite, got {factor}")
    if not is_relu_mlp(bank.architecture):
        return fgsm(bank, pixels, labels, epsilons=epsilons, factor=factor)
    last = list(bank.architecture.layers)[-1]
    tensors = {key: tensor * factor if key.startswith(f"{last}.") else tensor for key, tensor in bank.tensors.items()}
    return fgsm(Bank(bank.architecture, tensors, bank.labels), pixels, labels, epsilons=epsilons)


def fgsm(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, epsilons: Sequence[float], factor: float = 1.0
) -> xr.DataArray:
    """FGSM image by image, where `hrebasin.robustness.attacks.attack` gives means.

    Args:
        bank, pixels, labels, epsilons: as there.
        factor: that logits are multiplied by.

    Returns:
        ``robust`` (model, epsilon, image) int8.
    """
    epsilons, parts = check_attack(bank, pixels, labels, "fgsm", epsilons), []
    pixels, labels = pixels.to(bank.device), labels.to(bank.device)
    pixels = pixels if pixels.is_floating_point() else _floats(pixels)
    size = _at_once(bank, pixels, bank.device)
    for piece in bank.chunks(NETWORKS_AT_ONCE[bank.device.type]):
        given = in_pieces(piece, pixels, labels, size, "fgsm")
        columns = [fixed_size(*each, "fgsm", epsilons, factor=factor) for each in given]
        parts.append(~np.concatenate(columns, axis=2))
    return _robust(bank, np.concatenate(parts), epsilons)


def zero_gradients(bank: Bank, pixels: torch.Tensor, labels: torch.Tensor) -> xr.DataArray:
    """Share of images at which every component of the cross-entropy's gradient is exactly zero, (model,)."""
    check_pixels(bank.architecture, pixels, labels)
    check_finite(bank, "gradients")
    given, labels = _floats(pixels).to(bank.device), labels.to(bank.device)
    size, shares = fitting_samples(bank, given, device=bank.device), []
    for some in bank.chunks(NETWORKS_AT_ONCE[bank.device.type]):
        vanished = []
        for piece, part, true in in_pieces(some, given, labels, size, "gradients"):
            inputs = part.expand(len(piece), *part.shape).clone().requires_grad_()
            wanted = true.expand(len(piece), -1).flatten()
            torch.nn.functional.cross_entropy(piece(inputs).flatten(0, 1), wanted, reduction="sum").backward()
            vanished.append((inputs.grad == 0).flatten(2).all(2))
        shares.append(torch.cat(vanished, dim=1).double().mean(1))
    return bank.array(
        torch.cat(shares), name="zero_gradients", long_name="share of images without any gradient", units="1"
    )


def _robust(bank: Bank, robust: np.ndarray, epsilons: list[float]) -> xr.DataArray:
    axis = xr.Variable("epsilon", epsilons, {"long_name": "size of the perturbation", "units": "pixel range"})
    return bank.array(
        robust.astype(np.int8),
        ("model", "epsilon", "image"),
        name="robust",
        long_name="whether the image is still classified correctly",
        units="1",
        epsilon=axis,
        image=np.arange(robust.shape[2]),
    )


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _at_once(bank: Bank, pixels: torch.Tensor, device: str | torch.device) -> int:
    return fitting_samples(bank, pixels, device=device, most=SAMPLES_AT_ONCE[torch.device(device).type])
