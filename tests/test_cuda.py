"""The same results on a CUDA GPU as on the CPU; skipped where there is none."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from hrebasin import Bank, attack, evaluate, match_weights, merge_many, merge_tree, train
from hrebasin.lipschitz.bounds import measure
from hrebasin.matching.activations import match_activations
from hrebasin.merging.ablations import lines

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")


@pytest.fixture(scope="module")
def on_gpu(trained):
    return trained.to("cuda")


def assert_close(a: Bank, b: Bank, **tolerance):
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(b.tensors[name].cpu(), tensor.cpu(), msg=name, **tolerance)


def test_training(architecture, train_images, trained, recipe):
    bank = train(architecture, train_images, range(8), recipe, device="cuda")
    assert_close(trained, bank, rtol=1e-2, atol=1e-3)  # 36 steps of Adam carry the last bits on


def test_training_in_bfloat16_learns(architecture, train_images, recipe):
    bank = train(architecture, train_images, [0, 1], replace(recipe, precision="bfloat16"), device="cuda")
    assert (bank.history.train_accuracy[:, -1] > 0.5).all()


def test_matching(trained, on_gpu, train_images):
    whole = train_images.pixels
    for match in (match_weights, *(partial(match_activations, pixels=p) for p in (whole, whole.float() / 255))):
        here, there = (match(bank.select(slice(0, 4)), bank.select(slice(4, 8))) for bank in (trained, on_gpu))
        for name, perm in here.permutations.items():
            assert torch.equal(perm, there.permutations[name])
        if match is match_weights:
            torch.testing.assert_close(here.objective, there.objective, rtol=1e-6, atol=0)


def test_merging_accuracy_bounds_and_lines(trained, on_gpu, test_images):
    few = test_images.pixels[:8], test_images.labels[:8]
    here, there = (
        (
            *(merge_tree(bank)[-1], merge_many(bank), evaluate(bank, test_images)),
            measure(bank, *few, radii=[0.1], bounded=4),
            lines(bank.select([0, 1]), bank.select([2, 3]), {"test": test_images}, [0.0, 0.5, 1.0], seed=0),
        )
        for bank in (trained, on_gpu)
    )
    for k in range(2):
        assert_close(here[k], there[k], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there[2].accuracy, here[2].accuracy, atol=1 / 60 + 1e-9)
    np.testing.assert_allclose(there[2].loss, here[2].loss, rtol=1e-4)
    for name in ("weight_norm", "lipschitz", "local_lipschitz", "gradient_norm"):
        np.testing.assert_allclose(there[3][name], here[3][name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(there[4].loss, here[4].loss, rtol=1e-3)


@pytest.mark.parametrize("kind", ["fgsm", "deepfool-linf", "deepfool-l2", "gaussian"])
def test_attacks(trained, test_images, kind):
    given = {"kind": kind, "epsilons": (0.0, 0.02, 0.1), "draws": 2}
    here = attack(trained, test_images.pixels, test_images.labels, **given)
    there = attack(trained, test_images.pixels, test_images.labels, device="cuda", **given)
    np.testing.assert_allclose(there.robust_accuracy, here.robust_accuracy, atol=1 / 60 + 1e-9)
