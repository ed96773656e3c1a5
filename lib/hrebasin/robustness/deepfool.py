"""DeepFool on banks: minimal perturbations of each image, and what of them is left at each size."""

import numpy as np
import torch
from foolbox.attacks import L2DeepFoolAttack, LinfDeepFoolAttack

from ..bank import Bank
from .foolbox_model import SharedForward, run, select

DEEPFOOL = {"candidates": 10, "overshoot": 0.02, "loss": "logits"}
# DeepFool's steps. Most samples need one or two, yet Foolbox computes all of a batch until the last is done; so what is
# still open after few steps is attacked anew with more. A sample's result does not depend on the others.
ROUNDS = (1, 3, 50)


def deepfool(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, kind: str, epsilons: list[float]
) -> tuple[np.ndarray, ...]:
    """Seek the minimal perturbation of each image of a batch; arguments as in `hrebasin.robustness.attacks.attack`.

    Returns:
        Norm, success and whether a second prediction differs from it, (model, image); and whether the perturbation
        clipped to each size breaks the image, (model, image, epsilon).
    """
    attack = {"deepfool-linf": LinfDeepFoolAttack, "deepfool-l2": L2DeepFoolAttack}[kind]
    with torch.no_grad():
        wrong = bank(pixels).argmax(-1) != labels
    raw = pixels.expand(len(bank), *pixels.shape).clone()
    success = wrong.clone()  # what is misclassified anyway needs no perturbation
    for steps in ROUNDS:
        if success.all():
            break
        some, where = select(bank, ~success)
        attacked = pixels[where[1]], labels[where[1]], None
        found, _, done = run(attack(**DEEPFOOL, steps=steps), some, *attacked, model=SharedForward)
        raw[where], success[where] = found.view_as(raw[where]), done.view_as(success[where])
    change = (raw - pixels).flatten(2)
    norm = change.abs().amax(2) if kind == "deepfool-linf" else change.norm(dim=2)
    with torch.no_grad():
        broken = bank(raw).argmax(-1) != labels
        # the size changes nothing where the perturbation is no larger, or the image wrong anyway
        clipped = broken[..., None].repeat(1, 1, len(epsilons))
        for position, epsilon in enumerate(epsilons):
            smaller = ~wrong & (norm > epsilon)
            if smaller.any():
                some, where = select(bank, smaller)
                given = pixels[where[1]], raw[where]
                inputs = attack.distance.clip_perturbation(*(p.flatten(0, 1) for p in given), epsilon)
                clipped[..., position][where] = some(inputs.view_as(given[0])).argmax(-1) != labels[where[1]]
    return tuple(column.cpu().numpy() for column in (norm, success, broken != success, clipped))
