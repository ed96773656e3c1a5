"""REPAIR of networks that are no ReLU MLPs."""

import pytest
import torch
from torch import nn

from hrebasin.architectures import NetworkArchitecture
from hrebasin.bank import Bank
from hrebasin.convolutional import convolutional, residual
from hrebasin.merging.averages import merge_naive
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.merging.repair import moments, pre_activations, repair, repaired_tree
from other_networks import SHAPE, untrained


@pytest.fixture(scope="module")
def few():
    return torch.rand(150, *SHAPE, generator=torch.Generator().manual_seed(3))  # more than are measured at once


def repaired(bank, few):
    """The average of a bank, the same repaired, and the moments it should have."""
    targets = moments(bank, few).average([range(len(bank))])
    merged = merge_naive(bank, pixels=few)
    return merged, repair(merged, targets, few), targets


def differences(bank, targets, few):
    """How far the moments of each layer lie from the targets, at most."""
    found = moments(bank, few)
    pairs = zip(found.mean + found.std, targets.mean + targets.std, strict=True)
    apart = torch.stack([(a - b).abs().max() for a, b in pairs]).view(2, -1)
    return apart.amax(0)


def test_an_mlp_read_as_a_module_is_repaired_as_it_is(trained, train_images, pixels):
    few, bank = train_images.pixels, trained.select(slice(4))
    module = Bank(NetworkArchitecture.of(bank[0], pixels[:2]), bank.tensors, bank.labels)
    plain, found = repaired_tree(bank, few), repaired_tree(module, few)
    assert found.labels["method"].tolist() == plain.labels["method"].tolist()
    torch.testing.assert_close(found(pixels), plain(pixels), rtol=1e-3, atol=1e-3)


def test_moments_are_per_channel_over_images_and_space(few):
    bank = untrained(convolutional)
    found = moments(bank, few)
    for row, network in enumerate(bank):
        with torch.no_grad():
            first = network.conv1(network.normalize(few))
            second = network.conv2(network.pool1(network.norm1(first).relu()))
            logits = network(few)
        for place, values in enumerate((first, second, logits)):
            std, mean = torch.std_mean(values.movedim(1, 0).flatten(1).double(), dim=1, correction=0)
            torch.testing.assert_close(found.mean[place][row], mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(found.std[place][row], std, rtol=1e-5, atol=1e-5)


def test_convolutions_with_biases_take_the_target_moments(few):
    torch.manual_seed(0)
    layers = [lambda: nn.Conv2d(3, 4, 3), lambda: nn.ReLU(inplace=True), lambda: nn.Conv2d(4, 6, 3), nn.ReLU]
    networks = [nn.Sequential(*(make() for make in layers), nn.Flatten(), nn.Linear(96, 4)) for _ in range(2)]
    merged, found, targets = repaired(Bank.stack(networks, few[:2]), few)
    assert (differences(found, targets, few) < 1e-4).all()
    assert (differences(merged, targets, few)[1:] > 1e-2).all()


def test_convolutions_before_batch_norm_are_left_to_it(few):
    merged, found, targets = repaired(untrained(convolutional), few)
    changed = {name for name, tensor in found.tensors.items() if not torch.equal(tensor, merged.tensors[name])}
    assert changed == {"classifier.weight", "classifier.bias"}  # statistics were measured by the merge already
    assert differences(found, targets, few)[-1] < 1e-4
    spoilt = Bank(merged.architecture, merged.tensors | {"norm1.running_mean": torch.zeros(1, 4)}, merged.labels)
    again = repair(spoilt, targets, few)
    for name, tensor in again.tensors.items():
        torch.testing.assert_close(tensor, found.tensors[name])


def test_what_has_no_bias_is_named_and_the_rest_repaired(few):
    bank = untrained(residual)
    with pytest.warns(UserWarning, match=r"leaves block1.conv1, block1.conv2, block2.conv1, block2.conv2 as they are"):
        merged, found, targets = repaired(bank, few)
    assert torch.equal(found.tensors["block1.conv1.weight"], merged.tensors["block1.conv1.weight"])
    apart = differences(found, targets, few)  # conv1, block1 twice, conv2, block2 twice, classifier
    assert (apart[[0, 3, 6]] < 1e-4).all()


class Strange(nn.Module):
    """A weight for two layers, and an attention that uses a layer's weight without calling it."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.two.weight = self.one.weight
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        x = self.two(self.one(x).relu()).relu()
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_shared_weights_and_layers_never_called_are_named():
    torch.manual_seed(0)
    few = torch.rand(20, 5, 4)
    bank = Bank.stack([Strange(), Strange()], few[:2], prove=False)
    with pytest.warns(UserWarning, match=r"leaves one, two, attention.out_proj as they are"):
        _, found, targets = repaired(bank, few)
    assert differences(found, targets, few)[-1] < 1e-4


@pytest.mark.filterwarnings("ignore:REPAIR leaves")
@pytest.mark.parametrize("make", [convolutional, residual])
def test_trees_of_them_are_repaired_at_every_stage(make, few):
    bank = untrained(make, 4)
    found = repaired_tree(bank, few)
    assert len(found) == 4 + 4 * 3
    tree = found.where(method="tree", stage=2)
    torch.testing.assert_close(measure_batch_norm(tree, few).tensors, tree.tensors)
    assert found(few).isfinite().all()
    with pytest.raises(ValueError, match="for ReLU MLPs only, not for Recognised"):
        next(pre_activations(bank, few))
