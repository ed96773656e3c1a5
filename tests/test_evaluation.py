import math

import numpy as np
import pytest
import torch
import xarray as xr

from hrebasin import Bank, accuracy, evaluate
from hrebasin.calibration import calibrated, expected_calibration_error, fitted_temperature, negative_log_likelihood
from hrebasin.merging.path import path


def test_evaluation_equals_one_network_and_one_image_at_a_time(trained, test_images):
    result = evaluate(trained, test_images)
    for k, network in enumerate(trained):
        with torch.no_grad():
            logits = torch.cat([network(pixel[None].float() / 255) for pixel in test_images.pixels])
        right = (logits.argmax(1) == test_images.labels).double().mean().item()
        entropy = torch.nn.functional.cross_entropy(logits.double(), test_images.labels).item()
        assert result.accuracy[k].item() == pytest.approx(right)
        assert result.loss[k].item() == pytest.approx(entropy, rel=1e-5)
    assert [result.accuracy.units, result.loss.units] == ["1", "nat"]
    xr.testing.assert_identical(accuracy(trained, test_images), result.accuracy)
    assert result.seed.values.tolist() == list(range(8))
    parts = evaluate(trained, test_images, images_at_once=7)
    np.testing.assert_array_equal(parts.accuracy, result.accuracy)
    np.testing.assert_allclose(parts.loss, result.loss, rtol=1e-5)


def test_a_path_is_evaluated_point_by_point(trained, test_images):
    a, b, lambdas = trained.select(slice(0, 4)), trained.select(slice(4, 8)), (0.0, 0.25, 0.5, 1.0)
    result = path(a, b, test_images, lambdas)
    assert dict(result.sizes) == {"model": 4, "lambda": 4}
    for weight in lambdas:
        tensors = {name: (1 - weight) * a.tensors[name] + weight * b.tensors[name] for name in a.tensors}
        expected = evaluate(Bank(a.architecture, tensors), test_images)
        point = result.sel({"lambda": weight})
        np.testing.assert_allclose(point.accuracy, expected.accuracy, atol=1 / 60 + 1e-9)  # one borderline image
        np.testing.assert_allclose(point.loss, expected.loss, rtol=1e-4)


# ---- calibration against closed forms


def two_classes(p: float, n: int) -> torch.Tensor:
    """Logits (1, image, class) that give class 0 the probability p."""
    return torch.tensor([[math.log(p), math.log(1 - p)]]).expand(1, n, 2)


def share(right: int, n: int) -> torch.Tensor:
    """Labels of n images, of which so many are of class 0."""
    return (torch.arange(n) >= right).long()


def test_a_sure_network_that_is_right_less_often_has_closed_forms():
    logits, labels = two_classes(0.9, 100), share(70, 100)
    expected = -(0.7 * math.log(0.9) + 0.3 * math.log(0.1))
    assert negative_log_likelihood(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert expected_calibration_error(logits, labels).item() == pytest.approx(0.2, rel=1e-5)
    # with the logit difference d, the temperature makes the probability the share that is right
    temperature = fitted_temperature(logits, labels)
    assert temperature.item() == pytest.approx(math.log(9) / math.log(7 / 3), rel=1e-6)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.3))
    assert negative_log_likelihood(logits, labels, temperature).item() == pytest.approx(entropy, rel=1e-6)
    assert expected_calibration_error(logits, labels, temperature).item() == pytest.approx(0, abs=1e-6)


def test_bins_do_not_cancel_one_another():
    logits = torch.cat([two_classes(0.95, 50), two_classes(0.65, 50)], dim=1)
    labels = torch.cat([share(40, 50), share(40, 50)])  # 0.15 too sure, 0.15 not sure enough
    assert expected_calibration_error(logits, labels).item() == pytest.approx(0.15, rel=1e-5)


def test_temperatures_of_several_networks_undo_what_scaled_their_logits():
    stream = torch.Generator().manual_seed(0)
    z = torch.randn(1, 4000, 5, generator=stream)
    labels = torch.multinomial(z[0].softmax(-1), 1, generator=stream)[:, 0]  # calibrated by construction
    found = fitted_temperature(torch.cat([z, 3 * z, z / 10]), labels)
    np.testing.assert_allclose(found / found[0], [1, 3, 0.1], rtol=1e-6)
    assert found[0].item() == pytest.approx(1, abs=0.05)
    losses = [negative_log_likelihood(torch.cat([z, 3 * z, z / 10]), labels, k * found) for k in (0.9, 1, 1.1)]
    assert (torch.stack([losses[0], losses[2]]) > losses[1]).all()


def test_a_bank_is_fitted_on_one_half_and_measured_on_the_other(trained, test_images):
    logits = trained(test_images.pixels).detach()
    found = calibrated(trained, logits, test_images.labels)
    second = type(test_images)(test_images.pixels[30:], test_images.labels[30:], test_images.classes, "half")
    np.testing.assert_allclose(found.nll, evaluate(trained, second).loss, rtol=1e-5)
    np.testing.assert_allclose(found.temperature, fitted_temperature(logits[:, :30], test_images.labels[:30]))
    again = calibrated(trained, 2 * logits, test_images.labels)
    for name in ("nll_fitted", "ece_fitted"):
        np.testing.assert_allclose(again[name], found[name], rtol=1e-4)
    assert (again.nll != found.nll).all()
    with pytest.raises(ValueError, match="measured on the other, got 1"):
        calibrated(trained, logits[:, :1], test_images.labels[:1])
