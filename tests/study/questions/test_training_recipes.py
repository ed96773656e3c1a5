from dataclasses import replace

import numpy as np
import pytest

from hrebasin.evaluation import accuracy
from hrebasin.merging.ablations import lines
from hrebasin.merging.many import merge_many
from hrebasin.merging.tree import merge_tree
from hrebasin.networks import Architecture
from hrebasin.study.questions.training_recipes import CROP_PADDING, WEIGHT_DECAY, Variant, measure, variants
from hrebasin.training.recipe import Recipe
from hrebasin.training.train import train
from synthetic import some


@pytest.fixture
def found(measured):
    """The second group of the first recipe."""
    return some(measured["recipes"], recipe="as it is", group=1)


def test_every_combination_is_there_once():
    ways = variants(Recipe(epochs=3), (8, 4), train_images=100, factors=[0.5, 2], width_images=50)
    recipes = [way.recipe for way in ways[:8]]
    kinds = {(r.optimizer, r.weight_decay, r.crop_padding, r.flip) for r in recipes}
    assert kinds == {
        (optimizer, decay, padding, bool(padding))
        for optimizer in ("adam", "sgd")
        for decay in (0, WEIGHT_DECAY)
        for padding in (0, CROP_PADDING)
    }
    assert {r.epochs for r in recipes} == {3}
    assert [(way.widths, way.train_images) for way in ways[7:]] == [((8, 4), 100), ((4, 2), 50), ((16, 8), 50)]
    assert len({way.name for way in ways}) == 10


def test_networks_are_those_of_the_group_merged_by_both_ways(found, train_images, test_images, recipe):
    architecture = Architecture((8, 6), 4, train_images.shape, *train_images.statistics())
    leaves = train(architecture, train_images, range(4, 8), recipe).relabel(group=1)
    tree, many = merge_tree(leaves), merge_many(leaves)
    for bank in (leaves, tree[1], tree[2], many):
        kind = {name: bank.labels[name][0] for name in ("method", "stage")}
        tolerance = 0.02 * (kind["method"] == "merge-many")
        np.testing.assert_allclose(some(found, **kind).test_accuracy, accuracy(bank, test_images), atol=tolerance)
    assert (found.seed.values >= 4).all()
    first, second = leaves.select([0, 2]), leaves.select([1, 3])  # barriers are those of the first merges
    expected = lines(first, second, {"test": test_images.first(30)}, np.linspace(0, 1, 11), seed=0).sel(split="test")
    merged = ((found.method == "tree") & (found.stage == 1)).values
    np.testing.assert_allclose(found.loss_barrier.values[merged], expected.loss_barrier.transpose("pair", "alignment"))
    assert np.isnan(found.accuracy_barrier.values[~merged]).all()


def test_fewer_images_and_other_recipes_give_other_networks(found, train_images, test_images, recipe):
    settings = {"group": 1, "leaves": 2, "epsilons": [0.0], "attacked": 20}
    fewer = measure(Variant("fewer", recipe, (8, 6), 48), train_images, test_images, **settings)
    decay = Variant("decay", replace(recipe, weight_decay=0.01), (8, 6), 0)
    decayed = measure(decay, train_images, test_images, **settings)
    accuracies = [each.test_accuracy.values[:2].tolist() for each in (found, fewer, decayed)]
    assert len({tuple(values) for values in accuracies}) == 3
    assert fewer.model.values[0].startswith("fewer/")
    assert np.isfinite(decayed.robust_accuracy).all()
