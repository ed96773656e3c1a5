"""The same images in two versions, such as an original and its JPEG copy: what the choice does to results."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...images.sources import Images
from ...robustness.attacks import attack

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


def compare_versions(
    bank: Bank, first: Images, second: Images, *, epsilons: Sequence[float], device: str = "cpu"
) -> xr.Dataset:
    """Attack both versions of the same images: a data set of stage ``versions``, see `hrebasin.study.records.schemas.SCHEMAS`.

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
    kinds = xr.Variable("attack", np.array(KINDS, dtype=object), {"long_name": "attack", "units": "1"})
    joined = {"coords": "minimal", "compat": "override", "combine_attrs": "override"}
    curves = []
    for images in (first, second):
        given = (bank, images.pixels, images.labels)
        each = [attack(*given, kind=kind, epsilons=epsilons, device=device).robust_accuracy for kind in KINDS]
        curves.append(xr.concat(each, dim=kinds, **joined))
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
