import numpy as np
import pytest

from hrebasin.merging.cycle_consistent import match_cycle_consistent
from hrebasin.study.benchmarks.cycle_consistent import GOALS, published, rows


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
    found = rows(trained)
    assert list(found) == [f"cycle-consistent-{size}" for size in GOALS]
    row = found["cycle-consistent-8"]
    assert abs(row.difference(row.ours(), row.alternative())) < 0.1
