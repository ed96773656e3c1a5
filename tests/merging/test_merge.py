"""Merging in one call: what went in comes out, and it is what the bank and the tree give by hand."""

import copy

import pytest
import torch
from torch import nn

import hrebasin
from hrebasin.bank import Bank
from hrebasin.images.sources import Images
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.merging.many import merge_many
from hrebasin.merging.merge import merge, merge_state_dicts, method_names
from hrebasin.merging.methods import register, unregister
from hrebasin.merging.tree import merge_tree
from hrebasin.networks import MLP, mlp
from hrebasin.random_streams import generator
from hrebasin.small_networks import residual
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
        self.hidden = nn.Conv2d(8, 6, 1)  # its axes of size 1 hold no factor at all
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


def permuted(network, example, names):
    """The network with its units in other orders, once a name."""
    symmetry, others = derive_symmetry(network, example), []
    for name in names:
        others.append(copy.deepcopy(network).eval())
        permutations = symmetry.random_permutations(generator(f"test/merge/{name}"))
        others[-1].load_state_dict(symmetry.apply(network.state_dict(), permutations))
    return others


@pytest.fixture
def inputs():
    return torch.rand(40, 3, 8, 8, generator=generator("test/merge/inputs"))


@pytest.fixture
def nets():
    """Four networks."""
    return [drawn(Net, name) for name in "abcd"]


def small():
    return mlp((12, 8), n_classes=4, image_shape=(3, 8, 8))


KINDS = {"convolutional": Net, "residual": lambda: residual((4, 6), n_classes=4, image_shape=(3, 8, 8)), "mlp": small}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["tree", "merge-many"])
@pytest.mark.filterwarnings("ignore:the running statistics")
def test_a_network_merged_with_its_permuted_selves_answers_as_before(kind, method, inputs):
    network = drawn(KINDS[kind], kind).eval()
    merged = merge([network, *permuted(network, inputs[:2], "abc")], inputs[:2], method=method)
    assert type(merged) is type(network)
    assert not merged.training
    torch.testing.assert_close(merged(inputs), network(inputs), rtol=1e-3, atol=1e-4)


def test_it_is_what_bank_and_tree_give_by_hand(inputs, nets):
    merged, bank = merge(nets, inputs[:2], images=inputs, seed=7), Bank.stack(nets, inputs[:2])
    assert torch.equal(merged(inputs), merge_tree(bank, seed=7, pixels=inputs)[-1][0](inputs))
    assert merged.norm.num_batches_tracked == 1
    many = merge(nets[:3], inputs[:2], images=inputs, method="merge-many", seed=7)
    assert torch.equal(many(inputs), merge_many(bank.select([0, 1, 2]), seed=7, pixels=inputs)[0](inputs))
    others = [merge(nets, inputs[:2], images=inputs, seed=seed)(inputs) for seed in range(2)]
    assert any(not torch.equal(merged(inputs), other) for other in others), "the order of layers is the seed's"
    mlps = [drawn(small, name) for name in "abcd"]  # these need no example
    assert torch.equal(merge(mlps)(inputs), merge_tree(Bank.stack(mlps))[-1][0](inputs))


def test_the_mean_of_networks_is_taken_tensor_by_tensor(inputs, nets):
    nets[0].norm.num_batches_tracked.fill_(5)
    with pytest.warns(UserWarning, match=WARNED):
        merged = merge(nets, inputs[:2], method="naive")
    for name, tensor in merged.state_dict().items():
        stacked = torch.stack([network.state_dict()[name] for network in nets])
        torch.testing.assert_close(tensor, stacked[0] if name.endswith("tracked") else stacked.mean(0))


