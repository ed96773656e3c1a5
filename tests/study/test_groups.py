from itertools import product

import numpy as np
import pytest
import xarray as xr

import synthetic
from hrebasin.study.groups import (
    NotMeasuredError,
    by_group,
    crossings,
    on_same_leaves,
    pairs_of_same_leaves,
    steps,
    tree,
    variance_falls,
)


def test_nodes_are_averaged_within_a_group_first():
    array = xr.DataArray([1.0, 3.0, 10.0], dims="model", coords={"group": ("model", [0, 0, 7])}, name="accuracy")
    found = by_group(array)
    assert found.values.tolist() == [2.0, 10.0]
    assert found.group.values.tolist() == [0, 7]
    with pytest.raises(NotMeasuredError, match="accuracy was not measured for group 1"):
        by_group(array, group=1)


def test_tree_and_merge_many_are_compared_on_the_same_leaves_in_the_same_order():
    merge = synthetic.results(groups=2, noise=0, stages=["merge"])["merge"]
    np.testing.assert_allclose(tree(merge.test_accuracy, 0), synthetic.UNMERGED)
    sides = {"method": "tree", "n_merged": 4}, {"method": "merge-many", "n_merged": 4, "sweeps": 100}
    few = merge.isel(model=((merge.method != "merge-many") | (merge.node == 0)).values)  # it merged the first sets
    other = (few.method == "tree") & (few.n_merged == 4) & (few.node > 0)
    merged, many = on_same_leaves(few.test_accuracy.where(~other, 0.0), *sides)
    np.testing.assert_allclose(merged - many, 0.03)
    leaves = (10 * merge.group + merge.node).rename("leaves")
    of_many = (merge.method == "merge-many").values
    backwards = leaves.isel(model=np.concatenate([np.flatnonzero(~of_many), np.flatnonzero(of_many)[::-1]]))
    for array in (leaves, backwards):
        first, second = pairs_of_same_leaves(array, *sides)
        np.testing.assert_array_equal(first, second)
    assert first.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]


def test_the_planted_crossing_is_found():
    attack = synthetic.results(groups=3, noise=0, stages=["attack"])["attack"]
    for kind, stages in product(synthetic.ATTACKS, [*steps(attack), (0, 4)]):
        found = crossings(attack.robust_accuracy.sel(attack=kind), *stages)
        np.testing.assert_allclose(found, [synthetic.CROSSING] * 3, atol=1e-9)
    noisy = synthetic.results(groups=8, stages=["attack"])["attack"].robust_accuracy.sel(attack=kind)
    noisy = crossings(noisy, 0, 4)
    assert abs(noisy.mean() - synthetic.CROSSING) < 5e-4


@pytest.mark.parametrize("skewed", [False, True])
def test_equal_variances_do_not_read_as_a_fall(skewed):
    """Whatever the distribution: a ratio of variances would be biased by how few networks the later stage has."""
    rows = synthetic.networks(400, 8)
    draws = synthetic.normal(len(rows), "variance")
    values = xr.DataArray(np.exp(draws) if skewed else draws, dims="model", coords=synthetic.coords(rows))
    falls, last = variance_falls(values)
    assert last == 1  # the last stage with four networks per group
    assert abs(falls.mean()) < 3 * falls.std() / 20
    wide = values * np.where(values.stage == 0, 2, 1)
    leaves = values[(values.method == "unmerged").values]
    first = np.array([leaves[(leaves.group == g).values].values.var(ddof=1) for g in range(400)])
    np.testing.assert_allclose(variance_falls(wide)[0], falls + 3 * first)
