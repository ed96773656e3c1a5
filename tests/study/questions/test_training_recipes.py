import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from hrebasin.evaluation import accuracy
from hrebasin.merging.many import merge_many
from hrebasin.merging.pairs import lines
from hrebasin.merging.tree import merge_tree
from hrebasin.networks import Architecture
from hrebasin.study.questions.training_recipes import CROP_PADDING, WEIGHT_DECAY, Variant, answer, measure, variants
from hrebasin.training.recipe import Recipe
from hrebasin.training.train import train
from synthetic import results


@pytest.fixture
def found(measured):
    """The second group of the first recipe."""
    data = measured["recipes"]
    return data.isel(model=((data.recipe == "as it is") & (data.group == 1)).values)


@pytest.fixture(scope="module")
def leaves(train_images, recipe):
    architecture = Architecture((8, 6), 4, train_images.shape, *train_images.statistics())
    return train(architecture, train_images, range(4, 8), recipe).relabel(group=1)


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
    assert [way.widths for way in ways[8:]] == [(4, 2), (16, 8)]
    assert {way.train_images for way in ways[:8]} == {100}
    assert {way.train_images for way in ways[8:]} == {50}
    assert len({way.name for way in ways}) == 10


def test_networks_are_those_of_the_group_merged_by_both_ways(found, leaves, test_images):
    def measured(**labels):
        mask = np.logical_and.reduce([found[name] == value for name, value in labels.items()])
        return found.test_accuracy.values[mask]

    np.testing.assert_allclose(measured(method="unmerged"), accuracy(leaves, test_images))
    tree = merge_tree(leaves)
    for stage in (1, 2):
        np.testing.assert_allclose(measured(method="tree", stage=stage), accuracy(tree[stage], test_images))
    np.testing.assert_allclose(
        measured(method="merge-many", n_merged=4), accuracy(merge_many(leaves), test_images), atol=0.02
    )
    assert (found.seed.values >= 4).all()
    assert (found.group == 1).all()


def test_barriers_are_those_of_the_first_merges(found, leaves, test_images):
    first, second = leaves.select([0, 2]), leaves.select([1, 3])
    expected = lines(first, second, {"test": test_images.first(30)}, np.linspace(0, 1, 11), seed=0).sel(split="test")
    merged = ((found.method == "tree") & (found.stage == 1)).values
    np.testing.assert_allclose(found.loss_barrier.values[merged], expected.loss_barrier.transpose("pair", "alignment"))
    assert np.isnan(found.accuracy_barrier.values[~merged]).all()


def test_fewer_images_and_other_recipes_give_other_networks(found, train_images, test_images, recipe):
    settings = {"group": 1, "leaves": 2, "epsilons": [0.0], "attacked": 20}
    fewer = measure(Variant("fewer", recipe, (8, 6), 48), train_images, test_images, **settings)
    decayed = measure(
        Variant("decay", replace(recipe, weight_decay=0.01), (8, 6), 0), train_images, test_images, **settings
    )
    accuracies = [each.test_accuracy.values[:2].tolist() for each in (found, fewer, decayed)]
    assert len({tuple(values) for values in accuracies}) == 3
    assert fewer.model.values[0].startswith("fewer/")
    assert torch.isfinite(torch.tensor(decayed.robust_accuracy.values)).all()


def test_few_training_images_of_other_recipes_are_told(measured):
    asked = measured["recipes"].assign_attrs(parameters='{"recipe_images": 10000, "width_images": 4000}')
    told = "These networks were trained on 10,000 images, those of other widths on 4,000."
    assert answer(asked)[1].endswith(told)
    assert told not in answer(measured["recipes"])[1]


def test_the_lead_tells_one_change_with_its_interval_and_names_recipes_in_words():
    told = answer(results(groups=4, stages=["recipes"])["recipes"])[1]
    assert re.match(r"(Yes|Not resolved)\. (Crop and flip (raise|lower) what|What crop and flip change of what) ", told)
    assert told.partition("under strong ")[2].partition(". The smallest")[0].endswith("n = 4 trees)")
    assert "crop-flip" not in told
    assert "sgd" not in told
