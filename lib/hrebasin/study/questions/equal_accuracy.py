"""Networks beside others that are as accurate as they are, though none may be exactly so."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..groups import PERCENT, POINTS, NotMeasuredError, by_group, large, mask, strong
from ..statistics import Test, defined

RISING = ("stopped", "narrow")  # families whose accuracy rises with their strength; of others it falls
NEAR = 0.01  # accuracy


@dataclass(frozen=True, eq=False)
class Curve:
    """A family of one group from its least accurate network to its most accurate one.

    Attributes:
        accuracy: on all test images, (point,).
        robust: accuracy under strong attack, on the attacked images, (point, image); or (point, 1) where no more than
            the share of them is known.
    """

    accuracy: np.ndarray
    robust: np.ndarray

    def at(self, accuracy: float) -> tuple[np.ndarray, float]:
        """Robustness (image,) at an accuracy, linear between neighbours on the curve, and 0; or, where the curve does
        not reach that accuracy, at its nearest end, and how much more accurate that end is."""
        low, high = self.accuracy[:-1], self.accuracy[1:]
        between = np.flatnonzero((low <= accuracy) & (accuracy <= high))
        if not len(between):
            end = int(np.abs(self.accuracy - accuracy).argmin())
            return self.robust[end], float(self.accuracy[end] - accuracy)
        k = between[0]
        width = high[k] - low[k]
        share = (accuracy - low[k]) / width if width else 0.0
        return (1 - share) * self.robust[k] + share * self.robust[k + 1], 0.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Networks and their equals of a family, by group.

    Attributes:
        own, others: accuracy under strong attack, (group, image) or (group, 1).
        accuracy: of the networks, (group,).
        beyond: how much more accurate the others are, (group,); 0 where the family reaches that accuracy.
    """

    own: np.ndarray
    others: np.ndarray
    accuracy: np.ndarray
    beyond: np.ndarray

    @property
    def equal(self) -> bool:
        """Whether the others are as accurate."""
        return not self.beyond.any()

    @property
    def near(self) -> bool:
        """Whether the others are as accurate, or within a point."""
        return abs(self.beyond.mean()) <= NEAR

    def test(self, name: str) -> Test:
        """Own minus others, over groups, and images where these are known."""
        return _over_images(name, self.own - self.others)


def _over_images(name: str, lead: np.ndarray) -> Test:
    """A test of differences of shares, (group, image) or (group, 1)."""
    by_image = PERCENT * lead
    return defined(name, by_image.mean(1), POINTS, by_image=by_image if by_image.shape[1] > 1 else None)


def compare(data: xr.Dataset, robust: np.ndarray, networks: Mapping, family: str) -> Comparison:
    """Networks with the given labels beside a family at their accuracy, under strong attack.

    Each group's networks are compared with the family of that group. Groups where it does not reach their accuracy
    count unless it does in most.

    Args:
        data: data set of stage ``controls``.
        robust: of its networks, as `robust_by_image` gives it of an attack.
        networks: labels, see `hrebasin.study.groups.by_group`.
        family: method of the others.

    Raises:
        NotMeasuredError: no group has both.
    """
    rows = mask(data.test_accuracy, networks)
    columns = {name: ("model", data[name].values) for name in ("method", "strength", "test_accuracy")}
    slim, found = xr.Dataset(columns), []  # without the columns that are not needed here
    for group in np.unique(data.group.values[rows]):
        here = data.group.values == group
        line = curve(slim.isel(model=here), robust[here], family)
        if line is None:
            continue
        own, accuracy = robust[rows & here], data.test_accuracy.values[rows & here]
        others, beyond = zip(*(line.at(each) for each in accuracy), strict=True)
        found.append((own.mean(0), np.mean(others, axis=0), accuracy.mean(), np.mean(beyond)))
    if not found:
        raise NotMeasuredError(f"no group has networks of method {family!r}")
    reached = [each for each in found if each[3] == 0]
    chosen = reached if 2 * len(reached) > len(found) else found
    return Comparison(*(np.array(column) for column in zip(*chosen, strict=True)))


def over_unmerged(data: xr.Dataset, kind: str, networks: Mapping) -> Test | None:
    """`lead` of networks with the given labels over unmerged ones; None where the attack was not tried."""
    if kind not in data.attack.values:
        return None
    test = lead(data, kind, networks, {"method": "unmerged"}, f"{kind}: {networks} minus unmerged")
    return test if test.n else None


def lead(data: xr.Dataset, kind: str, first: Mapping, second: Mapping, name: str) -> Test:
    """Networks with the labels ``first`` minus those with ``second`` under a strong attack, over groups and images.

    Args:
        data: data set of stage ``controls`` or ``strong``.
        kind: attack.
        first, second: labels, see `hrebasin.study.groups.by_group`.
        name: of the test.
    """
    share = xr.DataArray(robust_by_image(data, kind), data.model.coords, ("model", "image"), "robust_accuracy")
    sides = xr.align(*(by_group(share, **labels) for labels in (first, second)), join="inner")
    return _over_images(name, np.subtract(*sides).values)


def beside_stopped(merged: xr.Dataset, families: xr.Dataset) -> Comparison:
    """Networks merged in one way beside early-stopped networks at their accuracy, under strong FGSM.

    Args:
        merged: those of one method, of the data set of stage ``mergers``.
        families: data set of stage ``controls``, of the same groups and attacked images.
    """
    others = families.isel(model=families.method.isin(("stopped", "unmerged")).values)
    columns = {
        name: ("model", np.concatenate([side[name].values for side in (others, merged)]))
        for name in ("method", "group", "strength", "test_accuracy")
    }
    kept = large(others.robust_accuracy.sel(attack="fgsm")).values, merged.strong_accuracy.values
    data = xr.Dataset(columns).set_coords(["method", "group"])
    return compare(data, np.concatenate(kept)[:, None], {"method": merged.method.values[0]}, "stopped")


def robust_by_image(data: xr.Dataset, kind: str) -> np.ndarray:
    """Share of the strong sizes that each image withstands, (model, image); (model, 1) of data sets without images."""
    robust = data.robust_accuracy.sel(attack=kind)
    if "withstood" not in data:
        return large(robust).values[:, None]
    sizes = int(strong(robust).notnull().any("model").sum())
    return data.withstood.sel(attack=kind).transpose("model", "image").values / sizes


def curve(data: xr.Dataset, robust: np.ndarray, family: str) -> Curve | None:
    """The curve of a family of one group, up to its most accurate point; networks of one strength are averaged.

    It ends at the unmerged networks, which are those of no penalty, no noise, all units and all epochs.

    Args:
        data: data set of stage ``controls``, of one group.
        robust: (model, image).
        family: a method; None where the group has no network of it.
    """
    method, accuracy = data.method.values, data.test_accuracy.values
    place = data.strength.values.astype(float)
    if not (method == family).any():
        return None
    if not place[method == family].any():  # published before strengths were told
        place = accuracy.copy()
    elif family not in RISING:
        place = -place
    place[method == "unmerged"] = np.inf
    own = (method == family) | (method == "unmerged")
    points = [own & (place == at) for at in np.unique(place[own])]
    heights = np.array([accuracy[point].mean() for point in points])
    upward = slice(int(heights.argmax()) + 1)
    return Curve(heights[upward], np.array([robust[point].mean(0) for point in points[upward]]))
