"""The plain algorithms that the benchmarks compare with are oracles too: both sides must find the same."""

import numpy as np
import pytest
import torch

from hrebasin import (
    Bank,
    Recipe,
    accuracy,
    attack,
    eclipse_fast,
    global_lipschitz,
    match_weights,
    merge_many,
    merge_tree,
)
from hrebasin.study.benchmarks import any_network
from hrebasin.study.benchmarks import baselines as alternatives

EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.3)


@pytest.fixture(scope="module")
def halves(trained):
    return trained.select(slice(0, 4)), trained.select(slice(4, 8))


@pytest.mark.parametrize("seed", [0, "other"])
def test_plain_matching_finds_the_same_permutations(halves, seed):
    first, second = halves
    ours = match_weights(first, second, seed=[f"{seed}-{k}" for k in range(4)])
    for k in range(4):
        plain = alternatives.match_weights(first.select([k]), second.select([k]), seed=f"{seed}-{k}")
        for name, perm in ours.permutations.items():
            assert torch.equal(perm[k], plain[name])


def test_plain_matching_stops_at_its_limit(halves):
    first, second = (half.select([0]) for half in halves)
    once = alternatives.match_weights(first, second, max_sweeps=1)
    ours = match_weights(first, second, max_sweeps=1)
    for name, perm in ours.permutations.items():
        assert torch.equal(perm[0], once[name])


def test_the_plain_tree_ends_at_the_same_network(trained):
    plain, ours = alternatives.merge_tree(trained, seed=3), merge_tree(trained, seed=3)[-1]
    for name, tensor in ours.tensors.items():
        torch.testing.assert_close(plain.tensors[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "name"), [("fgsm", "robust_accuracy"), ("deepfool-linf", "robust_accuracy_clipped")])
def test_foolbox_one_network_at_a_time_breaks_the_same_images(trained, test_images, kind, name):
    pixels, labels = test_images.pixels.float() / 255, test_images.labels
    broken = alternatives.attack(trained, pixels, labels, kind=kind, epsilons=EPSILONS)
    assert broken.shape == (8, len(EPSILONS), 60)
    ours = attack(trained, pixels, labels, kind=kind, epsilons=EPSILONS)
    np.testing.assert_allclose(ours[name], 1 - broken.mean(2), atol=1 / 60 + 1e-9)  # one borderline image


def test_bounds_in_numpy_are_those_of_the_bank(trained):
    bounds = alternatives.lipschitz(trained)
    np.testing.assert_allclose(bounds[:, 0], global_lipschitz(trained, units="normalised"), rtol=1e-9)
    np.testing.assert_allclose(bounds[:, 1], eclipse_fast(trained, units="normalised"), rtol=1e-9)


def test_plain_training_learns(architecture, train_images, test_images):
    recipe = Recipe(learning_rate=1e-2, batch_size=16, epochs=6)
    bank = alternatives.train(architecture, train_images, recipe, seed=3)
    assert isinstance(bank, Bank)
    assert accuracy(bank, test_images).item() > 0.5  # chance is 0.25


def test_rebasin_merges_to_about_the_same_network(trained, test_images):
    pytest.importorskip("rebasin", reason="the optional dependency group bench is not installed")
    plain, ours = alternatives.merge_many(trained), merge_many(trained)
    assert abs(accuracy(plain, test_images).item() - accuracy(ours, test_images).item()) <= 0.1


def test_the_package_rebasin_permutes_a_network_and_ends_near_our_objective():
    pytest.importorskip("rebasin")
    row = any_network.rows(pairs=1, small=True)["vgg16-rebasin"]
    assert abs(row.difference(row.ours(), row.alternative())) < 5
