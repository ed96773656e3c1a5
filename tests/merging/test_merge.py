"""Merging in one call: what went in comes out, and it is what the bank and the tree give by hand."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import hrebasin
from hrebasin.bank import Bank
from hrebasin.convolutional import residual
from hrebasin.images.sources import Images
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.merging.many import merge_many
from hrebasin.merging.merge import merge, merge_state_dicts, method_names
from hrebasin.merging.methods import register, unregister
from hrebasin.merging.tree import merge_tree
from hrebasin.networks import MLP, mlp
from hrebasin.random_streams import generator
from hrebasin.symmetry import derive_symmetry
from hrebasin.weight_files import read_weights, write_weights

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
WARNED = r"batch norm were averaged.*images="


class Net(nn.Module):
    """A convolutional network as anybody would write it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.hidden = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 4)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.note = "mine"

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.scale * self.head(nn.functional.gelu(self.hidden(x)).mean((2, 3)))


def drawn(make, name):
    """A network whose tensors, running statistics too, are drawn from a named stream."""
    network, stream = make(), generator(f"test/merge/{name}")
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.normal_(0, 0.5, generator=stream)
            if key.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return network


def permuted(network, example, name):
    symmetry = derive_symmetry(network, example)
    other = copy.deepcopy(network)
    permutations = symmetry.random_permutations(generator(f"test/merge/{name}"))
    other.load_state_dict(symmetry.apply(network.state_dict(), permutations))
    return other.eval()


@pytest.fixture
def inputs():
    return torch.rand(40, 3, 8, 8, generator=generator("test/merge/inputs"))


def small():
    return mlp((12, 8), n_classes=4, image_shape=(3, 8, 8))


KINDS = {"convolutional": Net, "residual": lambda: residual((4, 6), n_classes=4, image_shape=(3, 8, 8)), "mlp": small}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["tree", "merge-many"])
@pytest.mark.filterwarnings("ignore:the running statistics")
def test_a_network_merged_with_its_permuted_selves_answers_as_before(kind, method, inputs):
    network = drawn(KINDS[kind], kind).eval()
    others = [permuted(network, inputs[:2], name) for name in "abc"]
    merged = merge([network, *others], inputs[:2], method=method)
    assert type(merged) is type(network)
    assert not merged.training
    torch.testing.assert_close(merged(inputs), network(inputs), **CLOSE)


def test_it_is_what_bank_and_tree_give_by_hand(inputs):
    networks = [drawn(Net, name) for name in "abcd"]
    merged = merge(networks, inputs[:2], images=inputs, seed=7)
    bank = Bank.stack(networks, inputs[:2])
    expected = merge_tree(bank, seed=7, pixels=inputs)[-1]
    assert torch.equal(merged(inputs), expected[0](inputs))
    assert merged.norm.num_batches_tracked == 1
    many = merge(networks[:3], inputs[:2], images=inputs, method="merge-many", seed=7)
    assert torch.equal(many(inputs), merge_many(bank.select([0, 1, 2]), seed=7, pixels=inputs)[0](inputs))
    others = [merge(networks, inputs[:2], images=inputs, seed=seed)(inputs) for seed in range(4)]
    assert any(not torch.equal(merged(inputs), other) for other in others), "the order of layers is the seed's"


def test_a_tree_of_mlps_is_that_of_the_study(inputs):
    networks = [drawn(small, name) for name in "abcd"]
    merged = merge(networks)  # these need no example
    assert torch.equal(merged(inputs), merge_tree(Bank.stack(networks))[-1][0](inputs))


def test_the_mean_of_networks_is_taken_tensor_by_tensor(inputs):
    networks = [drawn(Net, name) for name in "abc"]
    networks[0].norm.num_batches_tracked.fill_(5)
    with pytest.warns(UserWarning, match=WARNED):
        merged = merge(networks, inputs[:2], method="naive")
    for name, tensor in merged.state_dict().items():
        stacked = torch.stack([network.state_dict()[name] for network in networks])
        torch.testing.assert_close(tensor, stacked[0] if name.endswith("tracked") else stacked.mean(0))


def test_the_module_is_like_those_given_which_stay_as_they_are(inputs):
    networks = [drawn(Net, name).double().train() for name in "ab"]
    networks[0].stem.weight.requires_grad_(False)
    networks[0].head.weight.sum().backward()
    before = copy.deepcopy([network.state_dict() for network in networks])
    merged = merge(networks, inputs[:2], images=inputs)
    assert type(merged) is Net
    assert merged.note == "mine"
    assert list(merged.state_dict()) == list(networks[0].state_dict())
    assert {p.dtype for p in merged.parameters()} == {torch.float64}
    assert merged.head.weight.grad is None
    assert [p.requires_grad for p in merged.parameters()] == [p.requires_grad for p in networks[0].parameters()]
    for network, state in zip(networks, before, strict=True):
        assert network.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    merged.stem.weight.data.zero_()
    assert networks[0].stem.weight.any()


