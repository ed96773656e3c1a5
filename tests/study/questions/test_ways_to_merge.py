import numpy as np
import pytest
import torch

from hrebasin.evaluation import accuracy
from hrebasin.merging.distances import pairwise_distance, squared_norms
from hrebasin.merging.many import merge_many
from hrebasin.study.questions.ways_to_merge import MERGERS, NAMES
from synthetic_questions import effects


def test_all_ways_merge_the_same_networks(measured, trees, test_images):
    found, leaves = measured["mergers"], trees.where(method="unmerged", group=1)
    assert found.sizes["model"] == 2 * (2 + len(MERGERS) + 2 * 2)
    tree = found.test_accuracy[((found.method == "tree") & (found.group == 1)).values]
    np.testing.assert_allclose(tree, accuracy(trees.where(method="tree", stage=2, group=1), test_images))
    many = found.isel(model=((found.method == "merge-many") & (found.sweeps == 100) & (found.group == 1)).values)
    assert many.order.values.tolist() == [0, 1]
    np.testing.assert_allclose(many.pairwise_distance[0], merge_many(leaves).history.pairwise_distance[0])


@pytest.mark.parametrize("name", MERGERS)
def test_merged_networks_tell_their_distance_and_leave_what_they_are_given(trained, name):
    eight = trained.relabel(group=3)
    before = {key: tensor.clone() for key, tensor in eight.tensors.items()}
    merged, again = (MERGERS[name](eight, seed=1) for _ in range(2))
    assert all(torch.equal(tensor, before[key]) for key, tensor in eight.tensors.items())
    assert (len(merged), merged.labels["method"].tolist(), merged.labels["n_merged"].tolist()) == (1, [name], [8])
    distance = pairwise_distance(squared_norms(eight)[None], merged)
    np.testing.assert_allclose(merged.history.pairwise_distance, distance, rtol=1e-6)
    assert merged.history.seconds.item() > 0
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in merged.tensors.items())


def test_every_way_stands_beside_the_tree(measured):
    data, found = measured["mergers"], effects("mergers", measured["mergers"])
    mean = {name: data.test_accuracy.values[data.method.values == name].mean() for name in (*MERGERS, "tree", "naive")}
    for name in (*MERGERS, "naive"):
        told = found[f"{NAMES.get(name, name)} minus tree, 4 models"]
        assert told == pytest.approx(100 * (mean[name] - mean["tree"]), abs=1e-9)
