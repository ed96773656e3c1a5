import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin import Architecture, Bank
from hrebasin.bank import LABELS, check_finite
from hrebasin.bank_files import read_origin
from hrebasin.random_streams import generator
from hrebasin.training.run import initial_bank

CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # batched products differ from single ones in the last bits of float32


def bank_of(widths, n=3, shape=(1, 4, 4)):
    channels = shape[0]
    architecture = Architecture(tuple(widths), 3, shape, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels])
    return initial_bank(architecture, range(n))


def assert_same(a, b):
    assert a.architecture == b.architecture
    assert list(a.tensors) == list(b.tensors)
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name])
    for name, values in a.labels.items():
        assert values.dtype == b.labels[name].dtype
        assert values.tolist() == b.labels[name].tolist()


def single_logits(bank, pixels):
    """Every network by itself, through torch's own modules; pixels (model, image, ...)."""
    with torch.no_grad():
        return torch.stack([network(own) for network, own in zip(bank, pixels, strict=True)])


@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n=st.integers(1, 4),
    shape=st.sampled_from([(1, 4, 4), (3, 4, 4), (2, 1, 3)]),
    n_images=st.integers(1, 6),
)
def test_a_bank_equals_its_networks(widths, n, shape, n_images):
    bank = bank_of(widths, n, shape)
    shared = torch.rand(n_images, *shape, generator=generator("test/shared"))
    own = torch.rand(n, n_images, *shape, generator=generator("test/own"))
    assert bank(shared).shape == (n, n_images, 3)
    assert torch.allclose(bank(shared), single_logits(bank, shared.expand(n, *shared.shape)), **CLOSE)
    assert torch.allclose(bank(own), single_logits(bank, own), **CLOSE)


def test_bytes_are_pixels_in_the_unit_interval_which_carry_gradients_and_stay(trained, test_images, pixels):
    whole, own = test_images.pixels.clone(), pixels.clone().requires_grad_()
    logits = trained(own)
    assert torch.allclose(trained(whole), logits, rtol=1e-5, atol=1e-5)
    assert torch.autograd.grad(logits.sum(), own)[0].abs().sum() > 0
    assert torch.equal(whole, test_images.pixels)
    assert torch.equal(own, pixels)


def test_stacking_networks_and_taking_them_out_again(trained):
    networks = list(trained)
    again = Bank.stack(networks, **trained.labels)
    for network in (networks[0], again[0]):
        network.fc1.weight.data.zero_()
        assert_same(again, trained)
    plain = Bank.stack(networks).labels
    assert set(plain) == set(LABELS)
    assert (plain["method"].tolist(), plain["node"].tolist()) == (["unmerged"] * 8, list(range(8)))


SELECTED = [([2, 0], [2, 0]), (slice(1, None, 2), [1, 3, 5, 7]), (-1, [7]), (torch.tensor([1, 1]), [1, 1])]
SELECTED += [(np.arange(8) % 3 == 0, [0, 3, 6]), (slice(None, None, -3), [7, 4, 1])]


@pytest.mark.parametrize(("indices", "expected"), SELECTED)
def test_select_takes_weights_labels_and_history_together(trained, indices, expected):
    chosen = trained.select(indices)
    assert chosen.labels["seed"].tolist() == chosen.history.seed.values.tolist() == expected
    np.testing.assert_array_equal(chosen.history.train_loss, trained.history.train_loss[expected])
    for network, seed in zip(chosen, expected, strict=True):
        assert torch.equal(network.fc2.weight, trained[seed].fc2.weight)


def test_where_selects_by_label():
    bank = bank_of((5,), 4)
    bank = bank.relabel(method=["unmerged", "tree", "tree", "merge-many"], stage=[0, 1, 2, 2], strength=[0, 0.5, 0, 0])
    assert bank.where(method="tree").labels["stage"].tolist() == [1, 2]
    assert bank.where(method=["tree", "unmerged"], stage=[0, 2]).labels["seed"].tolist() == [0, 2]
    assert bank.where(strength=0.5).labels["seed"].tolist() == [1]


def test_chunks_join_to_the_whole_and_labels_may_differ_in_length(trained):
    pieces = list(trained.chunks(3))
    assert [len(piece) for piece in pieces] == [3, 3, 2]
    assert_same(Bank.concat(pieces), trained)
    joined = Bank.concat([bank_of((5,)).relabel(method=name) for name in ("l1", "merge-many-with-a-long-name")])
    assert joined.labels["method"].tolist() == ["l1"] * 3 + ["merge-many-with-a-long-name"] * 3


@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=4), n=st.integers(1, 3))
def test_save_and_load_round_trip(tmp_path_factory, widths, n):
    path = tmp_path_factory.mktemp("bank") / "deep" / "bank.safetensors"
    bank = bank_of(widths, n)
    labels = bank.labels | {"method": "merge-many", "stage": 2, "strength": 1 / 3, "group": range(n)}
    bank = Bank(bank.architecture, bank.tensors, labels)
    bank.save(path, origin={"setting": "tiny", "wall_seconds": 1.5})
    assert_same(Bank.load(path), bank)
    assert read_origin(path) == {"setting": "tiny", "wall_seconds": 1.5}
    bank.save(path)
    assert read_origin(path) == {}
    assert [entry.name for entry in path.parent.iterdir()] == ["bank.safetensors"]


def test_weights_are_finite_where_only_their_sum_is_not():
    bank = bank_of((5,))
    bank.tensors["fc1.weight"][:] = torch.finfo(torch.float32).max
    check_finite(bank, "large weights")
    bank.tensors["fc1.weight"][1, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    with pytest.raises(ValueError, match=f"fc1.weight of the network of seed {bank.labels['seed'][1]} holds"):
        check_finite(bank, "large weights")


def test_coordinates_name_every_network_once():
    tensors = bank_of((5,), 4).tensors
    labels = {"method": ["l1", "l1", "merge-many", "merge-many"], "node": 0, "group": 7}
    labels |= {"strength": [1e-4, 1e-3, 0, 0], "sweeps": [0, 0, 1, 100]}
    coords = Bank(bank_of((5,)).architecture, tensors, labels).coords
    assert coords["model"].values.tolist() == [
        "l1/group-007/stage-0/node-00/strength-0.0001",
        "l1/group-007/stage-0/node-00/strength-0.001",
        "merge-many/group-007/stage-0/node-00/sweeps-1",
        "merge-many/group-007/stage-0/node-00/sweeps-100",
    ]
    assert all({"long_name", "units"} <= set(variable.attrs) for variable in coords.values())


def test_array_lies_over_the_networks(trained):
    values = torch.arange(16.0).view(8, 2)
    array = trained.array(values, ("model", "layer"), name="norm", long_name="norm", units="1", layer=["a", "b"])
    assert array.sel(layer="b").values.tolist() == list(range(1, 16, 2))
    assert array.seed.values.tolist() == list(range(8))
    assert array.attrs == {"long_name": "norm", "units": "1"}