def test_batch_norm_is_measured_on_images_of_any_scale(inputs):
    networks, scaled = [drawn(Net, name) for name in "ab"], 4 * inputs - 2
    merged = merge(networks, images=scaled)  # the first images are the example
    with pytest.warns(UserWarning, match=WARNED):
        bare = merge(networks, inputs[:2])
    again = measure_batch_norm(Bank.stack([bare], inputs[:2]), scaled)[0]
    torch.testing.assert_close(merged(scaled), again(scaled))
    activations = merged.stem(scaled)
    torch.testing.assert_close(merged.norm.running_mean, activations.mean((0, 2, 3)), **CLOSE)
    torch.testing.assert_close(merged.norm.running_var, activations.var((0, 2, 3)), **CLOSE)


@pytest.mark.parametrize("method", method_names())
def test_every_method_measures_batch_norm_and_repairs(method, inputs):
    networks, images = [drawn(Net, name).eval() for name in "ab"], (inputs, torch.arange(40) % 4)
    plain, repaired = (merge(networks, images=images, method=method, repair=choice) for choice in (False, True))
    again = measure_batch_norm(Bank.stack([plain], inputs[:2]), inputs)[0]
    torch.testing.assert_close(plain(inputs), again(inputs))
    with torch.no_grad():  # classes are in no other order, so the moments of logits are those of the networks
        wanted = torch.stack([torch.stack(torch.std_mean(each(inputs), 0)) for each in networks]).mean(0)
        found = torch.stack(torch.std_mean(repaired(inputs), 0))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(torch.stack(torch.std_mean(plain(inputs), 0)), wanted, rtol=1e-2)


def test_a_symmetry_by_hand_is_refused_for_mlps(inputs):
    for call in (merge, Bank.stack):
        with pytest.raises(ValueError, match="symmetry is for other networks: that of 192-12-8-4, an MLP, is known"):
            call([small(), small()], symmetry=derive_symmetry(small(), inputs[:2]))


def test_loaded_images_are_taken_with_their_bytes(inputs):
    whole = (255 * inputs).to(torch.uint8)
    images = Images(whole, torch.arange(40) % 4, ("a", "b", "c", "d"), "test")
    networks = [drawn(Net, name) for name in "ab"]
    expected = merge(networks, images=whole.float() / 255)
    assert torch.equal(merge(networks, images=images)(inputs), expected(inputs))
    assert torch.equal(merge(networks, example=whole[:2], images=whole)(inputs), expected(inputs))


def test_what_is_registered_can_be_asked_for(inputs):
    register("first", lambda bank, seed: bank.select([0]))
    try:
        networks = [drawn(Net, name) for name in "abc"]
        networks[0].norm.reset_running_stats()
        merged = merge(networks, inputs[:2], method="first", images=inputs)
        assert torch.equal(merged.stem.weight, networks[0].stem.weight)
        assert not torch.equal(merged.norm.running_mean, networks[0].norm.running_mean), "measured for it too"
        with pytest.raises(ValueError, match=r"unknown method 'last'; there are tree, merge-many, naive, .*, first"):
            merge(networks, inputs[:2], method="last")
    finally:
        unregister("first")


def test_an_mlp_with_another_activation_is_not_taken_for_one_with_relu(inputs):
    networks = [drawn(small, "a")]
    networks[0].relu1 = nn.GELU()
    networks.append(permuted(networks[0], inputs[:2], "b"))
    with pytest.raises(ValueError, match="MLP needs example="):
        merge(networks)
    merged = merge(networks, inputs[:2])
    torch.testing.assert_close(merged(inputs), networks[0](inputs), **CLOSE)

    class Doubled(MLP):
        def forward(self, pixels):
            return super().forward(2 * pixels)

    network = Doubled(small().architecture)
    assert type(merge([network, permuted(network, inputs[:2], "c")], inputs[:2])) is Doubled


# ---- state dicts

WRAPPED = {
    "as they are": lambda name: name,
    "parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "lightning": lambda name: f"model.net.{name}",
    "a compiled part": lambda name: name.replace("stem.", "stem._orig_mod."),
}


