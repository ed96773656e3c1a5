import pytest
import torch

from hrebasin import Bank, merge_tree, repair
from hrebasin.merging.repair import Moments, moments, repaired_tree
from hrebasin.merging.tree import align_tree


@pytest.fixture(scope="module")
def few(train_images):
    return train_images.pixels[:200]


def by_hand(network, pixels) -> list[torch.Tensor]:
    """Pre-activations (image, unit) of every affine layer of one network, through its own modules."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
        for module in network.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    network(pixels.float() / 255)
    for hook in hooks:
        hook.remove()
    return seen


def test_moments_are_those_of_the_modules(trained, few):
    found = moments(trained.select([2, 5]), few)
    for row, index in enumerate((2, 5)):
        for position, values in enumerate(by_hand(trained[index], few)):
            std, mean = torch.std_mean(values.double(), dim=0, correction=0)
            torch.testing.assert_close(found.mean[position][row], mean, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.std[position][row], std, rtol=1e-4, atol=1e-4)


def test_a_repaired_network_has_the_target_moments(trained, few):
    leaves = align_tree(trained)[-1]
    merged = merge_tree(trained)[-1]
    targets = moments(leaves, few).average([range(8)])
    repaired = repair(merged, targets, few)
    found = moments(repaired, few)
    for position in range(len(trained.architecture.layers)):
        alive = moments(merged, few).std[position] > 1e-3
        torch.testing.assert_close(found.mean[position], targets.mean[position], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found.std[position][alive], targets.std[position][alive], rtol=1e-3, atol=1e-3)
    assert torch.equal(merged.tensors["fc1.weight"], merge_tree(trained)[-1].tensors["fc1.weight"])


def test_repairing_towards_itself_changes_nothing(trained, few, pixels):
    again = repair(trained, moments(trained, few), few)
    torch.testing.assert_close(again(pixels), trained(pixels), rtol=1e-3, atol=1e-3)


def test_a_unit_that_never_changes_is_only_shifted(trained, few):
    tensors = {key: tensor.clone() for key, tensor in trained.select([0]).tensors.items()}
    tensors["fc1.weight"][0, 3] = 0
    dead = Bank(trained.architecture, tensors)
    now = moments(dead, few)
    targets = Moments([m + 1 for m in now.mean], [2 * s + 1 for s in now.std])
    repaired = repair(dead, targets, few)
    assert (repaired.tensors["fc1.weight"][0, 3] == 0).all()
    assert repaired.tensors["fc1.bias"][0, 3].item() == pytest.approx(now.mean[0][0, 3].item() + 1, abs=1e-5)


def test_trees_are_repaired_at_every_stage(trained, few, test_images):
    found = repaired_tree(trained, few)
    assert len(found) == 8 + 4 * 7
    tree = merge_tree(trained)
    for stage in (1, 2, 3):
        plain = found.where(method="tree", stage=stage)
        for name, tensor in plain.tensors.items():
            torch.testing.assert_close(tensor, tree[stage].tensors[name], rtol=1e-4, atol=1e-5)
    leaves = align_tree(trained)[-1]
    targets = moments(leaves, few).average([range(8)])
    repaired = moments(found.where(method="repair-leaves", stage=3), few)
    torch.testing.assert_close(repaired.mean[-1], targets.mean[-1], rtol=1e-3, atol=1e-3)
    first = found.where(stage=1)
    one, along = first.where(method="repair-children"), first.where(method="repair-along")
    assert one.tensors["fc1.weight"].shape == along.tensors["fc1.weight"].shape
