"""Networks rescaled layer by layer: the same decisions with other norms, so what a bound owes to scale alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...lipschitz.bounds import measure

SQRT2 = 2**0.5  # two logits differ by at most sqrt(2) times the change of all logits


def rescale(bank: Bank, factors: torch.Tensor) -> Bank:
    """Multiply the weights of layer l of network k by ``factors[k, l]``, biases so that logits change in scale.

    ReLU is positively homogeneous, so all logits are multiplied by the product of a network's factors.

    Args:
        bank: not changed.
        factors: (model, layer), positive.
    """
    factors = torch.as_tensor(factors, dtype=torch.float64, device=bank.device)
    if factors.shape != (len(bank), len(bank.architecture.layers)):
        wanted = (len(bank), len(bank.architecture.layers))
        raise ValueError(f"factors must be (model, layer), here {wanted}, got {tuple(factors.shape)}")
    if not ((factors > 0) & factors.isfinite()).all():
        raise ValueError(f"factors must be positive and finite, got {factors.min():g} to {factors.max():g}")
    so_far, tensors = factors.cumprod(1), {}
    for position, layer in enumerate(bank.architecture.layers):
        weight, bias = bank.tensors[f"{layer}.weight"], bank.tensors[f"{layer}.bias"]
        tensors[f"{layer}.weight"] = (weight.double() * factors[:, position, None, None]).to(weight)
        tensors[f"{layer}.bias"] = (bias.double() * so_far[:, position, None]).to(bias)
    return Bank(bank.architecture, tensors, bank.labels)


def rescale_to(bank: Bank, targets: Bank) -> Bank:
    """Network k with the Frobenius norms of the weights of network k of ``targets``, layer by layer."""
    if len(bank) != len(targets):
        raise ValueError(f"{len(bank)} networks cannot take the norms of {len(targets)}")
    norms = [
        torch.stack(
            [
                torch.linalg.vector_norm(each.tensors[f"{layer}.weight"].double(), dim=(1, 2))
                for layer in bank.architecture.layers
            ],
            dim=1,
        )
        for each in (targets, bank)
    ]
    return rescale(bank, norms[0] / norms[1])


def study(
    bank: Bank,
    images: Images,
    *,
    measured: int,
    bounded: int,
    radii: Sequence[float],
) -> xr.Dataset:
    """Bounds beside margins, and unmerged networks at the norms of merged ones: a data set of stage ``scale``.

    Unmerged network k of a group is rescaled to the weight norms of the node of each stage that it was merged into; it
    then has the method ``rescaled`` and that node's stage.

    Args:
        bank: trees with their leaves, and any other networks.
        images: test images to be accurate on.
        measured: how many of them, the first ones, give margins.
        bounded: how many of these get local bounds.
        radii: of local bounds, L2 in pixel units.
    """
    everything = Bank.concat([replace(each, history=None) for each in (bank, *_at_norms_of_nodes(bank))])
    few = images.first(measured)
    record = measure(everything, few.pixels, few.labels, radii=radii, bounded=bounded)
    margin = record.margin.clip(min=0).median("image")
    margin.attrs = {"long_name": "median margin over images, 0 where wrong", "units": "logit"}
    certified = certified_radius(record).mean("image")
    certified.attrs = {"long_name": "mean certified radius over images, L2", "units": "pixel range"}
    slope = record.gradient_norm.max("image")
    slope.attrs = {"long_name": "largest spectral norm of the Jacobian at an image", "units": "logits per pixel range"}
    accuracy = evaluate(everything, images).accuracy.rename("test_accuracy")
    columns = [accuracy, record.weight_norm, record.lipschitz, slope, margin.rename("median_margin"), certified]
    return xr.merge(columns, compat="identical", combine_attrs="override").drop_attrs(deep=False)


def _at_norms_of_nodes(bank: Bank):
    """For each stage of the trees: all leaves at the norms of their node."""
    leaves = bank.where(method="unmerged")
    for stage in sorted(set(bank.labels["stage"][bank.labels["method"] == "tree"])):
        nodes = bank.where(method="tree", stage=stage)
        places = {place: k for k, place in enumerate(zip(nodes.labels["group"], nodes.labels["node"], strict=True))}
        above = zip(leaves.labels["group"], leaves.labels["node"] >> stage, strict=True)
        yield rescale_to(leaves, nodes.select([places[place] for place in above])).relabel(
            method="rescaled", stage=stage
        )


def certified_radius(regularity: xr.Dataset) -> xr.DataArray:
    """L2 radius around each image within which no change alters the answer, (model, certificate, image), pixel range.

    A bound L certifies margin / (sqrt(2) L); a local bound, which holds within the radius r that it was measured for,
    at most r, and the best of the measured radii counts. Zero where the answer is wrong. It does not change when a
    network is rescaled.

    Args:
        regularity: data set of the stage "regularity"; images without local bounds are left out.
    """
    bounded = regularity.local_lipschitz.notnull().all(["model", "radius"]).values
    chosen = regularity.isel(image=bounded)
    allowed = chosen.margin.clip(min=0) / SQRT2
    radii = {str(name): allowed / chosen.lipschitz.sel(bound=name, drop=True) for name in chosen.bound.values}
    radii["local"] = np.minimum(chosen.radius, allowed / chosen.local_lipschitz).max("radius")
    axis = xr.Variable("certificate", np.array(list(radii), dtype=object), {"long_name": "certificate", "units": "1"})
    joined = xr.concat(list(radii.values()), dim=axis, coords="minimal", compat="override")
    joined.attrs = {"long_name": "certified radius, L2", "units": "pixel range"}
    return joined.rename("certified_radius").transpose("model", "certificate", "image")
