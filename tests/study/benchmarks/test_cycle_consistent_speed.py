import numpy as np
import pytest
import xarray as xr

from hrebasin import Bank
from hrebasin.merging.cycle_consistent import match_cycle_consistent
from hrebasin.study.benchmarks.cycle_consistent import GOALS, exponents, published, rows
from hrebasin.study.benchmarks.plots import goals


@pytest.mark.parametrize("n", [2, 5])
def test_ours_goes_as_far_as_the_published_procedure(trained, n):
    bank = trained.select(slice(n))
    ours, theirs = match_cycle_consistent(bank).objectives, published(bank)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[-1] >= 0.999 * theirs[-1]


def test_a_step_gains_as_much_as_the_published_one(trained):
    ours, theirs = (
        match_cycle_consistent(trained, max_steps=1, tolerance=0.0).objectives,
        published(trained, max_steps=1),
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[1] >= theirs[1] * (1 - 1e-6)


def test_rows_compare_objectives_of_several_numbers_of_networks(trained):
    found = rows(Bank.concat([trained, trained]))
    assert list(found) == [f"cycle-consistent-{size}" for size in GOALS]
    row = found["cycle-consistent-16"]
    assert abs(row.difference(row.ours(), row.alternative())) < 0.1


def test_a_straight_line_and_a_square_are_told_apart():
    sizes = np.array(list(GOALS), dtype=float)
    seconds = np.stack([0.3 * sizes, 0.2 * sizes**2], axis=1)[:, :, None] * [1, 1, 9]  # one repeat was disturbed
    data = xr.Dataset(
        {"seconds": (("row", "side", "repeat"), seconds), "ratio": ("row", [1.0] * 4), "goal": ("row", [1.0] * 4)},
        coords={"row": [f"cycle-consistent-{size:.0f}" for size in sizes], "title": ("row", ["C2M3"] * 4)},
    )
    assert exponents(data) == pytest.approx((1, 2))
    assert goals(data).endswith("C2M3's time grows as n^1. That of its published procedure grows as n^2.\n")
    assert exponents(data.isel(row=[0])) is None
