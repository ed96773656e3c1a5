"""Networks rescaled layer by layer: the same decisions with other norms, so what a bound owes to scale alone."""

import numpy as np
import torch
import xarray as xr

from .bank import Bank

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


def certified_radius(regularity: xr.Dataset) -> xr.DataArray:
    """L2 radius around each image within which no change alters the answer, (model, certificate, image), pixel range.

    A bound L certifies margin / (sqrt(2) L); a local bound only the largest measured radius r with r L(r) below
    margin / sqrt(2). Zero where the answer is wrong. It does not change when a network is rescaled.

    Args:
        regularity: data set of the stage "regularity"; images without local bounds are left out.
    """
    bounded = regularity.local_lipschitz.notnull().all(["model", "radius"]).values
    chosen = regularity.isel(image=bounded)
    allowed = chosen.margin.clip(min=0) / SQRT2
    radii = {str(name): allowed / chosen.lipschitz.sel(bound=name, drop=True) for name in chosen.bound.values}
    reach = chosen.radius * (chosen.radius * chosen.local_lipschitz < allowed)
    radii["local"] = reach.max("radius")
    axis = xr.Variable("certificate", np.array(list(radii), dtype=object), {"long_name": "certificate", "units": "1"})
    joined = xr.concat(list(radii.values()), dim=axis, coords="minimal", compat="override")
    joined.attrs = {"long_name": "certified radius, L2", "units": "pixel range"}
    return joined.rename("certified_radius").transpose("model", "certificate", "image")