def test_the_module_is_like_those_given_which_stay_as_they_are(inputs, nets):
    networks = [network.double().train() for network in nets[:2]]
    networks[0].stem.weight.requires_grad_(False)
    networks[0].head.weight.sum().backward()
    before = copy.deepcopy([network.state_dict() for network in networks])
    merged = merge(networks, inputs[:2], images=inputs)
    assert (type(merged), merged.note) == (Net, "mine")
    assert list(merged.state_dict()) == list(networks[0].state_dict())
    assert {p.dtype for p in merged.parameters()} == {torch.float64}
    assert merged.head.weight.grad is None
    assert [p.requires_grad for p in merged.parameters()] == [p.requires_grad for p in networks[0].parameters()]
    merged.stem.weight.data.zero_()
    for network, state in zip(networks, before, strict=True):
        assert network.training
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_batch_norm_is_measured_on_images_of_any_scale_and_kind(inputs, nets):
    scaled = 4 * inputs - 2
    merged = merge(nets[:2], images=scaled)  # the first images are the example
    activations = merged.stem(scaled)
    torch.testing.assert_close(merged.norm.running_mean, activations.mean((0, 2, 3)), **CLOSE)
    torch.testing.assert_close(merged.norm.running_var, activations.var((0, 2, 3)), **CLOSE)
    whole = (255 * inputs).to(torch.uint8)
    expected = merge(nets[:2], images=whole.float() / 255)(inputs)
    loaded = Images(whole, torch.arange(40) % 4, ("a", "b", "c", "d"), "test")
    for given in ({"images": loaded}, {"example": whole[:2], "images": whole}):  # with their bytes
        assert torch.equal(merge(nets[:2], **given)(inputs), expected)


@pytest.mark.parametrize("method", method_names())
def test_every_method_measures_batch_norm_and_repairs(method, inputs, nets):
    networks, images = [network.eval() for network in nets[:2]], (inputs, torch.arange(40) % 4)
    plain, repaired = (merge(networks, images=images, method=method, repair=choice) for choice in (False, True))
    again = measure_batch_norm(Bank.stack([plain], inputs[:2]), inputs)[0]
    torch.testing.assert_close(plain(inputs), again(inputs))
    with torch.no_grad():  # classes are in no other order, so the moments of logits are those of the networks
        wanted = torch.stack([torch.stack(torch.std_mean(each(inputs), 0)) for each in networks]).mean(0)
        found = torch.stack(torch.std_mean(repaired(inputs), 0))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(torch.stack(torch.std_mean(plain(inputs), 0)), wanted, rtol=1e-2)


def test_what_is_registered_can_be_asked_for(inputs, nets):
    register("first", lambda bank, seed: bank.select([0]))
    try:
        nets[0].norm.reset_running_stats()
        merged = merge(nets, inputs[:2], method="first", images=inputs)
        assert torch.equal(merged.stem.weight, nets[0].stem.weight)
        assert not torch.equal(merged.norm.running_mean, nets[0].norm.running_mean), "measured for it too"
        with pytest.raises(ValueError, match=r"unknown method 'last'; there are tree, merge-many, naive, .*, first"):
            merge(nets, inputs[:2], method="last")
    finally:
        unregister("first")


def test_an_mlp_with_another_activation_is_not_taken_for_one_with_relu(inputs):
    networks = [drawn(small, "a")]
    networks[0].relu1 = nn.GELU()
    networks += permuted(networks[0], inputs[:2], "b")
    with pytest.raises(ValueError, match="MLP needs inputs of its shape"):
        merge(networks)
    torch.testing.assert_close(merge(networks, inputs[:2])(inputs), networks[0](inputs), **CLOSE)

    class Doubled(MLP):
        def forward(self, pixels):
            return super().forward(2 * pixels)

    network = Doubled(small().architecture)
    assert type(merge([network, *permuted(network, inputs[:2], "c")], inputs[:2])) is Doubled
    for call in (merge, Bank.stack):
        with pytest.raises(ValueError, match="symmetry is for other networks: that of 192-12-8-4, an MLP, is known"):
            call([small(), small()], symmetry=derive_symmetry(small(), inputs[:2]))


