"""The plain algorithms that the benchmarks compare with are oracles too: both sides must find the same."""

import numpy as np
import pytest
import torch

import hrebasin
from hrebasin.merging.cycle_consistent import match_cycle_consistent
from hrebasin.study.benchmarks import any_network, baselines
from hrebasin.study.benchmarks.cycle_consistent import published


@pytest.mark.parametrize("limit", [{}, {"max_sweeps": 1}])
def test_plain_matching_finds_the_same_permutations(trained, limit):
    first, second = trained.select(slice(0, 4)), trained.select(slice(4, 8))
    ours = hrebasin.match_weights(first, second, seed=[f"other-{k}" for k in range(4)], **limit)
    for k in range(4):
        plain = baselines.match_weights(first.select([k]), second.select([k]), seed=f"other-{k}", **limit)
        for name, perm in ours.permutations.items():
            assert torch.equal(perm[k], plain[name])


def test_the_plain_tree_ends_at_the_same_network(trained):
    plain, ours = baselines.merge_tree(trained, seed=3), hrebasin.merge_tree(trained, seed=3)[-1]
    for name, tensor in ours.tensors.items():
        torch.testing.assert_close(plain.tensors[name], tensor, rtol=1e-5, atol=1e-6)


def test_cycle_consistent_matching_goes_as_far_as_the_published_procedure_in_all_steps_and_in_one(trained):
    for n in (2, 5):
        bank = trained.select(slice(n))
        ours, theirs = match_cycle_consistent(bank).objectives, published(bank)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
        assert ours[-1] >= 0.999 * theirs[-1]
    step = match_cycle_consistent(trained, max_steps=1, tolerance=0.0).objectives
    np.testing.assert_allclose(step, published(trained, max_steps=1), rtol=1e-3)


@pytest.mark.parametrize(("kind", "name"), [("fgsm", "robust_accuracy"), ("deepfool-linf", "robust_accuracy_clipped")])
def test_foolbox_one_network_at_a_time_breaks_the_same_images(trained, test_images, kind, name):
    bank, few, epsilons = trained.select([0, 1, 2]), test_images.first(30), (0.0, 0.02, 0.05, 0.1, 0.3)
    given = bank, few.pixels.float() / 255, few.labels
    broken = baselines.attack(*given, kind=kind, epsilons=epsilons)
    assert broken.shape == (3, len(epsilons), 30)
    ours = hrebasin.attack(*given, kind=kind, epsilons=epsilons)
    np.testing.assert_allclose(ours[name], 1 - broken.mean(2), atol=1 / 30 + 1e-9)  # one borderline image


def test_bounds_in_numpy_are_those_of_the_bank(trained):
    bounds = baselines.lipschitz(trained)
    np.testing.assert_allclose(bounds[:, 0], hrebasin.global_lipschitz(trained, units="normalised"), rtol=1e-9)
    np.testing.assert_allclose(bounds[:, 1], hrebasin.eclipse_fast(trained, units="normalised"), rtol=1e-9)


def test_plain_training_learns(architecture, train_images, test_images, recipe):
    bank = baselines.train(architecture, train_images, recipe, seed=3)
    assert hrebasin.accuracy(bank, test_images).item() > 0.5  # chance is 0.25


def test_the_package_rebasin_ends_near_our_networks_and_objective(trained, test_images):
    pytest.importorskip("rebasin", reason="the optional dependency group bench is not installed")
    banks = baselines.merge_many(trained), hrebasin.merge_many(trained)
    plain, ours = (hrebasin.accuracy(bank, test_images).item() for bank in banks)
    assert abs(plain - ours) <= 0.1
    row = any_network.rows(pairs=1, small=True)["vgg16-rebasin"]
    assert abs(row.difference(row.ours(), row.alternative())) < 5
