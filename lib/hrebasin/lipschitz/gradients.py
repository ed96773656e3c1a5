"""How steep networks are at images, a lower bound on every Lipschitz constant, and how sure of their answers."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from ..bank import Bank, check_finite
from ..checks import check_bank, check_pixels, is_relu_mlp, single_precision
from ..evaluation import margins
from ..resources import fitting, plain_torch, side_by_side
from .layers import LIPSCHITZ, layer_weights
from .spectra import largest_eigenvalue

IMAGES_AT_ONCE = 50  # Jacobians of 37 networks take 80 MB
COPIES = 4  # of a Jacobian in float64


@plain_torch()
def gradient_norm(bank: Bank, pixels: torch.Tensor, *, units: str = "pixel") -> xr.DataArray:
    """Spectral norm of the logits' Jacobian at each image, (model, image): the largest is a lower bound.

    Any Lipschitz constant valid on the images' neighbourhood is at least as large.

    Args:
        bank: networks of any kind.
        pixels: (image, channel, y, x), uint8 or in [0, 1].
        units: of the input; networks other than MLPs normalise within, so that only ``"pixel"`` is known of them.
    """
    check_bank(bank)
    check_pixels(bank.architecture, pixels)
    pixels = single_precision(pixels)
    if is_relu_mlp(bank.architecture):
        weights, parts = layer_weights(bank, units), pixels.split(IMAGES_AT_ONCE)
        norms = torch.cat([_jacobian_norm(weights, _active(bank, part)) for part in parts], dim=1)
    else:
        if units != "pixel":
            raise ValueError(f"gradients of {bank.architecture.title} are known in pixel units only, got {units!r}")
        check_finite(bank, "gradients")
        inputs, threads = bank.architecture.n_classes * pixels[0].numel(), min(len(bank), torch.get_num_threads())
        bytes_each = (COPIES * 8 * inputs + 2 * bank.architecture.bytes_kept) * threads
        parts = pixels.split(fitting(bytes_each, device=bank.device, most=IMAGES_AT_ONCE))
        norms = torch.stack(side_by_side(lambda model: _norm_by_autograd(bank, model, parts), range(len(bank))))
    return bank.array(
        norms,
        ("model", "image"),
        name="gradient_norm",
        long_name="spectral norm of the Jacobian",
        units=LIPSCHITZ[units],
        image=np.arange(len(pixels)),
    )


def _jacobian_norm(weights: list[torch.Tensor], masks: list[torch.Tensor]) -> torch.Tensor:
    """Spectral norm of W_l D_{l-1} ... D_1 W_1 (model, image), D being the masks of active units."""
    jacobian = weights[-1][:, None].expand(-1, masks[0].shape[1], -1, -1)  # (model, image, class, unit)
    for weight, mask in zip(reversed(weights[1:-1]), reversed(masks[1:]), strict=True):
        jacobian = _product(jacobian * mask[:, :, None], weight)
    # the widest product is avoided: with K = W_l ... D_1, J J^T = K (W_1 W_1^T) K^T
    k = jacobian * masks[0][:, :, None]
    squared = _product(k, weights[0] @ weights[0].mT) @ k.mT
    return largest_eigenvalue(squared).clamp(min=0).sqrt()


def _norm_by_autograd(bank: Bank, model: int, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Spectral norm of the Jacobian of one network of any kind, (image,) float64: one backward pass a class."""
    network = bank[model].double().requires_grad_(False).to(bank.device)  # integer buffers stay what they are
    found = []
    for part in parts:
        x = bank.architecture.prepare(part.to(bank.device)).double().requires_grad_()
        logits = network(x).sum(0)  # images do not influence one another
        rows = [torch.autograd.grad(logit, x, retain_graph=True)[0].flatten(1) for logit in logits]
        jacobian = torch.stack(rows, dim=1)  # (image, class, pixel)
        found.append(largest_eigenvalue(jacobian @ jacobian.mT).clamp(min=0).sqrt())
    return torch.cat(found)


@plain_torch()
def margin(bank: Bank, pixels: torch.Tensor, labels: torch.Tensor) -> xr.DataArray:
    """Logit of the true class minus the largest other logit, (model, image); negative where misclassified."""
    check_bank(bank)
    check_pixels(bank.architecture, pixels, labels)
    check_finite(bank, "margins")
    with torch.no_grad():
        outputs = bank(single_precision(pixels).to(bank.device)).double()
    return bank.array(
        margins(outputs, labels.to(bank.device).expand(len(bank), -1)),
        ("model", "image"),
        name="margin",
        long_name="true logit minus the largest other",
        units="logit",
        image=np.arange(len(pixels)),
    )


def _product(stack: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(model, image, row, unit) times (model, unit, column), without a copy of the matrix for every image."""
    return (stack.flatten(1, 2) @ matrix).unflatten(1, (-1, stack.shape[2]))


def _active(bank: Bank, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Which hidden units are active, one (model, image, unit) float64 mask a hidden layer."""
    x = bank.architecture.prepare(pixels.to(bank.device)).double().expand(len(bank), -1, -1)
    masks = []
    for layer in list(bank.architecture.layers)[:-1]:
        x = torch.baddbmm(
            bank.tensors[f"{layer}.bias"].double()[:, None], x, bank.tensors[f"{layer}.weight"].double().mT
        )
        masks.append((x > 0).double())
        x = x.relu()
    return masks
