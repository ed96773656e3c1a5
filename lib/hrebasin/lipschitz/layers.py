"""The affine layers of ReLU MLPs, which upper bounds on Lipschitz constants are made of."""

import torch

from ..bank import Bank, check_finite
from ..checks import check_relu_mlp

UNITS = ("pixel", "normalised")
LIPSCHITZ = {"pixel": "logit per pixel range", "normalised": "logit per normalised input"}
NOT_APPLICABLE = "not applicable: upper bounds are known for ReLU MLPs only"


def layer_weights(bank: Bank, units: str) -> list[torch.Tensor]:
    """Float64 weights (model, out, in); in pixel units the first includes the normalisation's slope.

    Raises:
        ValueError: networks that are no ReLU MLPs, unknown units, or weights that are not finite.
    """
    if units not in UNITS:
        raise ValueError(f"units must be one of {UNITS}, got {units!r}")
    check_relu_mlp(bank.architecture, "upper bounds")
    check_finite(bank, "bounds")
    weights = [bank.tensors[f"{layer}.weight"].double() for layer in bank.architecture.layers]
    if units == "pixel":
        weights[0] = weights[0] * bank.architecture.pixel_scale().to(bank.device)
    return weights
