"""The loss landscape around two networks: a plane that holds both and the second as matching permutes it."""

import numpy as np
import torch
import xarray as xr
from torch.nn.functional import cross_entropy

from ...bank import Bank
from ...checks import check_images
from ...images.sources import Images
from ...matching.weights import match_weights
from ...merging.path import path
from ...progress import track

POINTS_AT_ONCE = 25  # networks of the plane whose activations are in memory together
MARGIN = 0.35  # how far the plane reaches beyond the three networks, as a share of their extent
LAMBDAS = np.linspace(0, 1, 21)  # weights of the second network on the lines
CORNERS = ("first", "second", "second, matched")


def landscape(first: Bank, second: Bank, images: Images, *, resolution: int = 25) -> xr.Dataset:
    """Loss on the plane through two networks and the matched second, and along both lines from the first.

    The plane has its origin at the first network; x points to the matched second, y is at a right angle to it on the
    side of the second. Both are distances over all parameters.

    Args:
        first, second: banks of one network each.
        images: where the loss is computed.
        resolution: points along the longer side.

    Returns:
        ``loss`` (y, x) in nat; ``place`` (corner, axis) of the three networks; ``line_loss`` in nat and
        ``line_accuracy`` (alignment, lambda).

    Raises:
        ValueError: banks of more than one network, networks that span no plane, or images that do not fit.
    """
    if len(first) != 1 or len(second) != 1:
        raise ValueError(f"a landscape takes one network and another, got {len(first)} and {len(second)}")
    check_images(first.architecture, images)
    matched = match_weights(first, second).apply(second)
    corners = Bank.concat([first, second, matched])
    place = _places(corners)
    low, high = place.min(0), place.max(0)
    reach = MARGIN * (high - low).max()
    step = ((high - low).max() + 2 * reach) / (resolution - 1)
    x, y = (np.arange(low[axis] - reach, high[axis] + reach + step / 2, step) for axis in (0, 1))
    shares = _shares(place, np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
    loss = _losses(corners, shares, images).reshape(len(y), len(x))
    lines = [path(first, other, images, LAMBDAS) for other in (second, matched)]
    axis = xr.Variable("alignment", ["before", "after"], {"long_name": "alignment", "units": "1"})
    line = xr.concat(lines, dim=axis, coords="minimal", compat="override").isel(model=0, drop=True)
    distance = {"long_name": "distance over all parameters", "units": "1"}
    return xr.Dataset(
        {
            "loss": (("y", "x"), loss, {"long_name": "mean cross-entropy", "units": "nat"}),
            "place": (("corner", "axis"), place, distance),
            "line_loss": line.loss,
            "line_accuracy": line.accuracy,
        },
        coords={
            "x": ("x", x, distance),
            "y": ("y", y, distance),
            "corner": ("corner", list(CORNERS), {"long_name": "network", "units": "1"}),
            "axis": ("axis", ["x", "y"], {"long_name": "axis of the plane", "units": "1"}),
        },
    )


def _places(corners: Bank) -> np.ndarray:
    """Coordinates (corner, axis) of first, second and matched second."""
    vectors = torch.cat([tensor.double().flatten(1) for tensor in corners.tensors.values()], 1)
    second, matched = (vectors[1:] - vectors[:1]).numpy()
    length = np.linalg.norm(matched)
    along = second @ matched / length if length else 0.0
    aside = np.linalg.norm(second - along * matched / length) if length else 0.0
    if aside <= 1e-6 * length:
        raise ValueError("no plane: the networks are equal, or matching leaves the second as it is")
    return np.array([[0, 0], [along, aside], [length, 0]])


def _shares(place: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Weights (point, corner), of sum 1, that give each point of the plane from the three networks."""
    second, matched = np.linalg.solve(place[1:].T, points.T)
    return np.stack([1 - second - matched, second, matched], 1)


def _losses(corners: Bank, shares: np.ndarray, images: Images) -> np.ndarray:
    """Mean cross-entropy of each network on the plane, (point,).

    What the first and widest layer gives is linear in its weights, so it is computed at the three networks only.
    """
    architecture, losses = corners.architecture, []
    with torch.no_grad():
        ends = architecture.first_layer(corners.tensors, architecture.prepare(images.pixels))
        pieces = torch.from_numpy(shares).float().split(POINTS_AT_ONCE)
        for weights in track(pieces, label="landscape", unit="piece"):
            tensors = {
                name: torch.tensordot(weights, tensor, 1)
                for name, tensor in corners.tensors.items()
                if not name.startswith("fc1.")
            }
            outputs = architecture.after_first(tensors, torch.tensordot(weights, ends, 1))
            labels = images.labels.expand(len(weights), -1)
            each = cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
            losses.append(each.view_as(labels).double().mean(1))
    return torch.cat(losses).numpy()
