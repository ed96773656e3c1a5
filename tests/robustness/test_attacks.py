import random

import numpy as np
import pytest
import torch
from foolbox.attacks import (
    L2FastGradientAttack,
    LinfAdditiveUniformNoiseAttack,
    LinfBasicIterativeAttack,
    LinfProjectedGradientDescentAttack,
)

from hrebasin import Architecture, Bank, accuracy, attack
from hrebasin.random_streams import generator
from hrebasin.robustness.attacks import FIXED_SIZE, KINDS, attack_suite

# the tiny images have wide margins: most break within these ranges
EPSILONS = (0.0, 0.02, 0.05, 0.1, 0.2)
L2_EPSILONS = (0.0, 0.1, 0.3, 0.6, 100.0)
SIZES = {"deepfool-linf": EPSILONS, "deepfool-l2": L2_EPSILONS}
DEEPFOOL = ("deepfool-linf", "deepfool-l2")


@pytest.fixture(scope="module")
def labels(test_images):
    return test_images.labels


@pytest.fixture(scope="module")
def deepfool(trained, pixels, labels):
    """DeepFool on the trained bank, by kind."""
    return {kind: attack(trained, pixels, labels, kind=kind, epsilons=SIZES[kind]) for kind in DEEPFOOL}


def clean(bank, pixels, labels):
    """Whether plain networks classify each image, (model, image)."""
    with torch.no_grad():
        return np.stack([(network.eval()(pixels).argmax(1) == labels).numpy() for network in bank])


@pytest.mark.parametrize("kind", ["fgsm", *DEEPFOOL])
def test_the_number_of_samples_at_once_does_not_matter(kind, trained, pixels, labels):
    bank, options = trained.select([0, 3]), {"kind": kind, "epsilons": EPSILONS}
    for samples_at_once, n in ((1, 5), (2 * 7, 20)):
        whole = attack(bank, pixels[:n], labels[:n], **options)
        parts = attack(bank, pixels[:n], labels[:n], **options, samples_at_once=samples_at_once)
        assert set(parts.data_vars) == set(whole.data_vars)
        for name in whole.data_vars:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-3, atol=1e-6)
            assert parts[name].attrs == whole[name].attrs
        np.testing.assert_array_equal(parts.image, np.arange(n))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_at_epsilon_zero(kind, trained, pixels, labels, test_images):
    result = attack(trained, pixels, labels, kind=kind, epsilons=[0.0], draws=2)
    np.testing.assert_array_equal(result.correct, clean(trained, pixels, labels))
    curves = result.robust_accuracy.values.reshape(len(trained), -1)  # one column, or one for each draw
    np.testing.assert_allclose(curves, np.tile(accuracy(trained, test_images).values[:, None], curves.shape[1]))


@pytest.mark.parametrize("kind", DEEPFOOL)
def test_robust_accuracy_follows_from_norms_and_misclassified_images_are_left_alone(
    kind, trained, pixels, labels, deepfool
):
    result, wrong = deepfool[kind], ~clean(trained, pixels, labels)
    assert wrong.any()
    assert (result.perturbation_norm.values[wrong] == 0).all()
    assert (result.success.values[wrong] == 1).all()
    assert (result.perturbation_norm.values[~wrong] > 0).all()
    for epsilon in SIZES[kind]:
        robust = (result.correct == 1) & ((result.success == 0) | (result.perturbation_norm > epsilon))
        np.testing.assert_allclose(result.robust_accuracy.sel(epsilon=epsilon), robust.mean("image"))
    assert (result.robust_accuracy.diff("epsilon") <= 0).all()
    assert result.robust_accuracy.isel(epsilon=-1).mean() < result.robust_accuracy.isel(epsilon=0).mean() - 0.1


@pytest.mark.parametrize("kind", DEEPFOOL)
def test_an_image_breaks_at_exactly_the_norm_of_its_perturbation(kind, trained, pixels, labels, deepfool):
    bank, found = trained.select([0]), deepfool[kind].isel(model=0)
    image = np.flatnonzero((found.correct == 1) & (found.success == 1))[0]
    part = slice(image, image + 1)
    norm = attack(bank, pixels[part], labels[part], kind=kind, epsilons=[0.0]).perturbation_norm.item()
    result = attack(bank, pixels[part], labels[part], kind=kind, epsilons=[np.nextafter(norm, 0), norm])
    assert result.robust_accuracy.values.tolist() == [[1.0, 0.0]]


