import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.functional import cross_entropy

from hrebasin import Bank, match_weights
from hrebasin.matching.straight_through import _gradient, match_straight_through
from hrebasin.matching.transport import match_transport
from other_networks import SHAPE, untrained, with_dropout


def nearest(ours, theirs):
    return torch.as_tensor(linear_sum_assignment(torch.cdist(ours, theirs).square())[1])


def test_transport_matches_layer_by_layer_from_the_input(trained):
    a, b = trained.select([0]), trained.select([1])
    found = match_transport(a, b).permutations
    before = torch.arange(b.tensors["fc1.weight"].shape[2])
    for number in (1, 2, 3):
        ours, theirs = (
            torch.column_stack([bank.tensors[f"fc{number}.{part}"][0] for part in ("weight", "bias")])
            for bank in (a, b)
        )
        theirs[:, :-1] = theirs[:, :-1][:, before]
        before = nearest(ours, theirs)
        assert torch.equal(found[f"P{number}"][0], before)


def test_units_of_a_transposed_convolution_are_matched_by_what_comes_into_them():
    torch.manual_seed(0)
    first, second = (lambda: nn.ConvTranspose2d(2, 6, 2, bias=False)), (lambda: nn.ConvTranspose2d(6, 4, 2))
    networks = [nn.Sequential(first(), nn.ReLU(), second(), nn.Flatten(), nn.Linear(4 * 25, 3)) for _ in range(2)]
    bank = Bank.stack(networks, torch.rand(2, 2, 3, 3))
    first, second, biases = (bank.tensors[name] for name in ("0.weight", "2.weight", "2.bias"))
    found = match_transport(bank.select([0]), bank.select([1])).permutations
    orders = {len(perm[0]): perm[0] for perm in found.values()}
    assert torch.equal(orders[6], nearest(*first.transpose(1, 2).flatten(2)))
    ours, theirs = second[0].transpose(0, 1).flatten(1), second[1][orders[6]].transpose(0, 1).flatten(1)
    gains = ours @ theirs.T + torch.outer(*biases)
    assert torch.equal(orders[4], torch.as_tensor(linear_sum_assignment(gains, maximize=True)[1]))


def half_way(a: Bank, b: Bank, images) -> float:
    """Loss of the mean of two networks on images."""
    middle = Bank(a.architecture, {name: (tensor + b.tensors[name]) / 2 for name, tensor in a.tensors.items()})
    return float(cross_entropy(middle(images.pixels)[0], images.labels))


def test_the_estimator_starts_at_weight_matching_and_lowers_the_loss_half_way(trained, train_images):
    given = {"pixels": train_images.pixels, "labels": train_images.labels, "seed": ["x"], "learning_rate": 0.01}
    start, end = [], []
    for pair in ([0, 1], [2, 3], [4, 5], [6, 7]):
        a, b = (trained.select([k]) for k in pair)
        none, some = (match_straight_through(a, b, **given, steps=steps) for steps in (0, 60))
        weights = match_weights(a, b, seed="x/step-0")
        assert all(torch.equal(none.permutations[name], perm) for name, perm in weights.permutations.items())
        torch.testing.assert_close(none.objective, weights.objective)
        start.append(half_way(a, none.apply(b), train_images))
        end.append(half_way(a, some.apply(b), train_images))
    assert sum(end) < sum(start)


def test_its_gradient_is_that_of_the_permuted_network(trained, train_images):
    a, b, few = trained.select([0]), trained.select([1]), train_images.first(20)
    permuted = {name: tensor[0] for name, tensor in b.tensors.items()}
    gradient, size = _gradient(a, permuted, few.pixels, few.labels)["fc4.weight"], 1e-2
    for place in ((0, 0), (2, 5)):
        values = []
        for sign in (1, -1):
            shifted = b.tensors["fc4.weight"].clone()
            shifted[0, *place] += sign * size
            values.append(half_way(a, Bank(b.architecture, b.tensors | {"fc4.weight": shifted}), few))
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * size), rel=1e-2, abs=1e-4)


def test_dropout_draws_nothing():
    bank, inputs, labels, found = untrained(with_dropout), torch.rand(20, *SHAPE), torch.arange(20) % 4, []
    permuted = {name: bank.tensors[name][1] for name in bank.architecture.parameters}
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(_gradient(bank.select([0]), permuted, inputs, labels))
        match_straight_through(bank.select([0]), bank.select([1]), inputs, labels, seed=["x"], steps=2)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_what_does_not_fit_is_refused(trained, train_images):
    pixels, labels = train_images.pixels, train_images.labels
    for given, seed, message in (
        (labels, [1, 2, 3], "3 seeds for 8 reference and 8 moving networks"),
        (labels[:5], range(8), "5 labels do not fit 96 images"),
        (labels + 1, range(8), "labels from 1 to 4 do not fit 96 images and 4 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            match_straight_through(trained, trained, pixels, given, seed=seed)
    with pytest.raises(ValueError, match="2 reference networks cannot be paired with 8"):
        match_transport(trained.select(slice(2)), trained)
