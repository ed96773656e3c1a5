"""Accuracy and loss of banks on images."""

import torch
import xarray as xr

from .bank import Bank, check_finite
from .checks import check_bank, check_images
from .images.sources import Images
from .resources import halving, plain_torch

IMAGES_AT_ONCE = 2500


@plain_torch()
def evaluate(
    bank: Bank, images: Images, *, device: str | None = None, images_at_once: int = IMAGES_AT_ONCE
) -> xr.Dataset:
    """Accuracy (share of images) and mean cross-entropy (nat) of every network, both (model,).

    Args:
        bank: the networks.
        images: labelled images of the architecture's shape.
        device: where to compute; by default where the bank lives.
        images_at_once: bounds the memory; halved where a GPU's does not suffice.

    Raises:
        ValueError: images of another shape or number of classes, or weights that are not finite.
    """
    check_bank(bank)
    check_images(bank.architecture, images)
    check_finite(bank, "evaluation")
    device = device or bank.device
    bank, images = bank.to(device), images.to(device)

    def summed(size: int) -> torch.Tensor:
        return sum(scores(bank(pixels), labels) for pixels, labels in batches_of(images, size))

    with torch.no_grad():
        return means(bank, halving(summed, images_at_once, what="images")[0], len(images))


def batches_of(images: Images, size: int) -> zip:
    """Pixels and labels, so many images at a time."""
    return zip(images.pixels.split(size), images.labels.split(size), strict=True)


def scores(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums over images from logits (model, image, class): how many are right, and cross-entropy, (2, model) float64."""
    labels = labels.expand(len(outputs), -1)
    losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
    return torch.stack([(outputs.argmax(-1) == labels).double().sum(1), losses.view_as(labels).double().sum(1)])


def means(bank: Bank, scores: torch.Tensor, n_images: int) -> xr.Dataset:
    """Accuracy and loss from the sums that `scores` gives over all images."""
    right, loss = scores / n_images
    return xr.Dataset(
        {
            "accuracy": bank.array(right, long_name="accuracy", units="1"),
            "loss": bank.array(loss, long_name="mean cross-entropy", units="nat"),
        }
    )


def accuracy(bank: Bank, images: Images, *, device: str | None = None) -> xr.DataArray:
    """Share of images that each network classifies correctly, (model,)."""
    return evaluate(bank, images, device=device).accuracy


def margins(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The true logit minus the largest other one, (..., image), from logits (..., image, class)."""
    true = labels[..., None]
    return outputs.gather(-1, true)[..., 0] - outputs.scatter(-1, true, -torch.inf).amax(-1)
