"""The same numbers from every stage, again and on another number of CPU threads; `test_cuda` does this for a GPU."""

import numpy as np
import pytest
import torch

from hrebasin import Architecture, Recipe, evaluate, match_weights, merge_many, merge_naive, merge_tree, train
from hrebasin.lipschitz.bounds import measure
from hrebasin.merging.ablations import lines, pairs_of, permutation_choice
from hrebasin.robustness.attacks import attack_suite

N_IMAGES = 60
RECIPE = Recipe(batch_size=80, epochs=3)
EXACT = {"atol": 0, "rtol": 0}
ONE_IMAGE = {"atol": 1 / N_IMAGES + 1e-9, "rtol": 0}
# stage -> how far results on two threads may be from those on one; the README states these
TOLERANCES = {
    "training": EXACT,
    "matching": EXACT,
    "merging": {"atol": 1e-7, "rtol": 1e-5},
    "accuracy": ONE_IMAGE,
    "loss": {"atol": 1e-6, "rtol": 1e-4},
    "perturbation": {"atol": 1e-5, "rtol": 1e-3},
    "bounds": {"atol": 0, "rtol": 1e-9},
    "gradients": {"atol": 1e-6, "rtol": 1e-4},
}


@pytest.fixture(scope="module")
def images(make_images):
    """Large enough for products that threads share."""
    sizes = {"train": 400, "test": N_IMAGES}
    return {split: make_images(split, n, shape=(3, 16, 16), noise=300) for split, n in sizes.items()}


@pytest.fixture(scope="module")
def architecture(images):
    return Architecture((128, 128, 64), 4, (3, 16, 16), *images["train"].statistics())


def stacked(*banks):
    """Every weight of some banks."""
    return np.concatenate([tensor.flatten() for bank in banks for tensor in bank.tensors.values()])


def compute(images, bank):
    """What every stage gives from the same networks, by the tolerance that it is held to."""
    test, halves = images["test"], pairs_of(bank, 2)
    given = test.pixels, test.labels
    alignment = match_weights(*halves)
    scores = evaluate(bank, test)
    attacked = attack_suite(bank, *given, epsilons=[0.0, 0.01, 0.05], magnitudes=[0.0, 0.2], draws=2)
    attacked_accuracies = attacked.robust_accuracy, attacked.noise_accuracy
    measured = measure(bank, *given, radii=[0.1], bounded=4)
    curves, choice = lines(*halves, images, [0.0, 0.5, 1.0], seed=0), permutation_choice(*halves, test, seed=0)
    return {
        "matching": [permutation.numpy() for permutation in alignment.permutations.values()],
        "merging": [stacked(*merge_tree(bank)[1:], merge_many(bank), merge_naive(bank))],
        "accuracy": [scores.accuracy, *attacked_accuracies, curves.accuracy, choice.choice_accuracy],
        "loss": [scores.loss, curves.loss, curves.loss_barrier],
        "perturbation": [attacked.perturbation_norm],
        "bounds": [measured.weight_norm, measured.lipschitz, measured.local_lipschitz],
        "gradients": [measured.gradient_norm, measured.margin],
    }


@pytest.fixture(scope="module")
def results(architecture, images):
    """On one thread, on two, and on two once more."""
    bank, made = None, []
    for n in (1, 2, 2):
        torch.set_num_threads(n)
        try:
            trained = train(architecture, images["train"], range(4), RECIPE)
            bank = bank or trained
            made.append({"training": [stacked(trained), trained.history.train_loss], **compute(images, bank)})
        finally:
            torch.set_num_threads(1)
    return made


def test_a_repeat_is_the_same_bit_for_bit_and_two_threads_give_what_one_gives(results):
    one, first, again = results
    for stage, tolerance in TOLERANCES.items():
        for alone, a, b in zip(one[stage], first[stage], again[stage], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=stage)
            np.testing.assert_allclose(a, alone, **tolerance, err_msg=stage)


def test_the_comparison_is_about_something(results):
    """Networks that are neither perfect nor at chance, and attacks that break some images."""
    accuracy, robust, *_ = results[0]["accuracy"]
    assert 0.3 < accuracy.mean() < 0.95
    assert 0.05 < robust.isel(epsilon=-1).mean() < accuracy.mean() - 0.05
