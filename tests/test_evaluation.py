import numpy as np
import pytest
import torch
import xarray as xr

from hrebasin import Architecture, Bank, Images, accuracy, barrier, evaluate
from hrebasin.evaluation import loss
from hrebasin.merging.path import path


def test_accuracy_and_loss_by_hand():
    """Two networks on one pixel of three channels: logits are the pixel's channels, and their negatives."""
    eye, zero = torch.eye(3), torch.zeros(2, 3)
    tensors = {"fc1.weight": torch.stack([eye, eye]), "fc2.weight": torch.stack([eye, -eye])}
    bank = Bank(Architecture((3,), 3, (3, 1, 1)), tensors | {"fc1.bias": zero, "fc2.bias": zero})
    pixels = torch.tensor([[255, 0, 0], [0, 255, 51], [0, 102, 51]], dtype=torch.uint8).view(3, 3, 1, 1)
    images = Images(pixels, torch.tensor([0, 2, 1]), ("red", "green", "blue"), "three pixels")
    result = evaluate(bank, images)
    logits = np.array([(1, 0, 0), (0, 1, 0.2), (0, 0.4, 0.2)])
    np.testing.assert_allclose(result.accuracy, [2 / 3, 0])
    for found, values in zip(result.loss.values, (logits, -logits), strict=True):
        right = values[[0, 1, 2], [0, 2, 1]]
        assert found == pytest.approx((np.log(np.exp(values).sum(1)) - right).mean(), rel=1e-6)
    xr.testing.assert_identical(accuracy(bank, images), result.accuracy)
    xr.testing.assert_identical(loss(bank, images), result.loss)


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
    assert result.seed.values.tolist() == list(range(8))
    parts = evaluate(trained, test_images, images_at_once=7)
    np.testing.assert_array_equal(parts.accuracy, result.accuracy)
    np.testing.assert_allclose(parts.loss, result.loss, rtol=1e-5)


# ---- barriers


def curve(lambdas, losses, accuracies):
    dims = ("model", "lambda")
    return xr.Dataset({"loss": (dims, losses), "accuracy": (dims, accuracies)}, coords={"lambda": lambdas})


def test_the_barrier_of_a_curve_made_by_hand():
    losses = [[1.0, 2.0, 2.5, 3.0], [1.0, 1.0, 1.5, 2.0]]
    accuracies = [[0.8, 0.5, 0.5, 0.4], [0.6, 0.7, 0.7, 0.6]]
    result = barrier(curve([0.0, 0.25, 0.5, 1.0], losses, accuracies))
    # chords: loss 1, 1.5, 2, 3 and 1, 1.25, 1.5, 2; accuracy 0.8, 0.7, 0.6, 0.4 and 0.6 throughout
    np.testing.assert_allclose(result.loss_barrier, [0.5, 0.0])
    np.testing.assert_allclose(result.accuracy_barrier, [0.2, 0.0], atol=1e-15)
    assert [result.loss_barrier.units, result.accuracy_barrier.units] == ["nat", "1"]


@pytest.mark.parametrize("lambdas", [[0.0, 0.5], [0.5, 1.0]])
def test_a_barrier_needs_both_ends(lambdas):
    with pytest.raises(ValueError, match="needs lambda = 0 and 1, got .*0.5"):
        barrier(curve(lambdas, [[1.0, 1.0]], [[1.0, 1.0]]))


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
