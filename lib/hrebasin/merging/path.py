"""Straight lines between networks: interpolation, accuracy and loss along it, and barriers."""

from collections.abc import Iterable, Iterator, Sequence

import torch
import xarray as xr

from ..bank import Bank, blend, check_finite, check_same_architecture
from ..checks import check_bank, check_images
from ..evaluation import IMAGES_AT_ONCE, batches_of, evaluate, means, scores
from ..images.sources import Images
from ..networks import Architecture
from ..progress import track
from .batch_norm import finished


def path(
    a: Bank,
    b: Bank,
    images: Images,
    lambdas: Sequence[float],
    *,
    pixels: torch.Tensor | None = None,
) -> xr.Dataset:
    """Accuracy and loss of (1 - lambda) A + lambda B, (model, lambda), pair k being model k.

    What the first and widest layer of an MLP gives is linear in its weights, so it is computed at the two ends only.

    Args:
        a, b: as many networks each.
        images: labelled images.
        lambdas: weights of B, from 0 to 1.
        pixels: training images (image, channel, y, x), which batch norm is measured on anew at every point.

    Raises:
        ValueError: images that do not fit, or what `hrebasin.merging.path.interpolate` refuses.
    """
    return next(paths(a, b, [images], lambdas, pixels=pixels))


def paths(
    a: Bank,
    b: Bank,
    splits: Iterable[Images],
    lambdas: Sequence[float],
    *,
    pixels: torch.Tensor | None = None,
) -> Iterator[xr.Dataset]:
    """`path` on several sets of images; batch norm is measured once at every point."""
    for images in (splits := list(splits)):
        check_images(a.architecture, images)
    b, splits = b.to(a.device), [images.to(a.device) for images in splits]

    def line() -> Iterable[Bank]:
        return track(interpolate(a, b, lambdas), label="interpolation", total=len(lambdas), unit="point")

    if isinstance(a.architecture, Architecture):
        curves = [_points_of_mlps(a, b, images, lambdas, line()) for images in splits]
    else:
        points = ([evaluate(bank, images) for images in splits] for bank in (finished(bank, pixels) for bank in line()))
        curves = zip(*points, strict=True)
    axis = xr.Variable("lambda", list(map(float, lambdas)), {"long_name": "weight of the second network", "units": "1"})
    for curve in curves:
        yield xr.concat(curve, dim=axis, coords="minimal", compat="override").transpose("model", "lambda")


@torch.no_grad()
def _points_of_mlps(a: Bank, b: Bank, images: Images, lambdas: Sequence[float], line: Iterable[Bank]):
    architecture, ends, points = a.architecture, [], []
    for pixels, labels in batches_of(images, IMAGES_AT_ONCE):
        x = architecture.prepare(pixels)
        ends.append((*(architecture.first_layer(end.tensors, x) for end in (a, b)), labels))
    for weight, bank in zip(lambdas, line, strict=True):
        outputs = ((architecture.after_first(bank.tensors, torch.lerp(x, y, weight)), n) for x, y, n in ends)
        points.append(means(bank, sum(scores(*pair) for pair in outputs), len(images)))
    return points


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
    check_bank(a, b)
    check_same_architecture(a, b)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} networks cannot be paired with {len(b)}")
    for value in lambdas:
        if not 0 <= value <= 1:
            raise ValueError(f"lambda must lie in [0, 1], got {value}")
    for role, bank in (("first", a), ("second", b)):
        check_finite(bank, f"{role} networks")
    return (Bank(a.architecture, blend(a, b, value), a.labels) for value in map(float, lambdas))
