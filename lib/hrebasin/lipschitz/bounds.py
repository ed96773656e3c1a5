"""How regular networks are: weight norms, and upper and lower bounds on Lipschitz constants (L2 to L2).

Bounds are in pixel units unless ``units="normalised"``: the normalisation's 1/std then counts as part of the first
layer. Everything is computed in float64 from exact or proven eigenvalues: power iteration alone approaches a spectral
norm from below and would break an upper bound. Upper bounds are known here for ReLU MLPs only; of other networks there
is the lower bound alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr

from ..bank import Bank, check_finite
from ..checks import check_bank, check_pixels, is_relu_mlp, single_precision
from ..progress import track
from ..resources import fitting, plain_torch, side_by_side
from .gradients import gradient_norm, margin
from .layers import LIPSCHITZ, NOT_APPLICABLE, layer_weights
from .norms import children, weight_norm
from .spectra import largest_eigenvalue

NETWORKS_AT_ONCE = 16  # at most, and what fits into a quarter of the free memory
COPIES = 4  # of the weights in float64
BOUNDED_AT_ONCE = {"cpu": 1, "cuda": 50}  # images; alone, one has the smallest matrices and they stay in the cache


@plain_torch()
def measure(
    bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, *, radii: Sequence[float], bounded: int
) -> xr.Dataset:
    """Every measure of the paper as one data set of stage ``regularity``, see `hrebasin.study.records.schemas`.

    Args:
        bank, pixels, labels: networks, images (image, channel, y, x) and their classes (image,).
        radii: of the local bounds, L2 in pixel units.
        bounded: how many of the images get local bounds; the others hold NaN there.

    Returns:
        For networks that are no ReLU MLPs upper bounds are NaN, and the attribute ``comment`` says "not applicable".

    Raises:
        ValueError: pixels or labels that do not fit, weights that are not finite, radii or ``bounded`` that cannot be.
    """
    check_bank(bank)
    check_pixels(bank.architecture, pixels, labels)
    check_finite(bank, "measures")
    if not len(radii):
        raise ValueError("radii must be several radii, or one, got none")
    if bounded < 1:
        raise ValueError(f"bounded must be at least 1, got {bounded}")
    pieces = []
    bytes_each = COPIES * 8 * bank.architecture.n_parameters
    for piece in bank.chunks(fitting(bytes_each, device=bank.device, most=NETWORKS_AT_ONCE)):
        bounds = {name: _or_not(bound, piece) for name, bound in BOUNDS.items()}
        local = {radius: _or_not(local_lipschitz, piece, pixels[:bounded], radius=radius) for radius in radii}
        names = np.array(list(bounds), dtype=object)
        kinds = xr.Variable("bound", names, {"long_name": "upper bound", "units": "1"})
        distances = xr.Variable("radius", list(radii), {"long_name": "L2 radius", "units": "pixel range"})
        parts = [
            weight_norm(piece),
            _join(bounds, kinds, name="lipschitz", long_name="upper Lipschitz bound"),
            gradient_norm(piece, pixels),
            margin(piece, pixels, labels),
            _join(local, distances, name="local_lipschitz", long_name="local upper Lipschitz bound"),
        ]
        pieces.append(xr.merge(parts, join="outer", compat="identical", combine_attrs="override"))
    joined = xr.merge([xr.concat(pieces, dim="model"), children(bank)], compat="identical", combine_attrs="override")
    joined = joined.transpose("model", ...)
    joined.attrs.clear()  # merging takes those of the first variable
    if not is_relu_mlp(bank.architecture):
        for part in (joined, joined.lipschitz, joined.local_lipschitz):
            part.attrs["comment"] = NOT_APPLICABLE
    return joined


def _or_not(bound: Callable[..., xr.DataArray], bank: Bank, *pixels: torch.Tensor, **options) -> xr.DataArray:
    """A bound of ReLU MLPs; of other networks NaN, (model,) or (model, image)."""
    if is_relu_mlp(bank.architecture):
        return bound(bank, *pixels, **options)
    axes = {"image": np.arange(len(pixels[0]))} if pixels else {}
    values = np.full([len(bank), *map(len, pixels)], np.nan)
    return bank.array(values, ("model", *axes), long_name=bound.__name__, units=LIPSCHITZ["pixel"], **axes)


def _join(parts: dict, axis: xr.Variable, *, name: str, long_name: str) -> xr.DataArray:
    found = xr.concat(list(parts.values()), dim=axis, coords="minimal", compat="override", combine_attrs="override")
    return found.rename(name).assign_attrs(long_name=long_name)


@plain_torch()
def global_lipschitz(bank: Bank, *, units: str = "pixel") -> xr.DataArray:
    """Upper bound everywhere of ReLU MLPs, (model,): the product of the layers' spectral norms.

    >>> from hrebasin.networks import mlp
    >>> bank = Bank.stack([mlp((8,), n_classes=3, image_shape=(1, 2, 2), mean=[0.5], std=[0.25])])
    >>> bool((global_lipschitz(bank) >= eclipse_fast(bank)).all())  # two upper bounds, the second is tighter
    True

    Avant & Morgansen 2023 with ReLU constant 1; float64 singular values.
    """
    check_bank(bank)
    product = torch.ones(len(bank), dtype=torch.float64, device=bank.device)
    for weight in layer_weights(bank, units):
        # the eigenvalues of the smaller Gram matrix are the squared singular values
        product *= largest_eigenvalue(_gram(weight)).sqrt()
    return bank.array(product, name="global_lipschitz", long_name="product of spectral norms", units=LIPSCHITZ[units])


@plain_torch()
def eclipse_fast(bank: Bank, *, units: str = "pixel") -> xr.DataArray:
    """Upper bound everywhere of ReLU MLPs, (model,), by ECLipsE-Fast (Xu & Sivaranjani, NeurIPS 2024).

    X_0 = I; M_i = W_i X_{i-1}^-1 W_i^T; lam_i = 2 / sigma_max(M_i); X_i = lam_i I - lam_i^2 / 4 M_i;
    L = sqrt(sigma_max(W_l^T W_l X_{l-1}^-1)). With l layers it lies between the product of spectral norms divided by
    2**((l - 1) / 2) and the product.
    """
    check_bank(bank)
    *hidden, last = layer_weights(bank, units)
    inverse = None  # of X, the identity at first
    constant = torch.zeros(len(bank), dtype=torch.bool, device=bank.device)
    for weight in hidden:
        m = weight @ weight.mT if inverse is None else weight @ inverse @ weight.mT
        largest = largest_eigenvalue(m)[:, None, None]
        multiplier = 2 / torch.where(largest > 0, largest, 1)  # zero: a layer of zeros, see below
        constant |= largest[:, 0, 0] <= 0
        x = multiplier * torch.eye(m.shape[-1], dtype=m.dtype, device=m.device) - multiplier**2 / 4 * m
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(x))  # at least multiplier / 2 times the identity
    # W^T W X^-1 has the eigenvalues of W X^-1 W^T, which is symmetric and as small as the output
    final = last @ inverse @ last.mT
    bound = largest_eigenvalue((final + final.mT) / 2).sqrt().masked_fill(constant, 0)
    return bank.array(bound, name="eclipse_fast", long_name="ECLipsE-Fast bound", units=LIPSCHITZ[units])


# Upper bounds everywhere, (model,) in pixel units. One that is added here is in every data set and figure of a run.
BOUNDS: dict[str, Callable[[Bank], xr.DataArray]] = {"global": global_lipschitz, "eclipse-fast": eclipse_fast}


@plain_torch()
def local_lipschitz(bank: Bank, pixels: torch.Tensor, *, radius: float, units: str = "pixel") -> xr.DataArray:
    """Upper bound of |f(x) - f(x0)| / |x - x0| for |x - x0| <= radius around each image x0, (model, image).

    Of ReLU MLPs. Avant & Morgansen 2023, from D = I: for y = A x0 + b, ybar_i = y_i + r |a_i D|, the slope of unit i is
    the largest that its ReLU can have on the way from y_i to ybar_i; L = |diag(slope) A D|; D keeps the units that can
    be active, x0 becomes the layer's output and r becomes L r. The bound is the product of all L.

    Args:
        bank: the networks.
        pixels: (image, channel, y, x), uint8 or in [0, 1].
        radius: L2, in pixel units (or of the normalised input if ``units="normalised"``).
        units: of the input.
    """
    check_bank(bank)
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius must be positive and finite, got {radius}")
    check_pixels(bank.architecture, pixels)
    weights = layer_weights(bank, units)
    biases = [bank.tensors[f"{layer}.bias"].double() for layer in bank.architecture.layers]
    x = bank.architecture.prepare(single_precision(pixels).to(bank.device)).double()
    if units == "pixel":
        x = x / bank.architecture.pixel_scale().to(x)  # the first layer holds the scale; the bias absorbs the mean
    with track(label=f"local bound, radius {radius:g}", total=len(bank) * len(pixels), unit="image") as progress:

        def bound(model: int) -> torch.Tensor:
            layers = [(weight[model], bias[model]) for weight, bias in zip(weights, biases, strict=True)]
            first_gram = layers[0][0] @ layers[0][0].T
            found = []
            for part in x.split(BOUNDED_AT_ONCE[x.device.type]):
                found.append(_local_bounds(layers, first_gram, part @ layers[0][0].T + layers[0][1], radius))
                progress.update(len(part))
            return torch.cat(found)

        bounds = torch.stack(side_by_side(bound, range(len(bank))))
    return bank.array(
        bounds,
        ("model", "image"),
        name="local_lipschitz",
        long_name=f"local bound within radius {radius:g}",
        units=LIPSCHITZ[units],
        image=np.arange(len(pixels)),
    )


def _local_bounds(layers, gram: torch.Tensor, y: torch.Tensor, radius: float) -> torch.Tensor:
    """Local bounds of one network, (image,), from the first layer's W W^T and its outputs ``y`` (image, unit).

    Rows and columns that D or the slope switch off for every image are left out; those that they switch off for some
    are zero there, which adds no eigenvalue but zero.
    """
    total, radius = torch.ones_like(y[:, 0]), torch.full_like(y[:, 0], radius)
    alive = columns = None
    for number, (weight, bias) in enumerate(layers[:-1]):
        if number:
            inner = weight[:, columns]
            gram, y = (inner * alive[:, None, columns]) @ inner.T, y.relu()[:, columns] @ inner.T + bias
        squares = gram.diagonal(dim1=-2, dim2=-1).expand_as(y)
        ybar = y + radius[:, None] * squares.sqrt()
        slope = torch.where(y >= 0, 1.0, ybar / (ybar - y))
        slope = torch.where((ybar <= 0) | (squares <= 0), 0.0, slope)
        used = (slope > 0).any(0)
        if not used.any():
            return torch.zeros_like(total)  # nothing in reach activates a unit: the network is constant here
        part = slope[:, used]
        norm = largest_eigenvalue(part[:, :, None] * gram[..., used, :][..., used] * part[:, None]).sqrt()
        alive, radius, total = (ybar > 0).to(y), norm * radius, total * norm
        columns = alive.any(0)
    inner = layers[-1][0][:, columns]
    return total * largest_eigenvalue((inner * alive[:, None, columns]) @ inner.T).sqrt()


def _gram(weight: torch.Tensor) -> torch.Tensor:
    """W W^T or W^T W, the smaller one: both have the squared singular values as eigenvalues."""
    return weight @ weight.mT if weight.shape[-2] <= weight.shape[-1] else weight.mT @ weight
