import numpy as np

import synthetic
from hrebasin.merging.averages import merge_naive
from hrebasin.merging.tree import align_tree, merge_tree
from hrebasin.study.questions.variance_collapse import feature_distance, variance_ratio
from synthetic_questions import effects


def test_variance_collapses_and_features_move_in_naive_averages_and_not_in_copies(trained, train_images):
    naive, few = merge_naive(trained), train_images.pixels
    ratio = variance_ratio(naive, trained, [range(8)], few)
    assert ratio.dims == ("model", "layer")
    assert (ratio < 0.8).all()
    same = variance_ratio(trained, trained, [[k] for k in range(8)], few)
    np.testing.assert_allclose(same, 1, rtol=1e-6)
    same = feature_distance(trained, trained, [[k] for k in range(8)], few)
    np.testing.assert_allclose(same, 0, atol=1e-5)
    merged, leaves = merge_tree(trained)[-1], align_tree(trained)[-1]
    aligned = feature_distance(merged, leaves, [range(8)], few)
    assert (aligned > 0).all()
    assert aligned.mean() < feature_distance(naive, trained, [range(8)], few).mean()


def test_every_network_of_every_tree_is_measured(measured):
    record = measured["repair"]
    assert record.sizes["model"] == 2 * (4 + 4 * 3)
    assert record.variance_ratio.notnull().all()
    assert record.feature_distance.notnull().all()
    unmerged, whole, tree = (synthetic.some(record, method=name) for name in ("unmerged", "repair-leaves", "tree"))
    np.testing.assert_allclose(unmerged.variance_ratio, 1, rtol=1e-6)
    np.testing.assert_allclose(unmerged.feature_distance, 0, atol=1e-5)
    assert (abs(whole.variance_ratio - 1) <= abs(tree.variance_ratio.values - 1) + 1e-3).mean() > 0.8


def test_what_is_recovered_is_a_share_of_what_was_lost():
    found = effects("repair", synthetic.results(groups=3, noise=0, stages=["repair"])["repair"])
    shares = [value for name, value in found.items() if "share of the loss recovered" in name]
    np.testing.assert_allclose(shares, 50)  # planted at every stage, by every way to repair
