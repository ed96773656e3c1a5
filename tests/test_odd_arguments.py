"""Arguments that nobody means, and defaults of torch that a caller has set: an error in words, or the usual result."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import hrebasin
from hrebasin.lipschitz import bounds
from hrebasin.merging.methods import MERGES
from hrebasin.random_streams import generator
from hrebasin.robustness.square import square
from hrebasin.robustness.strong import pgd, transferred


def _network():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def _pruned():
    network = _network()
    prune.l1_unstructured(network[0], "weight", 0.5)
    return network


EXAMPLE, LABELS = torch.rand(8, 3, generator=generator("example")), torch.zeros(8, dtype=torch.int64)
NETWORKS = [_network(), _network()]


@pytest.mark.parametrize(
    ("networks", "options", "reason"),
    [
        (None, {}, "networks must be a list of modules, got one NoneType"),
        (NETWORKS[0], {}, "networks must be a list of modules, got one Sequential"),
        ([_pruned(), _pruned()], {}, "Sequential cannot be copied"),
        ([nn.DataParallel(net) for net in NETWORKS], {}, r"network 0 is wrapped in DataParallel: give its \.module"),
        (NETWORKS, {"example": EXAMPLE.to("meta")}, "an example must be a dense tensor with values, got .* on meta"),
        (NETWORKS, {"example": EXAMPLE.to_sparse()}, "an example must be a dense tensor with values, got .*sparse_coo"),
        (NETWORKS, {"symmetry": "P"}, "symmetry must be a Symmetry, got str"),
        (NETWORKS, {"method": ["tree"]}, r"unknown method \['tree'\]"),
        (NETWORKS, {"images": EXAMPLE.numpy()}, r"images must be a torch.Tensor .*, got ndarray"),
        (NETWORKS, {"images": EXAMPLE * float("nan")}, "images must be finite"),
        (NETWORKS, {"images": (EXAMPLE,)}, "pair of inputs and labels, got 1 parts"),
        (NETWORKS, {"images": (EXAMPLE, LABELS, LABELS)}, "pair of inputs and labels, got 3 parts"),
        (NETWORKS, {"images": (EXAMPLE, LABELS.float())}, r"labels must be int64 \(image,\), got torch.float32"),
        (NETWORKS, {"images": (EXAMPLE, LABELS[:, None])}, r"got torch.int64 \(8, 1\)"),
        (NETWORKS, {"images": (EXAMPLE, [0] * 8)}, r"labels must be int64 \(image,\), got list"),
        (NETWORKS, {"images": (EXAMPLE, LABELS[:3])}, "3 labels do not fit 8 images"),
    ],
)
def test_an_odd_argument_is_named(networks, options, reason):
    with pytest.raises(ValueError, match=reason):
        hrebasin.merge(networks, **({"example": EXAMPLE} | options))


OF_BANKS = "ensemble evaluate global_lipschitz eclipse_fast merge_all merge_many merge_naive merge_tree weight_norm"


@pytest.mark.parametrize("name", OF_BANKS.split())
def test_modules_in_place_of_a_bank_are_refused_by_name(name):
    more = [None] * (name == "evaluate")
    with pytest.raises(TypeError, match=r"a Bank of networks is needed, got list: hrebasin\.Bank\.stack"):
        getattr(hrebasin, name)(NETWORKS, *more)


def test_one_size_in_place_of_several_is_refused(trained, pixels, test_images):
    with pytest.raises(TypeError, match=r"epsilons must be several sizes, such as \[0.0, 0.01\], got 0.1"):
        hrebasin.attack(trained, pixels, test_images.labels, kind="fgsm", epsilons=0.1)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused():
    with pytest.raises(ValueError, match="network 0 is a TorchScript module"):
        hrebasin.merge([torch.jit.trace(network, EXAMPLE) for network in NETWORKS], EXAMPLE)


def test_state_dicts_need_a_module():
    with pytest.raises(ValueError, match=r"network must be a torch\.nn\.Module, got NoneType"):
        hrebasin.merge_state_dicts(None, [NETWORKS[0].state_dict()] * 2, EXAMPLE)


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    assert torch.get_default_dtype() == dtype
    torch.set_default_dtype(before)


DEFAULTS = {
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "dtype": lambda: default_dtype(torch.float64),
}


@pytest.mark.parametrize("method", ["merge-many-from-tree", "cycle-consistent", "straight-through"])
@pytest.mark.parametrize("defaults", DEFAULTS)
def test_defaults_of_torch_change_nothing(defaults, method):
    given = {"example": EXAMPLE, "method": method, "images": (EXAMPLE, LABELS)}
    usual = hrebasin.merge(NETWORKS, **given)
    with DEFAULTS[defaults]():
        merged = hrebasin.merge(NETWORKS, **given)
    assert all(map(torch.equal, merged.parameters(), usual.parameters()))


SIZES = {"epsilons": [0.0, 0.05]}
MEASURES = {
    "attack": lambda bank, _, *images: hrebasin.attack(bank, *images, kind="fgsm", **SIZES),
    "pgd": lambda bank, _, *images: pgd(bank, *images, steps=2, restarts=1, **SIZES),
    "transferred": lambda bank, one, *images: transferred(bank, one, *images, kind="pgd", **SIZES),
    "square": lambda bank, _, *images: square(bank, *images, epsilon=0.05, left=np.full((2, 8), True), queries=5),
    "regularity": lambda bank, _, *images: bounds.measure(bank, *images, radii=[0.1], bounded=2),
}


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("defaults", DEFAULTS)
def test_defaults_of_torch_change_no_measure(defaults, measure, trained, pixels, test_images):
    given = trained.select([0, 1]), trained.select([2]), pixels[:8], test_images.labels[:8]
    usual = MEASURES[measure](*given)
    with DEFAULTS[defaults]():
        found = MEASURES[measure](*given)
    assert np.array_equal(found, usual) if measure == "square" else found.equals(usual)


def test_measures_take_images_of_any_precision_and_say_what_they_lack(trained, pixels, test_images):
    given = trained.select([0, 1]), pixels[:8], test_images.labels[:8]
    usual = bounds.measure(*given, radii=[0.1], bounded=2)
    assert bounds.measure(given[0], pixels[:8].double(), given[2], radii=[0.1], bounded=2).equals(usual)
    with pytest.raises(ValueError, match="radii must be several radii, or one, got none"):
        bounds.measure(*given, radii=[], bounded=2)


@pytest.mark.parametrize("method", ["merge-many", "ot-fusion", "activations", "straight-through"])
def test_networks_without_units_to_permute_are_refused_by_every_method(method):
    bank = hrebasin.Bank.stack([nn.Sequential(nn.Linear(3, 2)) for _ in range(2)], EXAMPLE)
    with pytest.raises(ValueError, match="has no permutation symmetry: there is nothing to match"):
        MERGES[method](bank, 0, (EXAMPLE, LABELS))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_list_of_networks_is_no_bank(measure, trained, pixels, test_images):
    networks = list(trained.select([0, 1]))
    with pytest.raises(TypeError, match="a Bank of networks is needed, got list"):
        MEASURES[measure](networks, networks, pixels[:8], test_images.labels[:8])


class Squared(nn.Module):
    """A bilinear layer of the same units twice: one permutation stands on two axes of its weight."""

    def __init__(self):
        super().__init__()
        self.first, self.both, self.last = nn.Linear(3, 6), nn.Bilinear(6, 6, 5), nn.Linear(5, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.both(x, x))


def test_a_permutation_on_two_axes_beside_another_is_matched():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of some networks matching ends in a local optimum
        network = Squared().requires_grad_(False)
    symmetry, moved, state = hrebasin.derive_symmetry(network, EXAMPLE), Squared(), network.state_dict()
    planted = symmetry.random_permutations(generator("planted"))
    moved.load_state_dict({name: symmetry.permute_tensor(name, state[name], planted) for name in state})
    torch.testing.assert_close(hrebasin.merge([network, moved], EXAMPLE)(EXAMPLE), network(EXAMPLE))


def test_images_beyond_the_range_of_batch_norm_are_refused():
    networks = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"1\.running_var is not finite on these images, whose values reach"):
        hrebasin.merge(networks, EXAMPLE, images=EXAMPLE * 1e30)


@pytest.mark.parametrize("precise", [torch.float16, torch.float64])
def test_an_example_of_any_precision_will_do(precise):
    assert hrebasin.merge(NETWORKS, EXAMPLE.to(precise)) is not None


def test_parametrised_weights_are_told():
    networks = [_network(), _network()]
    for network in networks:
        parametrizations.weight_norm(network[0])
    with pytest.warns(UserWarning, match="parametrised weights"):
        hrebasin.merge(networks, EXAMPLE)
