"""Straight lines between networks: interpolation, accuracy and loss along it, and barriers."""

from collections.abc import Iterator, Sequence

import torch
import xarray as xr

from ..bank import Bank, check_finite, check_same_architecture
from ..checks import check_images
from ..evaluation import IMAGES_AT_ONCE, _batches, _means, _scores
from ..images.sources import Images
from ..networks import after_first, first_layer, normalize
from ..progress import track


def path(a: Bank, b: Bank, images: Images, lambdas: Sequence[float], *, device: str | None = None) -> xr.Dataset:
    """Accuracy and loss of (1 - lambda) A + lambda B, (model, lambda), pair k being model k.

    What the first and widest layer gives is linear in its weights, so it is computed at the two ends only.

    Raises:
        ValueError: images that do not fit, or what `hrebasin.merging.path.interpolate` refuses.
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


def interpolate(a: Bank, b: Bank, lambdas: Sequence[float]) -> Iterator[Bank]:
    """The networks (1 - lambda) A + lambda B, pair by pair: one bank for each lambda, made when asked for.

    Raises:
        ValueError: banks of different architectures or lengths, a lambda outside [0, 1], weights that are not finite.
    """
    check_same_architecture(a, b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} networks cannot be paired with {len(b)}")
    for value in lambdas:
        if not 0 <= value <= 1:
            raise ValueError(f"lambda must lie in [0, 1], got {value}")
    for role, bank in (("first", a), ("second", b)):
        check_finite(bank, f"{role} networks")
    return (
        Bank(
            a.architecture,
            {name: torch.lerp(a.tensors[name], b.tensors[name], value) for name in a.tensors},
            a.labels,
        )
        for value in map(float, lambdas)
    )
