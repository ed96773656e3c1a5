"""Random search for a perturbation, which needs no gradient: a check of networks that gradients cannot break."""

import numpy as np
import torch

from ..bank import Bank
from ..evaluation import margins
from ..progress import track
from ..random_streams import generator
from ..resources import plain_torch, subnormals_flushed
from .attacks import check_attack
from .foolbox_model import in_unit_range, select

QUERIES = 500
SHARE = 0.05  # of the image that the first squares cover
HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the queries after which squares are halved


@subnormals_flushed()
@plain_torch()
def square(
    bank: Bank,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epsilon: float,
    left: np.ndarray,
    queries: int = QUERIES,
) -> np.ndarray:
    """The Square attack (Andriushchenko et al. 2020), L-infinity, on the margin.

    From vertical stripes of +-epsilon on, a square of every image is set to +-epsilon, channel by channel, and stays so
    where the margin falls. Squares and signs come from the stream ``square`` and are the same for every image, so a
    sample's result does not depend on the others.

    Args:
        bank, pixels, labels: as in `hrebasin.robustness.attacks.attack`.
        epsilon: size, pixel range.
        left: images that are attacked, (model, image) bool, such as those which other attacks leave.
        queries: predictions of each image.

    Returns:
        Of the attacked images those that are still classified correctly, (model, image) bool.
    """
    check_attack(bank, pixels, labels, "fgsm", [epsilon])
    if left.shape != (len(bank), len(pixels)):
        raise ValueError(f"left must be {(len(bank), len(pixels))}, got {left.shape}")
    if queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    standing = torch.as_tensor(left, device=bank.device).clone()
    if not standing.any():
        return standing.cpu().numpy()
    some, where = select(bank, standing)
    given, true = in_unit_range(pixels).to(bank.device)[where[1]], labels.to(bank.device)[where[1]]
    low, high = (given - epsilon).clamp(min=0), (given + epsilon).clamp(max=1)
    stream, (channels, rows, columns) = generator("square"), given.shape[2:]
    with torch.no_grad():
        best = torch.where(_signs(stream, channels, 1, columns).to(given.device), low, high)
        margin = margins(some(best), true)
        for query in track(range(queries - 1), label="square", unit="query"):
            if (margin < 0).all():
                break
            side = _side(query / queries, rows, columns)
            y, x = (int(torch.randint(n - side + 1, (), generator=stream)) for n in (rows, columns))
            window, tried = (..., slice(y, y + side), slice(x, x + side)), best.clone()
            signs = _signs(stream, channels, 1, 1).to(given.device)
            tried[window] = torch.where(signs, low[window], high[window])
            found = margins(some(tried), true)
            better = found < margin
            best = torch.where(better[..., None, None, None], tried, best)
            margin = torch.where(better, found, margin)
    standing[where] = margin >= 0
    return standing.cpu().numpy()


def _signs(stream: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=stream) < 0.5


def _side(done: float, rows: int, columns: int) -> int:
    """Side of the squares after a share of the queries."""
    share = SHARE / 2 ** sum(done >= at for at in HALVED)
    return min(max(1, round((share * rows * columns) ** 0.5)), rows, columns)
