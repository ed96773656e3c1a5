"""Accuracy under attack and under noise by group, and by image where a data set holds what happened to each image."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from .groups import LEAST_STRONG, PERCENT, TOLERANCE, NotMeasuredError, by_group, finite, mask, tree

MINIMAL = "deepfool-linf"  # whose norms tell of every size whether an image withstands it
WEAK = (2 * TOLERANCE, 0.005)  # epsilons that count as weak; 0 is no attack
STRONG = (LEAST_STRONG, 0.020)  # epsilons that count as strong


def between(attack: xr.Dataset, low: float, high: float) -> np.ndarray:
    """Equal weights (epsilon,) of the sizes from ``low`` to ``high``; NotMeasuredError where there are none."""
    inside = (attack.epsilon.values >= low - TOLERANCE) & (attack.epsilon.values <= high + TOLERANCE)
    if not inside.any():
        raise NotMeasuredError(f"no attack of size {low:g} to {high:g} was measured")
    return inside / inside.sum()


def under(attack: xr.Dataset, kind: str) -> xr.DataArray:
    """Robust accuracy (model, epsilon) under an attack; NotMeasuredError where it was not tried."""
    if kind not in attack.attack.values:
        raise NotMeasuredError(f"the attack {kind!r} was not measured")
    return attack.robust_accuracy.sel(attack=kind)


def robust_difference(
    attack: xr.Dataset, kind: str, first: Mapping, second: Mapping, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Robust accuracy of networks with the labels ``first`` minus ``second``, in percentage points.

    Args:
        attack: data set of the stage "attack".
        kind: attack.
        first, second: labels, see `hrebasin.study.groups.by_group`.
        weights: (epsilon,) of the sizes.

    Returns:
        Values (group,), and the same by image (group, image), whose means they are; None where the data set does not
        tell it. A group of which nothing was kept by image gets the mean of the others'.
    """
    sizes = np.flatnonzero(weights)
    of_size = xr.DataArray(weights[sizes], dims="epsilon")
    share = under(attack, kind).isel(epsilon=sizes).dot(of_size, dim="epsilon").rename("robust_accuracy")
    one, other = (by_group(share, **labels) for labels in (first, second))
    groups = np.intersect1d(one.group.values, other.group.values)
    values = finite(PERCENT * (one.sel(group=groups) - other.sel(group=groups)).values)
    sides = [_by_image(attack, kind, labels, sizes, weights[sizes], groups) for labels in (first, second)]
    if any(side is None for side in sides) or len(values) < len(groups):
        return values, None
    return values, around(values, PERCENT * (sides[0] - sides[1]))


def around(values: np.ndarray, by_image: np.ndarray) -> np.ndarray | None:
    """The same values by image (group, image), with the means ``values`` (group,); None where nothing is known.

    A group of which nothing was kept by image gets the mean of the others'.
    """
    kept = np.isfinite(by_image).all(1)
    if not kept.any():
        return None
    by_image = np.where(kept[:, None], by_image, by_image[kept].mean(0))
    # norms are kept with three digits, so that an image in a thousand may stand on the other side of a size
    return by_image + (values - by_image.mean(1))[:, None]


def under_noise(attack: xr.Dataset, noise: str, what: str) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Accuracy or "share retained" under a noise (model, magnitude), and by image (model, magnitude, image) if known.

    Of the share, a ratio of two means over images, an image has the first-order part that it adds (delta method).
    """
    accuracy, by_image = attack.noise_accuracy.sel(noise=noise).mean("draw"), None
    if "correct_draws" in attack:
        counts = attack.correct_draws.sel(noise=noise)
        by_image = counts.where(counts >= 0) / attack.sizes["draw"]
    if what == "share retained":
        clean, accuracy = accuracy.sel(magnitude=0), (accuracy / accuracy.sel(magnitude=0)).rename("noise_accuracy")
        if by_image is not None:
            by_image = accuracy + (by_image - accuracy * by_image.sel(magnitude=0)) / clean
    return accuracy, by_image


def noise_difference(attack: xr.Dataset, noise: str, what: str, stage: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A stage minus stage 0 under the largest noise, in points: values (group,), and (group, image) if known."""
    sides = (found if found is None else found.isel(magnitude=-1) for found in under_noise(attack, noise, what))
    mean, by_image = (side if side is None else PERCENT * (tree(side, stage) - tree(side, 0)) for side in sides)
    return mean.values, by_image if by_image is None else around(
        mean.values, by_image.transpose("group", "image").values
    )


def _by_image(attack, kind: str, labels: Mapping, sizes, weights, groups) -> np.ndarray | None:
    """Share of each group's networks that withstand, over sizes, (group, image); not a number where not kept."""
    few = attack.isel(model=mask(attack, labels))
    withstands = _withstands(few, kind, sizes)
    if withstands is None:
        return None
    share = np.tensordot(withstands, weights, axes=(1, 0))  # (model, image)
    known = few.group.values
    return np.stack([share[known == group].mean(0) for group in groups])


def _withstands(attack: xr.Dataset, kind: str, sizes: np.ndarray) -> np.ndarray | None:
    """Whether each image is classified correctly at each size, (model, epsilon, image), not a number where unknown."""
    if "robust" in attack:
        robust = attack.robust.sel(attack=kind).isel(epsilon=sizes).transpose("model", "epsilon", "image").values
        if (robust >= 0).any():
            return np.where(robust < 0, np.nan, robust)
    if kind != MINIMAL or "perturbation_norm" not in attack:
        return None
    norm, success = (attack[name].sel(norm="linf").values[:, None] for name in ("perturbation_norm", "success"))
    correct = attack.correct.values[:, None]
    stands = (correct == 1) & ((success == 0) | (norm > attack.epsilon.values[sizes, None]))
    return np.where(correct < 0, np.nan, stands)
