import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn.functional import cross_entropy

from hrebasin import Bank, match_weights
from hrebasin.matching.straight_through import _gradient, match_straight_through
from hrebasin.matching.transport import match_transport
from hrebasin.random_streams import generator
from other_networks import KINDS, SHAPE, untrained, with_dropout


def moved(bank: Bank) -> Bank:
    """Every network with its units in an order of its own."""
    symmetry, stream = bank.architecture.symmetry, generator("test/moved")
    drawn = [symmetry.random_permutations(stream) for _ in range(len(bank))]
    planted = {name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}
    return Bank(bank.architecture, symmetry.apply(bank.tensors, planted), bank.labels)


def test_transport_matches_layer_by_layer_from_the_input(trained):
    a, b = trained.select([0]), trained.select([1])
    found = match_transport(a, b).permutations
    before = torch.arange(b.tensors["fc1.weight"].shape[2])
    for number in (1, 2, 3):
        ours, theirs = (torch.column_stack([bank.tensors[f"fc{number}.weight"][0], bank.tensors[f"fc{number}.bias"][0]])
                        for bank in (a, b))  # fmt: skip
        theirs[:, :-1] = theirs[:, :-1][:, before]
        before = torch.as_tensor(linear_sum_assignment(torch.cdist(ours, theirs).square())[1])
        assert torch.equal(found[f"P{number}"][0], before)


@pytest.mark.parametrize("kind", ["mlp", *KINDS])
def test_transport_finds_moved_units_again(trained, kind):
    bank = trained if kind == "mlp" else untrained(kind)
    back = match_transport(bank, moved(bank)).apply(moved(bank))
    for name, tensor in bank.tensors.items():
        torch.testing.assert_close(back.tensors[name], tensor)


def test_units_of_a_transposed_convolution_are_matched_by_what_comes_into_them():
    torch.manual_seed(0)
    networks = [
        nn.Sequential(nn.ConvTranspose2d(2, 6, 2, bias=False), nn.ReLU(), nn.ConvTranspose2d(6, 4, 2), nn.Flatten(),
                      nn.Linear(4 * 25, 3)) for _ in range(2)
    ]  # fmt: skip
    bank = Bank.stack(networks, torch.rand(2, 2, 3, 3))
    first, second = bank.tensors["0.weight"], bank.tensors["2.weight"]
    found = match_transport(bank.select([0]), bank.select([1])).permutations
    orders = {len(perm[0]): perm[0] for perm in found.values()}
    ours, theirs = first.transpose(1, 2).flatten(2)
    assert torch.equal(orders[6], torch.as_tensor(linear_sum_assignment(torch.cdist(ours, theirs).square())[1]))
    ours, theirs = second[0].transpose(0, 1).flatten(1), second[1][orders[6]].transpose(0, 1).flatten(1)
    biases = bank.tensors["2.bias"]
    gains = ours @ theirs.T + torch.outer(*biases)
    assert torch.equal(orders[4], torch.as_tensor(linear_sum_assignment(gains, maximize=True)[1]))


# ---- the straight-through estimator


def half_way(a: Bank, b: Bank, images) -> float:
    """Loss of the mean of two networks on images."""
    middle = Bank(a.architecture, {name: (tensor + b.tensors[name]) / 2 for name, tensor in a.tensors.items()})
    return float(cross_entropy(middle(images.pixels)[0], images.labels))


def test_the_estimator_starts_at_weight_matching_and_lowers_the_loss_half_way(trained, train_images, unchanged):
    unchanged(trained)
    given = {"pixels": train_images.pixels, "labels": train_images.labels}
    start, end = [], []
    for pair in ([0, 1], [2, 3], [4, 5], [6, 7]):
        a, b = (trained.select([k]) for k in pair)
        none, some = (match_straight_through(a, b, **given, seed=["x"], steps=steps, learning_rate=0.01)
                      for steps in (0, 60))  # fmt: skip
        weights = match_weights(a, b, seed="x/step-0")
        for name, perm in weights.permutations.items():
            assert torch.equal(none.permutations[name], perm)
        torch.testing.assert_close(none.objective, weights.objective)
        again = match_straight_through(a, b, **given, seed=["x"], steps=60, learning_rate=0.01)
        assert all(torch.equal(perm, some.permutations[name]) for name, perm in again.permutations.items())
        start.append(half_way(a, none.apply(b), train_images))
        end.append(half_way(a, some.apply(b), train_images))
    assert sum(end) < sum(start)


def test_its_gradient_is_that_of_the_permuted_network(trained, train_images):
    a, b = trained.select([0]), trained.select([1])
    pixels, labels = train_images.pixels[:20], train_images.labels[:20]
    permuted = {name: tensor[0] for name, tensor in b.tensors.items()}
    gradient = _gradient(a, permuted, pixels, labels)["fc4.weight"]
    size, few = 1e-2, train_images.first(20)
    for place in ((0, 0), (2, 5)):
        values = []
        for sign in (1, -1):
            shifted = b.tensors["fc4.weight"].clone()
            shifted[0, *place] += sign * size
            values.append(half_way(a, Bank(b.architecture, b.tensors | {"fc4.weight": shifted}), few))
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * size), rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_any_network_keeps_its_logits_and_its_statistics(kind):
    bank, stream = untrained(kind), generator("test/inputs")
    before = {name: tensor.clone() for name, tensor in bank.tensors.items()}
    inputs, labels = torch.rand(20, *SHAPE, generator=stream), torch.arange(20) % 4
    found = match_straight_through(bank.select([0]), bank.select([1]), inputs, labels, seed=["x"], steps=2)
    torch.testing.assert_close(found.apply(bank.select([1]))(inputs), bank.select([1])(inputs), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bank.tensors.items())


def test_dropout_draws_nothing():
    bank, stream = untrained(with_dropout), generator("test/inputs")
    inputs, labels, found = torch.rand(20, *SHAPE, generator=stream), torch.arange(20) % 4, []
    permuted = {name: bank.tensors[name][1] for name in bank.architecture.parameters}
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(_gradient(bank.select([0]), permuted, inputs, labels))
        match_straight_through(bank.select([0]), bank.select([1]), inputs, labels, seed=["x"], steps=2)
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_what_does_not_fit_is_refused(trained, train_images):
    with pytest.raises(ValueError, match="3 seeds for 8 reference and 8 moving networks"):
        match_straight_through(trained, trained, train_images.pixels, train_images.labels, seed=[1, 2, 3])
    with pytest.raises(ValueError, match="5 labels do not fit 96 images"):
        match_straight_through(trained, trained, train_images.pixels, train_images.labels[:5], seed=range(8))
    with pytest.raises(ValueError, match="labels from 1 to 4 do not fit 96 images and 4 classes"):
        match_straight_through(trained, trained, train_images.pixels, train_images.labels + 1, seed=range(8))
    with pytest.raises(ValueError, match="2 reference networks cannot be paired with 8"):
        match_transport(trained.select(slice(2)), trained)
