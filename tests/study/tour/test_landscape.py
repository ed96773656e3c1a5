import numpy as np
import pytest
import torch

from hrebasin import Bank, evaluate, match_weights
from hrebasin.study.tour.landscape import landscape


@pytest.fixture(scope="module")
def around(trained, test_images):
    return landscape(trained.select([0]), trained.select([1]), test_images, resolution=9, seed="x", lambdas=[0, 0.5, 1])


def corners(trained):
    first, second = trained.select([0]), trained.select([1])
    return [first, second, match_weights(first, second, seed="x").apply(second)]


def test_places_keep_the_distances_between_the_networks(trained, around):
    vectors = [torch.cat([t.flatten() for t in bank.tensors.values()]).double() for bank in corners(trained)]
    for i in range(3):
        for j in range(3):
            distance = np.linalg.norm(around.place.values[i] - around.place.values[j])
            np.testing.assert_allclose(distance, (vectors[i] - vectors[j]).norm(), rtol=1e-6, atol=1e-9)


def test_the_plane_holds_the_losses_of_the_networks_that_lie_on_it(trained, test_images, around):
    first, second, matched = corners(trained)
    for row, column in ((0, 0), (4, 3), (-1, -1)):
        point = np.array([around.x.values[column], around.y.values[row]])
        along, aside = around.place.sel(corner="second").values, around.place.sel(corner="second, matched").values
        b, c = np.linalg.solve(np.stack([along, aside], 1), point)
        tensors = {
            name: first.tensors[name] * (1 - b - c) + second.tensors[name] * b + matched.tensors[name] * c
            for name in first.tensors
        }
        expected = evaluate(Bank(first.architecture, tensors), test_images).loss.item()
        assert around.loss.values[row, column] == pytest.approx(expected, rel=1e-4)


def test_the_lines_run_from_the_first_network_to_both_forms_of_the_second(trained, test_images, around):
    ends = evaluate(Bank.concat(corners(trained)), test_images)
    np.testing.assert_allclose(around.line_loss.sel({"lambda": 0}), ends.loss[0], rtol=1e-5)
    np.testing.assert_allclose(
        around.line_loss.sel({"lambda": 1}), ends.loss[1], rtol=1e-4
    )  # matched: the same answers
    np.testing.assert_allclose(around.line_accuracy.sel({"lambda": 1}), ends.accuracy[1], rtol=1e-6)
    middle = around.line_loss.sel({"lambda": 0.5})
    assert middle.sel(alignment="after") < middle.sel(alignment="before")


def test_networks_that_span_no_plane_are_refused(trained, test_images):
    first = trained.select([0])
    with pytest.raises(ValueError, match="no plane: the networks are equal"):
        landscape(first, first, test_images)
    with pytest.raises(ValueError, match="one network and another, got 1 and 2"):
        landscape(first, trained.select([1, 2]), test_images)
