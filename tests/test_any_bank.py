"""Banks of any network: the module's own outputs, files, and the same networks whichever bank trains them."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from hrebasin import Bank, Recipe, train
from hrebasin.architectures import NetworkArchitecture
from hrebasin.images.sources import Images
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.random_streams import generator
from hrebasin.small_networks import architecture_of, build, convolutional, narrowed, residual
from hrebasin.training.run import TrainingRun

SHAPE = (3, 8, 8)
PIXELS = (torch.rand(60, *SHAPE, generator=generator("pixels")) * 255).byte()
IMAGES = Images(PIXELS, torch.arange(60) % 3, ("a", "b", "c"), "made up")


class Own(nn.Module):
    """A network that the library does not know, with a table of truth values, a counter and tied weights."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(192, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.again = self.last
        self.register_buffer("kept", torch.tensor([True, False]))

    def forward(self, x):
        h = self.norm(self.first(x.flatten(1))).relu()
        return self.last(h) + self.again(h)


def networks(make, n=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [make().eval() for _ in range(n)]


MADE = [lambda make=make: make((4, 6), n_classes=3, image_shape=SHAPE) for make in (convolutional, residual)]


@pytest.mark.parametrize("make", [*MADE, Own], ids=["convolutional", "residual", "own"])
def test_a_bank_answers_as_its_networks_and_survives_a_file(make, tmp_path):
    stacked = networks(make)
    bank = Bank.stack(stacked, None if make is not Own else torch.rand(2, *SHAPE))
    pixels = IMAGES.pixels[:5]
    expected = torch.stack([network(pixels.float() / 255) for network in stacked])
    torch.testing.assert_close(bank(pixels), expected)
    torch.testing.assert_close(bank(pixels.expand(3, *pixels.shape)), expected)
    assert all(type(bank[k]) is type(stacked[k]) for k in range(3))
    torch.testing.assert_close(bank[1](pixels.float() / 255), expected[1])
    at_once = vmap(lambda own, x: functional_call(stacked[0], own, (x,)), in_dims=(0, None))  # as on a GPU
    torch.testing.assert_close(at_once(bank.tensors, pixels.float() / 255), expected, rtol=1e-4, atol=1e-5)
    bank.save(tmp_path / "bank.safetensors")
    if make is Own:
        with pytest.raises(ValueError, match="its networks are Own, .*: give one as network="):
            Bank.load(tmp_path / "bank.safetensors")
    again = Bank.load(tmp_path / "bank.safetensors", network=make() if make is Own else None)
    assert again.architecture == bank.architecture
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in bank.tensors.items())


@pytest.fixture
def random_images(monkeypatch):
    """Nothing can be learned from them, and nothing must be."""
    monkeypatch.setattr(TrainingRun, "_check_above_chance", lambda self: None)


@pytest.mark.parametrize("kind", ["convolutional", "residual"])
def test_a_network_is_the_same_in_whichever_bank_it_is_trained(kind, tmp_path, random_images):
    mean, std = IMAGES.statistics()
    architecture = architecture_of(kind, (4, 6), n_classes=3, image_shape=SHAPE, mean=mean, std=std)
    recipe = Recipe(epochs=2, batch_size=30, learning_rate=0.01)
    together, alone, halves = (
        train(architecture, IMAGES, seeds, recipe, snapshots=[1], **options).where(method="stopped")
        for seeds, options in (([0, 1, 2], {}), ([1], {}), ([1], {"checkpoints": tmp_path}))
    )
    assert any(tmp_path.iterdir())
    for name, tensor in together.tensors.items():
        assert torch.equal(alone.tensors[name][0], tensor[1]), name
        assert torch.equal(halves.tensors[name][0], tensor[1]), name
    assert not torch.equal(together.tensors["classifier.weight"][0], together.tensors["classifier.weight"][1])
    if kind == "convolutional":
        assert together.tensors["norm1.num_batches_tracked"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("kind", ["mlp", "convolutional", "residual"])
def test_narrowed_networks_are_of_the_same_kind_with_a_share_of_the_widths(kind):
    given = {"n_classes": 3, "image_shape": SHAPE, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    wide, narrow = (architecture_of(kind, widths, **given) for widths in ((8, 20), (1, 2)))
    assert narrowed(wide, 0.1) == narrow
    assert narrowed(narrow, 0.1) == architecture_of(kind, (1, 1), **given), "one unit at least"


def test_training_one_network_is_pytorch_s_own(random_images):
    """Two steps of SGD by hand, with PyTorch's modules and optimizer, running statistics included."""
    architecture = architecture_of(
        "convolutional", (4,), n_classes=3, image_shape=SHAPE, mean=[0.5] * 3, std=[0.25] * 3
    )
    recipe = Recipe(optimizer="sgd", learning_rate=0.1, batch_size=30, epochs=2)
    trained = train(architecture, IMAGES, [7], recipe, snapshots=[1]).where(method="stopped")
    network = architecture.network(architecture.initial(generator("initial-weights/7"))).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    order = torch.randperm(60, generator=generator("batch-order/7/0"))
    for step, chosen in enumerate(order.split(30)):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 4))
        loss = nn.functional.cross_entropy(network(IMAGES.pixels[chosen].float() / 255), IMAGES.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.tensors[name][0], tensor, rtol=1e-4, atol=1e-6)


def test_batch_norm_is_measured_on_all_images():
    bank = Bank.stack(networks(lambda: convolutional((4,), n_classes=3, image_shape=SHAPE), 2))
    measured = measure_batch_norm(bank, IMAGES.pixels)
    for k in range(2):
        values = bank[k].conv1(IMAGES.pixels.float() / 255).detach().transpose(0, 1).flatten(1)
        torch.testing.assert_close(measured.tensors["norm1.running_mean"][k], values.mean(1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(measured.tensors["norm1.running_var"][k], values.var(1), rtol=1e-4, atol=1e-5)
    assert (bank.tensors["norm1.running_mean"] == 0).all(), "what is given stays"


def test_networks_of_unknown_kinds_and_starts_are_refused():
    with pytest.raises(ValueError, match="kinds are .'convolutional', 'residual'."):
        build({"kind": "transformer"})
    network = nn.Sequential(OrderedDict(embed=nn.Embedding(4, 3), flatten=nn.Flatten(), last=nn.Linear(6, 2)))
    with pytest.raises(ValueError, match="no initial weights are known for 'embed', a Embedding"):
        NetworkArchitecture.of(network, torch.tensor([[0, 1], [2, 3]])).initial(generator("x"))
