"""The same images in two versions, such as an original and its JPEG copy: what the choice does to results."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...images.sources import Images
from ...robustness.attacks import along, attack
from ..figures.captions import numbers_behind, tabled
from ..figures.style import NAMES, spread
from ..groups import PERCENT, tree, tree_stages

SCHEMA = {"model version attack epsilon": "robust_accuracy", "model": "agreement", "image": "psnr"}
KINDS = ("fgsm", "deepfool-linf")
PEAK = 255.0  # largest value of a pixel, for the signal-to-noise ratio


def counterparts(images: Images, others: Images) -> torch.Tensor:
    """For each image the position in ``others`` of the nearest one of its class, (image,).

    Raises:
        ValueError: other classes or shapes, or two images with the same nearest one: ``others`` then is no other
            version of a set that contains these images.
    """
    if images.classes != others.classes or images.shape != others.shape:
        raise ValueError(
            f"{images.source} has classes {images.classes} and shape {images.shape}, {others.source} has "
            f"{others.classes} and {others.shape}"
        )
    found = torch.empty(len(images), dtype=torch.int64)
    for label in images.labels.unique():
        mine, theirs = ((each.labels == label).nonzero()[:, 0] for each in (images, others))
        if not len(theirs):
            raise ValueError(f"{others.source} has no image of class {images.classes[label]!r}")
        distances = torch.cdist(*(e.pixels[at].flatten(1).double() for e, at in ((images, mine), (others, theirs))))
        found[mine] = theirs[distances.argmin(1)]
    if len(found.unique()) < len(found):
        n = len(found) - len(found.unique())
        raise ValueError(f"{others.source} is no other version of {images.source}: {n} images share their nearest")
    return found


def measure(bank: Bank, first: Images, second: Images, *, epsilons: Sequence[float], device: str = "cpu") -> xr.Dataset:
    """Attack both versions of the same images: a data set of stage ``versions``.

    Args:
        bank: the networks.
        first, second: image i of both is the same, as `counterparts` finds.
        epsilons: of FGSM and L-infinity DeepFool, pixel units.
        device: where to compute.
    """
    if len(first) != len(second) or not torch.equal(first.labels, second.labels):
        raise ValueError(f"{len(first)} and {len(second)} images with their labels are not two versions of the same")
    sources = np.array([first.source, second.source], dtype=object)
    version = xr.Variable("version", sources, {"long_name": "version of the images", "units": "1"})
    joined = {"coords": "minimal", "compat": "override", "combine_attrs": "override"}
    curves = []
    for images in (first, second):
        given = (bank, images.pixels, images.labels)
        each = {kind: attack(*given, kind=kind, epsilons=epsilons, device=device).robust_accuracy for kind in KINDS}
        curves.append(along(each, "attack"))
    with torch.no_grad():
        answers = [bank(images.pixels.to(bank.device)).argmax(-1) for images in (first, second)]
    same = (answers[0] == answers[1]).double().mean(1)
    error = (first.pixels.double() - second.pixels.double()).square().flatten(1).mean(1)
    decibels = 10 * torch.log10(PEAK**2 / error)  # infinite for equal images
    return xr.Dataset(
        {
            "robust_accuracy": xr.concat(curves, dim=version, **joined).transpose("model", ...),
            "agreement": bank.array(same, name="agreement", long_name="share of equal answers", units="1"),
            "psnr": ("image", decibels.numpy(), {"long_name": "peak signal-to-noise ratio of versions", "units": "dB"}),
        }
    )


def _differences_of_images(data: xr.Dataset) -> list[str]:
    """What the two versions are and how near one another, and on how many images, for the caption."""
    first, second = data.version.values
    alike = [float(tree(data.agreement, stage).mean()) for stage in (0, tree_stages(data)[-1])]
    text = (
        f"First version: {first}; second: {second}. Median signal-to-noise ratio between versions "
        f"{float(data.psnr.median()):.1f} dB; equal answers on {alike[0]:.1%} of images at stage 0 and {alike[1]:.1%} "
        "at the last stage."
    )
    return [text, *numbers_behind(data)]


SIZES = (0.0, 0.005, 0.01, 0.02)  # of the attacks in the table


@tabled(
    "Robust accuracy on the first version of the same test images minus that on the second, in percentage points, of "
    "networks that were trained on the first.",
    about=_differences_of_images,
)
def tabulate(data: xr.Dataset) -> tuple[list[str], list[list[str]]]:
    """Robust accuracy on the first version of the images minus that on the second, a row per stage.

    Returns:
        Heads of the columns, and the rows, as texts.
    """
    first, second = (data.robust_accuracy.isel(version=position, drop=True) for position in (0, 1))
    difference = (first - second).rename("difference") * PERCENT
    sizes = [size for size in SIZES if np.isclose(data.epsilon, size).any()]
    columns = [(kind, size) for kind in data.attack.values for size in sizes]
    rows = []
    for stage in tree_stages(data):
        values = tree(difference, stage)
        cells = [values.sel(attack=kind).sel(epsilon=size, method="nearest").values for kind, size in columns]
        rows.append([f"stage {stage}", *(_cell(cell) for cell in cells)])
    return ["", *(f"{NAMES.get(kind, kind)}, {size:g}" for kind, size in columns)], rows


def _cell(values: np.ndarray) -> str:
    """Mean over groups with its spread."""
    low, high = spread(values)
    return f"{values.mean():+.1f}" + (f" ({low:.1f} to {high:.1f})" if len(values) > 1 else "")
