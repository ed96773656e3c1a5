"""REPAIR of MLPs and of other networks."""

import pytest
import torch
from torch import nn

from hrebasin import Bank, merge_naive, merge_tree, repair
from hrebasin.architectures import NetworkArchitecture
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.merging.repair import Moments, moments, pre_activations, repaired_tree
from hrebasin.merging.tree import align_tree
from hrebasin.small_networks import convolutional, residual
from other_networks import SHAPE, untrained


@pytest.fixture(scope="module")
def few():
    return torch.rand(150, *SHAPE, generator=torch.Generator().manual_seed(3))  # more than are measured at once


def differences(bank, targets, inputs):
    """How far the moments of each layer lie from the targets, at most."""
    found = moments(bank, inputs)
    pairs = zip(found.mean + found.std, targets.mean + targets.std, strict=True)
    return torch.stack([(a - b).abs().max() for a, b in pairs]).view(2, -1).amax(0)


def repaired(bank, inputs):
    """The average of a bank, the same repaired, and the moments it should have."""
    targets = moments(bank, inputs).average([range(len(bank))])
    merged = merge_naive(bank, pixels=inputs)
    return merged, repair(merged, targets, inputs), targets


def layers_of(network, x):
    """What the linear and convolution layers of a network give."""
    seen = []
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(lambda _module, _given, output: seen.append(output))
    network(x)
    return seen


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_moments_are_per_unit_over_images_and_space(trained, train_images, few, kind):
    mlp = kind == "mlp"
    bank, inputs = (trained.select([2, 5]), train_images.pixels / 255) if mlp else (untrained(convolutional), few)
    found = moments(bank, inputs)
    for row, network in enumerate(bank):
        with torch.no_grad():
            layers = layers_of(network, inputs)
        assert len(layers) == len(found.mean)
        for place, values in enumerate(layers):
            std, mean = torch.std_mean(values.movedim(1, 0).flatten(1).double(), dim=1, correction=0)
            torch.testing.assert_close(found.mean[place][row], mean, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.std[place][row], std, rtol=1e-4, atol=1e-4)


def test_a_repaired_network_has_the_target_moments_and_towards_itself_changes_nothing(trained, train_images, unchanged):
    inputs, merged = train_images.pixels, merge_tree(trained)[-1]
    unchanged(merged, trained)
    targets, before = moments(align_tree(trained)[-1], inputs).average([range(8)]), moments(merged, inputs)
    found = moments(repair(merged, targets, inputs), inputs)
    for position, std in enumerate(before.std):
        alive = std > 1e-3
        torch.testing.assert_close(found.mean[position], targets.mean[position], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.std[position][alive], targets.std[position][alive], rtol=1e-3, atol=1e-3)
    again = repair(trained, moments(trained, inputs), inputs)
    torch.testing.assert_close(again(inputs), trained(inputs), rtol=1e-3, atol=1e-3)


def test_a_unit_that_never_changes_is_only_shifted(trained, train_images):
    tensors = {key: tensor.clone() for key, tensor in trained.select([0]).tensors.items()}
    tensors["fc1.weight"][0, 3] = 0
    dead = Bank(trained.architecture, tensors)
    now = moments(dead, train_images.pixels)
    targets = Moments([m + 1 for m in now.mean], [2 * s + 1 for s in now.std])
    found = repair(dead, targets, train_images.pixels).tensors
    assert (found["fc1.weight"][0, 3] == 0).all()
    assert found["fc1.bias"][0, 3].item() == pytest.approx(now.mean[0][0, 3].item() + 1, abs=1e-5)


def test_trees_are_repaired_at_every_stage_also_as_modules(trained, train_images, pixels):
    inputs, bank = train_images.pixels, trained.select(slice(4))
    found, tree = repaired_tree(bank, inputs), merge_tree(bank)
    assert len(found) == 4 + 4 * 3
    for stage in (1, 2):
        plain = found.where(method="tree", stage=stage)
        torch.testing.assert_close(plain.tensors, tree[stage].tensors, rtol=1e-4, atol=1e-5)
    targets = moments(align_tree(bank)[-1], inputs).average([range(4)])
    last = moments(found.where(method="repair-leaves", stage=2), inputs)
    torch.testing.assert_close(last.mean[-1], targets.mean[-1], rtol=1e-3, atol=1e-3)
    assert len(found.where(method="repair-children", stage=1)) == len(found.where(method="repair-along", stage=1)) == 2
    module = repaired_tree(Bank(NetworkArchitecture.of(bank[0], pixels[:2]), bank.tensors, bank.labels), inputs)
    assert module.labels["method"].tolist() == found.labels["method"].tolist()
    torch.testing.assert_close(module(pixels), found(pixels), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:REPAIR leaves")
@pytest.mark.parametrize("make", [convolutional, residual])
def test_trees_of_other_networks_are_repaired_at_every_stage(make, few):
    bank = untrained(make, 4)
    found = repaired_tree(bank, few)
    assert len(found) == 4 + 4 * 3
    tree = found.where(method="tree", stage=2)
    torch.testing.assert_close(measure_batch_norm(tree, few).tensors, tree.tensors)
    assert found(few).isfinite().all()
    with pytest.raises(ValueError, match="for ReLU MLPs only, not for Recognised"):
        next(pre_activations(bank, few))


def test_convolutions_with_biases_take_the_target_moments_and_those_before_batch_norm_are_left_to_it(few):
    torch.manual_seed(0)
    layers = [lambda: nn.Conv2d(3, 4, 3), lambda: nn.ReLU(inplace=True), lambda: nn.Conv2d(4, 6, 3), nn.ReLU]
    networks = [nn.Sequential(*(make() for make in layers), nn.Flatten(), nn.Linear(96, 4)) for _ in range(2)]
    merged, found, targets = repaired(Bank.stack(networks, few[:2]), few)
    assert (differences(found, targets, few) < 1e-4).all()
    assert (differences(merged, targets, few)[1:] > 1e-2).all()
    merged, found, targets = repaired(untrained(convolutional), few)
    changed = {name for name, tensor in found.tensors.items() if not torch.equal(tensor, merged.tensors[name])}
    assert changed == {"classifier.weight", "classifier.bias"}  # statistics were measured by the merge already
    assert differences(found, targets, few)[-1] < 1e-4
    spoilt = Bank(merged.architecture, merged.tensors | {"norm1.running_mean": torch.zeros(1, 4)}, merged.labels)
    torch.testing.assert_close(repair(spoilt, targets, few).tensors, found.tensors)


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


def test_what_has_no_bias_shares_weights_or_is_never_called_is_named_and_the_rest_repaired(few):
    torch.manual_seed(0)
    tokens = torch.rand(20, 5, 4)
    strange = Bank.stack([Strange(), Strange()], tokens[:2], prove=False)
    convolutions = "block1.conv1, block1.conv2, block2.conv1, block2.conv2"
    for bank, inputs, named, done in (
        (untrained(residual), few, convolutions, [0, 3, 6]),  # conv1, conv2 and the classifier, between them blocks
        (strange, tokens, "one, two, attention.out_proj", [-1]),
    ):
        with pytest.warns(UserWarning, match=f"leaves {named} as they are"):
            merged, found, targets = repaired(bank, inputs)
        for key in {f"{layer}.weight" for layer in named.split(", ")} & set(found.tensors):
            assert torch.equal(found.tensors[key], merged.tensors[key])
        assert (differences(found, targets, inputs)[done] < 1e-4).all()