def affine_bank(n=3):
    """Two-class networks whose units are all active on [0, 1]^4, and their logit differences f(x) = w x + b."""
    architecture = Architecture((5, 6), 2, (1, 2, 2), (0.5,), (0.25,))
    stream = generator("test/affine")
    tensors = {
        name: torch.empty(n, *shape).uniform_(-0.5, 0.5, generator=stream)
        for name, shape in architecture.shapes.items()
    }
    tensors["fc1.bias"] += 10  # |W x| <= 4 * 0.5 * 2 = 4 on normalised pixels in [-2, 2]
    tensors["fc2.bias"] += 50  # |W y| <= 5 * 0.5 * 14.5 = 36.25
    first, second, third = (tensors[f"fc{layer}.weight"].double() for layer in (1, 2, 3))
    direction = ((third[:, :1] - third[:, 1:]) @ second @ first / 0.25)[:, 0]
    # the boundary goes through the grey image, so that distances stay far from the bounds of [0, 1]
    bank = Bank(architecture, tensors)
    grey = bank(torch.full((1, 1, 2, 2), 0.5))[:, 0]
    tensors["fc3.bias"] = tensors["fc3.bias"] - grey
    return Bank(architecture, tensors), direction


@pytest.mark.parametrize(("kind", "dual"), [("deepfool-l2", 2), ("deepfool-linf", 1), ("fgsm", 1)])
def test_the_distance_of_an_affine_network_is_found_exactly(kind, dual):
    bank, direction = affine_bank()
    near = 0.5 + 0.2 * direction / direction.norm(dim=1, keepdim=True)  # of class 0, an image for each network
    for k in range(len(bank)):
        pixels = near[k].float().view(1, 1, 2, 2)
        pixels = torch.cat([pixels, 1 - pixels])  # mirrored in the boundary: class 1
        with torch.no_grad():
            f = bank(pixels)[k].double() @ torch.tensor([1.0, -1.0], dtype=torch.float64)
        assert f[0] > 0 > f[1]
        expected = f.abs() / direction[k].norm(p=dual)
        if kind == "fgsm":
            epsilons = [factor * expected[0].item() for factor in (0.9, 0.99, 1.01, 1.1)]
            result = attack(bank.select([k]), pixels[:1], torch.tensor([0]), kind=kind, epsilons=epsilons)
            assert result.robust_accuracy[0].values.tolist() == [1, 1, 0, 0]
            continue
        result = attack(bank.select([k]), pixels, torch.tensor([0, 1]), kind=kind, epsilons=[0.0])
        assert (result.success == 1).all()
        np.testing.assert_allclose(result.perturbation_norm[0], expected, rtol=0.05)
        assert (result.perturbation_norm[0].values > expected.numpy()).all()  # overshoot: the boundary is crossed


@pytest.mark.parametrize(
    ("kind", "draw_noise"),
    [("gaussian", torch.randn), ("uniform", lambda *a, **options: torch.rand(*a, **options) * 2 - 1)],
)
def test_noise_by_hand(kind, draw_noise, trained, pixels, labels):
    magnitudes = (0.0, 0.1, 0.4)
    found = attack(trained, pixels, labels, kind=kind, epsilons=magnitudes, draws=3)
    result = found.robust_accuracy
    assert dict(result.sizes) == {"model": 8, "epsilon": 3, "draw": 3}
    for draw in range(3):
        noise = draw_noise(pixels.shape, generator=generator(f"noise/{kind}/{draw}"))
        for position, magnitude in enumerate(magnitudes):
            expected = clean(trained, (pixels + magnitude * noise).clamp(0, 1), labels).mean(1)
            np.testing.assert_allclose(result[:, position, draw], expected, atol=1e-12)
    np.testing.assert_allclose(found.correct_draws.mean("image") / 3, result.mean("draw"))
    assert set(np.unique(found.correct_draws[:, 0])) == {0, 3}
    # networks see the same noise, which takes no global state and does not depend on how many draws there are
    twice = Bank.concat([trained.select([2]), trained.select([2])])
    torch.manual_seed(1)
    fewer = attack(twice, pixels, labels, kind=kind, epsilons=magnitudes, draws=2).robust_accuracy
    np.testing.assert_array_equal(fewer[0], result[2].isel(draw=slice(2)))
    np.testing.assert_array_equal(fewer[1], fewer[0])