def test_state_dicts_must_give_the_logits_of_a_reference(inputs, nets):
    networks = [network.eval() for network in nets[:2]]
    states, given = [network.state_dict() for network in networks], {"images": inputs, "method": "naive"}
    logits = torch.stack([network(inputs) for network in networks]).detach()
    plain = merge_state_dicts(Net(), states, **given)
    for right in (logits[0], logits):
        merged = merge_state_dicts(Net(), states, **given, reference=(inputs, right))
        assert all(torch.equal(tensor, merged[name]) for name, tensor in plain.items())
    other = Net()
    other.scale.fill_(3.0)  # no state dict tells it
    for network, wrong, message in (
        (other, logits[0], r"a\.pt gives other logits .* Do the module's functions and numbers"),
        (Net(), logits[[0, 0]], r"b\.pt gives other logits than the reference"),
        (Net(), logits[0, :, :3], r"reference logits must be \(1, 40, 4\), got \(1, 40, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_state_dicts(network, states, **given, names=["a.pt", "b.pt"], reference=(inputs, wrong))


def test_state_dicts_keep_their_names(inputs, nets):
    expected = merge(nets, inputs[:2], images=inputs).state_dict()
    for wrap in (  # as they are, wrapped by a parallel or compiled module or both, by Lightning, a compiled part
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"model.net.{name}",
        lambda name: name.replace("stem.", "stem._orig_mod."),
    ):
        states = [network.state_dict() for network in nets]
        states[0] = {wrap(name): tensor for name, tensor in states[0].items()}
        before = copy.deepcopy(states)
        merged = merge_state_dicts(Net(), states, inputs[:2], images=inputs)
        assert list(merged) == list(states[0])
        assert all(torch.equal(merged[wrap(name)], tensor) for name, tensor in expected.items())
        for state, kept in zip(states, before, strict=True):
            assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def bias(tensor):
    return lambda state: state | {"head.bias": tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {k: t for k, t in s.items() if k != "head.bias"},
            r"state dict 1 lacks 'head.bias', which Net has; it has 'stem.weight'",
        ),
        (lambda s: s | {"more": torch.ones(1)}, r"state dict 1 has 'more', which Net lacks; that has"),
        (bias(torch.ones(5)), r"state dict 1: 'head.bias' has shape \(5,\), .*has \(4,\)"),
        (bias(torch.ones(4).half()), r"state dict 1: 'head.bias' is torch.float16; convert"),
        (bias(torch.ones(4) * 1j), r"state dict 1: 'head.bias' is torch.complex64: only real"),
        (bias(torch.ones(4).long()), r"state dict 1: 'head.bias' is torch.int64, but"),
        (bias(torch.full((4,), torch.nan)), r"state dict 1: 'head.bias' holds .* not finite"),
        (bias([0.0] * 4), r"state dict 1: 'head.bias' is no tensor but list"),
        (list, r"state dict 1 is a list, not a mapping"),
        (lambda s: {}, r"state dict 1 lacks 'stem.weight', which Net has; it has nothing"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_named_with_its_tensor(change, message, inputs, nets):
    with pytest.raises(ValueError, match=message):
        merge_state_dicts(Net(), [nets[0].state_dict(), change(nets[1].state_dict())], inputs[:2], images=inputs)


def test_state_dicts_given_as_networks_and_numbers_that_float32_cannot_hold_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"network 1 is a state dict: merge_state_dicts takes those"):
        hrebasin.merge([Net(), Net().state_dict()], torch.rand(2, 3, 8, 8))
    networks = [mlp((6,), n_classes=4, image_shape=(3, 4, 4)).double() for _ in range(2)]
    networks[1].fc1.weight.data[0, 0] = -1e300
    message = r"'fc1.weight' holds -1.0e\+300, which float32 cannot hold"
    with pytest.raises(ValueError, match=f"network 1: {message}"):
        hrebasin.merge(networks, torch.rand(2, 3, 4, 4))
    for name in ("b.safetensors", "b.pt"):
        write_weights(tmp_path / name, networks[1].state_dict())
        with pytest.raises(ValueError, match=rf"{name}: {message}"):
            read_weights(tmp_path / name)
