import numpy as np
import pytest

from hrebasin.evaluation import accuracy
from hrebasin.merging.many import merge_many
from hrebasin.study.questions.ways_to_merge import BESIDE, NAMES
from synthetic_questions import effects

RIVALS = ("star", "fold", "tree-random", "tree-nearest")


def test_all_ways_merge_the_same_networks(measured, trees, test_images):
    found, leaves = measured["mergers"], trees.where(method="unmerged", group=1)
    assert found.sizes["model"] == 2 * (len(BESIDE) + len(RIVALS) + 2 * 2)
    tree = found.test_accuracy[((found.method == "tree") & (found.group == 1)).values]
    np.testing.assert_allclose(tree, accuracy(trees.where(method="tree", stage=2, group=1), test_images))
    many = found.isel(model=((found.method == "merge-many") & (found.sweeps == 100) & (found.group == 1)).values)
    assert many.order.values.tolist() == [0, 1]
    np.testing.assert_allclose(many.pairwise_distance[0], merge_many(leaves).history.pairwise_distance[0])


def test_every_way_stands_beside_the_tree(measured):
    data, found = measured["mergers"], effects("mergers", measured["mergers"])
    mean = {name: data.test_accuracy.values[data.method.values == name].mean() for name in (*RIVALS, *BESIDE)}
    for name in (*RIVALS, "naive", "merge-many-from-tree"):
        told = found[f"{NAMES.get(name, name)} minus tree, 4 models"]
        assert told == pytest.approx(100 * (mean[name] - mean["tree"]), abs=1e-9)
