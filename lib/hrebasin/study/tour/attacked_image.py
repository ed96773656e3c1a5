"""One image under attack: what FGSM adds to it, and what each network answers before and after."""

import numpy as np
import torch
import xarray as xr
from foolbox import PyTorchModel
from foolbox.attacks import LinfFastGradientAttack

from ...bank import Bank, check_finite
from ...checks import check_images
from ...images.sources import Images
from ...robustness.foolbox_model import BankModel


def first_correct(bank: Bank, images: Images) -> int:
    """Position of the first image that all networks of a bank classify correctly.

    Raises:
        ValueError: there is none, images that do not fit, or weights that are not finite.
    """
    _check(bank, images)
    with torch.no_grad():
        right = (bank(images.pixels).argmax(-1) == images.labels).all(0)
    if not right.any():
        raise ValueError(f"no image of {len(images)} is classified correctly by all {len(bank)} networks")
    return int(right.int().argmax())


def closeup(bank: Bank, images: Images, position: int, *, epsilon: float) -> xr.Dataset:
    """Attack one image with FGSM (L-infinity, no random start), each network with its own gradient.

    Args:
        bank: the networks.
        images: where the image is.
        position: of the image.
        epsilon: size of the attack, pixels in [0, 1].

    Returns:
        ``original`` (channel, y, x) and ``attacked`` (model, channel, y, x), pixels in [0, 1], and ``probability``
        (model, state, class) before and after; attributes ``label``, the true class, and ``epsilon``.

    Raises:
        ValueError: no such image, an epsilon outside [0, 1], or what `first_correct` refuses.
    """
    _check(bank, images)
    if not 0 <= position < len(images):
        raise ValueError(f"position {position} is not among the {len(images)} images")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must lie in [0, 1], got {epsilon}")
    pixels = images.pixels[position].float() / 255
    label = int(images.labels[position])
    before = pixels.expand(len(bank), *pixels.shape)
    model = PyTorchModel(BankModel(bank).eval(), bounds=(0, 1), device=bank.device)
    labels = torch.full((len(bank),), label)
    _, after, _ = LinfFastGradientAttack(random_start=False)(model, before, labels, epsilons=epsilon)
    with torch.no_grad():
        answers = [bank(batch.unsqueeze(1)).softmax(-1)[:, 0] for batch in (before, after)]
    space = ("channel", "y", "x")
    share = {"long_name": "pixel value", "units": "1"}
    classes = xr.Variable("class", np.array(images.classes, dtype=object), {"long_name": "class", "units": "1"})
    state = xr.Variable("state", np.array(["before", "after"], dtype=object), {"long_name": "attack", "units": "1"})
    probability = bank.array(
        torch.stack(answers, 1), ("model", "state", "class"), name="probability", long_name="softmax of the logits",
        units="1", state=state, **{"class": classes},
    )  # fmt: skip
    return xr.Dataset(
        {
            "original": (space, pixels.numpy(), share),
            "attacked": (("model", *space), after.numpy(), share),
            "probability": probability,
        },
        attrs={"label": images.classes[label], "epsilon": epsilon},
    )


def _check(bank: Bank, images: Images) -> None:
    check_images(bank.architecture, images)
    check_finite(bank, "networks under attack")
