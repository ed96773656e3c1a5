from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin import Architecture, Bank, eclipse_fast, global_lipschitz, gradient_norm, local_lipschitz, weight_norm
from hrebasin.lipschitz import bounds as regularity
from hrebasin.lipschitz.bounds import margin, measure
from hrebasin.lipschitz.spectra import proven_eigenvalue
from hrebasin.random_streams import generator

UNITS = st.sampled_from(["pixel", "normalised"])
RADII = (1e-9, 0.01, 0.1, 0.5, 2.0, 1e6)


def weights_of(bank, k, units="pixel"):
    """Float64 weights and biases of network k as functions of pixels (flat) or of the normalised input."""
    weights, biases = (
        [bank.tensors[f"{layer}.{part}"][k].double().numpy() for layer in bank.architecture.layers]
        for part in ("weight", "bias")
    )
    if units == "pixel":
        size = np.prod(bank.architecture.image_shape[1:])
        mean, std = (np.repeat(v, size) for v in (bank.architecture.mean, bank.architecture.std))
        biases[0] = biases[0] - weights[0] @ (mean / std)
        weights[0] = weights[0] / std
    return weights, biases


def evaluate_by_hand(weights, biases, x):
    """Logits (point, class) of points (point, input)."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(x @ weight.T + bias, 0)
    return x @ weights[-1].T + biases[-1]


def input_of(bank, pixels, units="pixel"):
    x = pixels if units == "pixel" else bank.architecture.prepare(pixels)
    return x.flatten(1).double().numpy()


def spectral(matrix):
    return np.linalg.svd(matrix, compute_uv=False)[0]


def local_bound_by_hand(weights, biases, x0, radius):
    """Avant & Morgansen unit by unit, with every matrix written out."""
    d, bound = np.eye(len(x0)), 1.0
    for a, b in zip(weights[:-1], biases[:-1], strict=True):
        y = a @ x0 + b
        slope, y_bar = np.zeros(len(y)), np.zeros(len(y))
        for i in range(len(y)):
            reach = np.linalg.norm(a[i] @ d)
            y_bar[i] = y[i] + radius * reach
            if reach > 0:
                slope[i] = (max(y_bar[i], 0.0) - max(y[i], 0.0)) / (y_bar[i] - y[i])
        layer = spectral(np.diag(slope) @ a @ d)
        if layer == 0:
            return 0.0  # constant from here on
        d = np.diag((y_bar > 0).astype(float))
        x0, radius, bound = np.maximum(y, 0), layer * radius, bound * layer
    return bound * spectral(weights[-1] @ d)


def eclipse_by_hand(weights):
    x_inverse = np.eye(weights[0].shape[1])
    for w in weights[:-1]:
        m = w @ x_inverse @ w.T
        lam = 2 / spectral(m)
        x_inverse = np.linalg.inv(lam * np.eye(len(m)) - lam**2 / 4 * m)
    return np.sqrt(np.abs(np.linalg.eigvals(weights[-1].T @ weights[-1] @ x_inverse)).max())


@st.composite
def random_banks(draw):
    """Two random networks of one to four hidden layers, with their biases."""
    shape = draw(st.sampled_from([(1, 2, 2), (3, 2, 2)]))
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    mean, std = (0.5, 0.4, 0.6)[: shape[0]], (0.25, 0.2, 0.5)[: shape[0]]
    architecture = Architecture(tuple(widths), draw(st.integers(2, 5)), shape, mean, std)
    stream = generator(f"test/regularity/{draw(st.integers(0, 99))}")
    return Bank(
        architecture, {name: torch.empty(2, *s).normal_(generator=stream) for name, s in architecture.shapes.items()}
    )


def some_pixels(bank, n):
    return torch.rand(n, *bank.architecture.image_shape, generator=generator("test/regularity/pixels"))


@given(bank=random_banks(), units=UNITS, radius=st.sampled_from(RADII))
def test_every_measure_is_its_formula(bank, units, radius):
    pixels = some_pixels(bank, 2)
    product, eclipse = global_lipschitz(bank, units=units), eclipse_fast(bank, units=units)
    local = local_lipschitz(bank, pixels, radius=radius, units=units)
    for k in range(len(bank)):
        weights, biases = weights_of(bank, k, units)
        assert product[k].item() == pytest.approx(np.prod([spectral(w) for w in weights]), rel=1e-10)
        assert eclipse[k].item() == pytest.approx(eclipse_by_hand(weights), rel=1e-7)
        for image, x0 in enumerate(input_of(bank, pixels, units)):
            # the library normalises in float32, as the networks do
            expected = local_bound_by_hand(weights, biases, x0, radius)
            assert local[k, image].item() == pytest.approx(expected, rel=1e-4, abs=1e-12)
        weights, biases = weights_of(bank, k, "normalised")
        expected = [np.linalg.norm(w) + np.linalg.norm(b) for w, b in zip(weights, biases, strict=True)]
        np.testing.assert_allclose(weight_norm(bank)[k], expected, rtol=1e-12)


@given(bank=random_banks(), units=UNITS, radius=st.sampled_from(RADII))
def test_every_upper_bound_lies_above_the_sampled_lower_bound(bank, units, radius):
    pixels = some_pixels(bank, 12)
    lower = gradient_norm(bank, pixels, units=units)
    local = local_lipschitz(bank, pixels, radius=radius, units=units)
    product, eclipse = global_lipschitz(bank, units=units), eclipse_fast(bank, units=units)
    assert (local >= lower * (1 - 1e-9)).all()
    assert (local <= product * (1 + 1e-9)).all()
    assert (eclipse >= lower.max("image") * (1 - 1e-9)).all()
    assert (product >= eclipse * (1 - 1e-9)).all()
    assert (eclipse >= product / 2 ** ((len(bank.architecture.layers) - 1) / 2) * (1 - 1e-9)).all()
    stream = np.random.default_rng(0)
    x = stream.normal(size=(2, 200, bank.architecture.units[0])) * np.array([1, 0.1])[:, None, None]
    for k in range(len(bank)):  # no two points break a global bound
        network = weights_of(bank, k)
        change = evaluate_by_hand(*network, x[0] + x[1]) - evaluate_by_hand(*network, x[0])
        ratio = np.linalg.norm(change, axis=1) / np.linalg.norm(x[1], axis=1)
        assert (ratio <= min(global_lipschitz(bank)[k].item(), eclipse_fast(bank)[k].item()) * (1 + 1e-9)).all()


@pytest.mark.parametrize("units", ["pixel", "normalised"])
def test_gradient_norm_is_the_spectral_norm_of_the_jacobian(trained, pixels, units):
    few, many = pixels[:5], pixels.repeat(2, 1, 1, 1)  # more than are taken at once
    result = gradient_norm(trained, many, units=units)
    for k, network in enumerate(trained):
        for image in range(5):
            jacobian = torch.autograd.functional.jacobian(network.double(), few[image : image + 1].double())
            jacobian = jacobian.reshape(4, -1).numpy()
            if units == "normalised":
                jacobian = jacobian * np.repeat(trained.architecture.std, 16)
            assert result[k, image].item() == pytest.approx(spectral(jacobian), rel=1e-6)


def test_local_bounds_of_several_images_at_once_are_those_of_each(trained, pixels, monkeypatch):
    """As on a GPU, with the eigenvalues that are found and proven there."""
    bank, few = trained.select([0, 1]), pixels[:11]
    alone = local_lipschitz(bank, few, radius=0.3)
    monkeypatch.setitem(regularity.BOUNDED_AT_ONCE, "cpu", 4)
    np.testing.assert_allclose(local_lipschitz(bank, few, radius=0.3), alone, rtol=1e-9)
    monkeypatch.setattr(regularity, "largest_eigenvalue", proven_eigenvalue)
    np.testing.assert_allclose(local_lipschitz(bank, few, radius=0.3), alone, rtol=1e-8)


@pytest.mark.parametrize("radius", [0.1, 2.0])
def test_no_point_of_the_ball_breaks_the_local_bound(trained, pixels, radius):
    bank, few = trained.select([1, 6]), pixels[:5]
    result = local_lipschitz(bank, few, radius=radius)
    stream = np.random.default_rng(1)
    for k in range(2):
        weights, biases = weights_of(bank, k)
        for image, x0 in enumerate(input_of(bank, few)):
            # random directions, half of them near the most sensitive one, at random distances up to the radius
            steepest = np.linalg.svd(weights[0])[2][0]
            moves = stream.normal(size=(500, len(x0))) + np.where(np.arange(500) % 2, 20, 0)[:, None] * steepest
            moves *= (radius * stream.uniform(0.01, 1, 500) / np.linalg.norm(moves, axis=1))[:, None]
            change = evaluate_by_hand(weights, biases, x0 + moves) - evaluate_by_hand(weights, biases, x0)
            ratio = np.linalg.norm(change, axis=1) / np.linalg.norm(moves, axis=1)
            assert ratio.max() <= result[k, image].item() * (1 + 1e-6)


def test_one_active_unit_by_hand():
    # f(x) = 3 relu(2 x - 0.5) in the first logit: from x0 = 0.2, y = -0.1 and, with radius 0.1, ybar = 0.1
    tensors = {
        "fc1.weight": torch.tensor([[[2.0]]]),
        "fc1.bias": torch.tensor([[-0.5]]),
        "fc2.weight": torch.tensor([[[3.0], [0.0]]]),
        "fc2.bias": torch.zeros(1, 2),
    }
    bank = Bank(Architecture((1,), 2, (1, 1, 1), (0.0,), (1.0,)), tensors)
    x0 = torch.full((1, 1, 1, 1), 0.2)
    assert local_lipschitz(bank, x0, radius=0.1).item() == pytest.approx(0.5 * 2 * 3, rel=1e-6)
    assert local_lipschitz(bank, x0, radius=0.04).item() == 0  # out of reach: constant
    assert gradient_norm(bank, x0).item() == 0
    assert global_lipschitz(bank).item() == pytest.approx(6)
    assert local_lipschitz(bank, x0 + 0.1, radius=0.01).item() == pytest.approx(6)  # active throughout


@pytest.mark.parametrize("layer", ["fc1", "fc4"])
def test_a_layer_of_zeros_makes_every_bound_zero(trained, pixels, layer):
    """As a strong penalty may leave it; the other networks of the bank keep their bounds."""
    alive = torch.ones(8).index_fill(0, torch.tensor([2, 5]), 0)[:, None, None]
    bank = replace(trained, tensors=trained.tensors | {f"{layer}.weight": alive * trained.tensors[f"{layer}.weight"]})
    for function in (
        global_lipschitz,
        eclipse_fast,
        lambda bank: local_lipschitz(bank, pixels[:3], radius=0.1),
        lambda bank: gradient_norm(bank, pixels[:3]),
    ):
        before, after = function(trained).values, function(bank).values
        before[[2, 5]] = 0
        np.testing.assert_allclose(after, before, rtol=1e-9)


def test_margin_by_hand():
    eye, zero = torch.eye(3)[None], torch.zeros(1, 3)
    tensors = {"fc1.weight": eye, "fc1.bias": zero, "fc2.weight": eye, "fc2.bias": zero}
    pixels = torch.tensor([[0.9, 0.2, 0.4], [0.9, 0.2, 0.4], [0.5, 0.5, 0.1]]).view(3, 3, 1, 1)  # logits are pixels
    result = margin(Bank(Architecture((3,), 3, (3, 1, 1)), tensors), pixels, torch.tensor([0, 1, 0]))
    np.testing.assert_allclose(result, [[0.5, -0.7, 0.0]], atol=1e-6)


def test_the_data_set_holds_each_measure_whatever_the_order_of_units(
    trained, test_images, monkeypatch, random_permutations
):
    monkeypatch.setattr(regularity, "NETWORKS_AT_ONCE", 3)
    pixels, labels = test_images.pixels, test_images.labels
    result = measure(trained, pixels, labels, radii=(0.1, 1.0), bounded=4)
    expected = {
        "weight_norm": weight_norm(trained),
        "gradient_norm": gradient_norm(trained, pixels),
        "margin": margin(trained, pixels, labels),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(result[name], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.lipschitz.sel(bound="global"), global_lipschitz(trained))
    np.testing.assert_allclose(result.lipschitz.sel(bound="eclipse-fast"), eclipse_fast(trained))
    for radius in (0.1, 1.0):
        local = local_lipschitz(trained, pixels[:4], radius=radius)
        np.testing.assert_allclose(result.local_lipschitz.sel(radius=radius).isel(image=slice(4)), local)
    assert result.seed.values.tolist() == list(range(8))
    permuted = random_permutations(trained, "regularity").apply(trained)
    after = measure(permuted, pixels, labels, radii=(0.1, 1.0), bounded=4)
    for name in result.data_vars:
        np.testing.assert_allclose(after[name], result[name], rtol=1e-4, atol=1e-5)
