"""Attacks that test each size on its own, FGSM first."""

import random
from collections.abc import Callable
from functools import partial

import eagerpy as ep
import numpy as np
import torch
from foolbox import Attack
from foolbox.attacks import LinfFastGradientAttack

from ..bank import Bank
from .foolbox_model import run


class FGSM(LinfFastGradientAttack):
    """Foolbox's FGSM (Goodfellow et al. 2015) without random start; one gradient serves every size.

    The gradient and its sign are of float64: in float32 the gradient of a network that is sure of itself is rounding
    where it is not zero, and the network seems robust. Perturbed images are predicted as they are without attack.

    Args:
        precision: of the gradient.

    Attributes:
        vanished: after the attack, the samples whose gradient is exactly zero, (sample,).
    """

    def __init__(self, precision: torch.dtype = torch.float64):
        super().__init__(random_start=False)
        self.precision, self.kept, self.vanished = precision, None, None

    def value_and_grad(self, loss_fn, x):
        """Of the first call; the gradient's sign stands for the gradient."""
        if self.kept is None:
            value, gradient = super().value_and_grad(loss_fn, ep.astensor(x.raw.to(self.precision)))
            self.vanished = (gradient.raw == 0).flatten(1).all(1)
            self.kept = value, ep.astensor(gradient.raw.sign().to(x.raw.dtype))
        return self.kept


# Made anew for every batch. An attack that is added here (an L-infinity attack of Foolbox without random numbers, or
# they would depend on the batches) is in every data set and figure of a run.
FIXED_SIZE: dict[str, Callable[[], Attack]] = {"fgsm": FGSM}
COMPARED: dict[str, Callable[[], Attack]] = {"fgsm-float32": partial(FGSM, torch.float32)}  # where asked for alone


def fixed_size(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, kind: str, epsilons: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Attack one batch with each size; arguments as in `hrebasin.robustness.attacks.attack`, checked.

    Returns:
        Whether each image is still classified correctly, (model, image, epsilon); and whether its gradient is exactly
        zero, (model, image), not a number for attacks that do not tell.

    Raises:
        ValueError: the attack draws random numbers.
    """
    shape, attack = (len(bank), len(pixels)), (FIXED_SIZE | COMPARED)[kind]()
    pixels, labels = pixels.expand(len(bank), *pixels.shape), labels.expand(shape)
    before = _random_states()
    _, _, broken = run(attack, bank, pixels, labels, epsilons)
    if _random_states() != before:
        raise ValueError(f"the attack {kind!r} draws random numbers, so its results would depend on the batches")
    vanished = getattr(attack, "vanished", None)
    vanished = np.full(shape, np.nan) if vanished is None else vanished.view(shape).double().cpu().numpy()
    return ~broken.unflatten(1, shape).movedim(0, 2).cpu().numpy(), vanished


def _random_states() -> tuple:
    """States of the global random numbers that an attack of somebody else's may draw."""
    numpy = np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torchs = [state.numpy().tobytes() for state in (torch.get_rng_state(), *cuda)]
    return torchs, numpy[1].tobytes(), numpy[2], random.getstate()
