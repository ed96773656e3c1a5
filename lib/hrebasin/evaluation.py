"""Accuracy and loss of banks, and barriers along straight lines between networks."""

from collections.abc import Sequence

import torch
import xarray as xr

from .bank import Bank, after_first, check_finite, first_layer, normalize
from .checks import check_images
from .images import Images
from .memory import halving
from .merging import interpolate
from .progress import track

IMAGES_AT_ONCE = 2500


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
    check_images(bank.architecture, images)
    check_finite(bank, "evaluation")
    device = device or bank.device
    bank, images = bank.to(device), images.to(device)

    def scores(size: int) -> torch.Tensor:
        return sum(_scores(bank(pixels), labels) for pixels, labels in _batches(images, size))

    with torch.no_grad():
        return _means(bank, halving(scores, images_at_once, what="images")[0], len(images))


def _batches(images: Images, size: int) -> zip:
    return zip(images.pixels.split(size), images.labels.split(size), strict=True)


def _scores(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums over images from logits (model, image, class): how many are right, and cross-entropy, (2, model) float64."""
    labels = labels.expand(len(outputs), -1)
    losses = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
    return torch.stack([(outputs.argmax(-1) == labels).double().sum(1), losses.view_as(labels).double().sum(1)])


def _means(bank: Bank, scores: torch.Tensor, n_images: int) -> xr.Dataset:
    right, loss = scores / n_images
    return xr.Dataset(
        {
            "accuracy": bank.array(right, name="accuracy", long_name="accuracy", units="1"),
            "loss": bank.array(loss, name="loss", long_name="mean cross-entropy", units="nat"),
        }
    )


def accuracy(bank: Bank, images: Images, *, device: str | None = None) -> xr.DataArray:
    """Share of images that each network classifies correctly, (model,)."""
    return evaluate(bank, images, device=device).accuracy


def loss(bank: Bank, images: Images, *, device: str | None = None) -> xr.DataArray:
    """Mean cross-entropy of each network, (model,), nat."""
    return evaluate(bank, images, device=device).loss


def path(a: Bank, b: Bank, images: Images, lambdas: Sequence[float], *, device: str | None = None) -> xr.Dataset:
    """Accuracy and loss of (1 - lambda) A + lambda B, (model, lambda), pair k being model k.

    What the first and widest layer gives is linear in its weights, so it is computed at the two ends only.

    Raises:
        ValueError: images that do not fit, or what `hrebasin.merging.interpolate` refuses.
    """
    check_images(a.architecture, images)
    device = device or a.device
    a, b, images = a.to(device), b.to(device), images.to(device)
    line = track(interpolate(a, b, lambdas), label="interpolation", total=len(lambdas), unit="point")
    points = []
    with torch.no_grad():
        ends = []
        for pixels, labels in _batches(images, IMAGES_AT_ONCE):
            x = normalize(a.architecture, pixels)
            ends.append((*(first_layer(end.architecture, end.tensors, x) for end in (a, b)), labels))
        for weight, bank in zip(lambdas, line, strict=True):
            outputs = ((after_first(bank.architecture, bank.tensors, torch.lerp(x, y, weight)), n) for x, y, n in ends)
            points.append(_means(bank, sum(_scores(*pair) for pair in outputs), len(images)))
    axis = xr.Variable("lambda", list(map(float, lambdas)), {"long_name": "weight of the second network", "units": "1"})
    return xr.concat(points, dim=axis, coords="minimal", compat="override").transpose("model", "lambda")


def barrier(path: xr.Dataset) -> xr.Dataset:
    """Loss and accuracy barrier of each path, (model,).

    max over lambda of L(lambda) - [(1 - lambda) L(0) + lambda L(1)] for the loss (nat), and the same with the sign
    flipped for accuracy; both are at least 0, and above 0 where the line leaves the basin.

    Args:
        path: ``accuracy`` and ``loss`` over ``lambda``, which must contain 0 and 1, as `path` gives them.
    """
    weight = path["lambda"]
    if not {0.0, 1.0} <= set(weight.values.tolist()):
        raise ValueError(f"a barrier needs lambda = 0 and 1, got {weight.values.tolist()}")
    excess = path - (
        (1 - weight) * path.sel({"lambda": 0.0}, drop=True) + weight * path.sel({"lambda": 1.0}, drop=True)
    )
    barriers = xr.Dataset(
        {"loss_barrier": excess.loss.max("lambda"), "accuracy_barrier": (-excess.accuracy).max("lambda")}
    )
    barriers.loss_barrier.attrs = {"long_name": "loss barrier", "units": "nat"}
    barriers.accuracy_barrier.attrs = {"long_name": "accuracy barrier", "units": "1"}
    return barriers