def test_state_dicts_must_give_the_logits_of_a_reference(inputs):
    networks = [drawn(Net, name).eval() for name in "ab"]
    states, given = [network.state_dict() for network in networks], {"images": inputs, "method": "naive"}
    logits = torch.stack([network(inputs) for network in networks]).detach()
    plain = merge_state_dicts(Net(), states, **given)
    for right in (logits[0], logits):
        merged = merge_state_dicts(Net(), states, **given, reference=(inputs, right))
        assert all(torch.equal(tensor, merged[name]) for name, tensor in plain.items())
    other = Net()
    other.scale.fill_(3.0)  # no state dict tells it
    with pytest.raises(ValueError, match=r"state dict 0 gives other logits .* Do the module's functions and numbers"):
        merge_state_dicts(other, states, **given, reference=(inputs, logits[0]))
    with pytest.raises(ValueError, match=r"b\.pt gives other logits than the reference"):
        merge_state_dicts(Net(), states, **given, names=["a.pt", "b.pt"], reference=(inputs, logits[[0, 0]]))
    with pytest.raises(ValueError, match=r"reference logits must be \(1, 40, 4\), got \(1, 40, 3\)"):
        merge_state_dicts(Net(), states, **given, reference=(inputs, logits[0, :, :3]))


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_state_dicts_keep_their_names(wrap, inputs):
    networks = [drawn(Net, name) for name in "abcd"]
    expected = merge(networks, inputs[:2], images=inputs).state_dict()
    states = [network.state_dict() for network in networks]
    states[0] = {wrap(name): tensor for name, tensor in states[0].items()}
    before = copy.deepcopy(states)
    merged = merge_state_dicts(Net(), states, inputs[:2], images=inputs)
    assert list(merged) == list(states[0])
    assert all(torch.equal(merged[wrap(name)], tensor) for name, tensor in expected.items())
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def without(name):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("head.bias"), r"state dict 1 lacks 'head.bias', which Net has; it has 'stem.weight'"),
        (lambda s: s | {"more": torch.ones(1)}, r"state dict 1 has 'more', which Net lacks; that has"),
        (lambda s: s | {"head.bias": torch.ones(5)}, r"state dict 1: 'head.bias' has shape \(5,\), .*has \(4,\)"),
        (lambda s: s | {"head.bias": torch.ones(4).half()}, r"state dict 1: 'head.bias' is torch.float16; convert"),
        (lambda s: s | {"head.bias": torch.ones(4).bfloat16()}, r"'head.bias' is torch.bfloat16; convert"),
        (lambda s: s | {"head.bias": torch.ones(4) * 1j}, r"state dict 1: 'head.bias' is torch.complex64: only real"),
        (lambda s: s | {"head.bias": torch.ones(4).long()}, r"state dict 1: 'head.bias' is torch.int64, but"),
        (lambda s: s | {"head.bias": torch.full((4,), torch.nan)}, r"state dict 1: 'head.bias' holds .* not finite"),
        (lambda s: s | {"head.bias": [0.0] * 4}, r"state dict 1: 'head.bias' is no tensor but list"),
        (list, r"state dict 1 is a list, not a mapping"),
        (lambda s: {}, r"state dict 1 lacks 'stem.weight', which Net has; it has nothing"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named_with_its_tensor(change, message, inputs):
    states = [drawn(Net, "a").state_dict(), change(drawn(Net, "b").state_dict())]
    with pytest.raises(ValueError, match=message):
        merge_state_dicts(Net(), states, inputs[:2], images=inputs)


def test_state_dicts_given_as_networks_are_shown_the_way():
    with pytest.raises(ValueError, match=r"network 1 is a state dict: merge_state_dicts takes those"):
        hrebasin.merge([Net(), Net().state_dict()], torch.rand(2, 3, 8, 8))


def test_a_public_network_with_convolutions_of_one_pixel_is_merged():
    """Its axes of size 1 hold no factor at all."""
    network = drawn(lambda: torchvision.models.resnet18(num_classes=4), "resnet").eval()
    example = torch.rand(2, 3, 32, 32, generator=generator("test/merge/resnet"))
    with pytest.warns(UserWarning, match=WARNED):
        merged = merge([network, permuted(network, example, "resnet")], example)
    torch.testing.assert_close(merged(example), network(example), rtol=1e-3, atol=1e-3)


def test_numbers_that_float32_cannot_hold_are_refused_by_file_and_network(tmp_path):
    networks = [mlp((6,), n_classes=4, image_shape=(3, 4, 4)).double() for _ in range(2)]
    networks[1].fc1.weight.data[0, 0] = -1e300
    with pytest.raises(ValueError, match=r"network 1: 'fc1.weight' holds -1.0e\+300, which float32 cannot hold"):
        hrebasin.merge(networks, torch.rand(2, 3, 4, 4))
    for suffix in ("safetensors", "pt"):
        path = tmp_path / f"b.{suffix}"
        write_weights(path, networks[1].state_dict())
        with pytest.raises(ValueError, match=rf"b\.{suffix}: 'fc1.weight' holds -1.0e\+300, which float32 cannot hold"):
            read_weights(path)