def test_the_suite_holds_each_attack(trained, pixels, test_images, labels, deepfool):
    suite = attack_suite(trained, test_images.pixels, labels, epsilons=EPSILONS, magnitudes=(0.0, 0.3), draws=2)
    curves = suite.robust_accuracy
    fgsm = attack(trained, pixels, labels, kind="fgsm", epsilons=EPSILONS)
    np.testing.assert_array_equal(curves.sel(attack="fgsm"), fgsm.robust_accuracy)
    linf, l2 = deepfool["deepfool-linf"], deepfool["deepfool-l2"]
    np.testing.assert_array_equal(curves.sel(attack="deepfool-linf"), linf.robust_accuracy)
    np.testing.assert_array_equal(curves.sel(attack="deepfool-linf-clipped"), linf.robust_accuracy_clipped)
    for norm, result in (("linf", linf), ("l2", l2)):
        for name in ("success", "repredicted"):
            np.testing.assert_array_equal(suite[name].sel(norm=norm), result[name])
        np.testing.assert_allclose(
            suite.perturbation_norm.sel(norm=norm), result.perturbation_norm, rtol=1e-3, atol=1e-6
        )
    for kind in ("gaussian", "uniform"):
        noise = attack(trained, pixels, labels, kind=kind, epsilons=(0.0, 0.3), draws=2)
        np.testing.assert_array_equal(suite.noise_accuracy.sel(noise=kind), noise.robust_accuracy)
        counts = suite.correct_draws.sel(noise=kind).transpose("model", "magnitude", "image")
        np.testing.assert_array_equal(counts, noise.correct_draws)
    np.testing.assert_array_equal(suite.correct, clean(trained, pixels, labels))
    for kind, found in (("fgsm", fgsm), ("deepfool-linf", linf)):
        np.testing.assert_array_equal(suite.robust.sel(attack=kind).mean("image"), found.robust_accuracy)
    assert (suite.robust.sel(attack="deepfool-linf-clipped") == -1).all()
    np.testing.assert_array_equal(suite.zero_gradients, fgsm.zero_gradients)
    assert suite.epsilon.values.tolist() == list(EPSILONS)
    assert suite.magnitude.values.tolist() == [0.0, 0.3]
    assert suite.seed.values.tolist() == list(range(8))


class Shuffled(LinfBasicIterativeAttack):
    """Draws a number by Python's own global generator."""

    def run(self, *args, **kwargs):
        random.random()  # noqa: S311 - the state is looked at, not the number
        return super().run(*args, **kwargs)


def test_registered_attacks_of_another_norm_or_with_random_numbers_are_refused(trained, pixels, labels, monkeypatch):
    given = {"kind": "mine", "epsilons": [0.1], "samples_at_once": 16}
    draws = "'mine' draws random numbers"
    for made, reason in (
        (LinfProjectedGradientDescentAttack, draws),
        (LinfAdditiveUniformNoiseAttack, draws),
        (Shuffled, draws),
        (L2FastGradientAttack, "'mine' is of the norm L2: sizes of registered attacks are L-infinity norms"),
    ):
        monkeypatch.setitem(FIXED_SIZE, "mine", made)
        with pytest.raises(ValueError, match=reason):
            attack(trained.select([0, 1]), pixels[:4], labels[:4], **given)
    monkeypatch.setitem(FIXED_SIZE, "mine", LinfBasicIterativeAttack)
    once, again = (attack(trained.select([0, 1]), pixels[:20], labels[:20], **given).robust_accuracy for _ in range(2))
    assert once.equals(again)
