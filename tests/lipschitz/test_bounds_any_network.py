"""Norms, gradients and bounds of networks that are no ReLU MLPs; what the norms of children predict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrebasin.bank import Bank
from hrebasin.lipschitz.bounds import NOT_APPLICABLE, eclipse_fast, global_lipschitz, local_lipschitz, measure
from hrebasin.lipschitz.gradients import gradient_norm
from hrebasin.lipschitz.norms import children, weight_norm
from hrebasin.matching.weights import match_weights
from hrebasin.merging.averages import merge_naive
from hrebasin.merging.many import merge_many
from hrebasin.merging.tree import merge_tree
from hrebasin.study import records
from other_networks import KINDS, SHAPE, untrained


@pytest.fixture(scope="module", params=KINDS, ids=lambda make: make.__name__)
def bank(request):
    return untrained(request.param)


def test_norms_are_those_of_parameters_and_gradients_those_of_the_jacobian(bank):
    norms, pixels = weight_norm(bank), torch.rand(3, *SHAPE)
    gradients = gradient_norm(bank, pixels)
    assert norms.layer.values.tolist() == list(bank.architecture.layers)
    for k, network in enumerate(bank):
        for layer in norms.layer.values:  # no running statistics
            parameters = network.get_submodule(layer).parameters(recurse=False)
            expected = sum(np.linalg.norm(p.detach().double().numpy()) for p in parameters)
            assert norms.sel(layer=layer)[k].item() == pytest.approx(expected, rel=1e-12)
        for image in range(3):
            jacobian = torch.autograd.functional.jacobian(network.double(), pixels[image : image + 1].double())
            expected = np.linalg.svd(jacobian.reshape(4, -1).numpy(), compute_uv=False)[0]
            assert gradients[k, image].item() == pytest.approx(expected, rel=1e-9)


def test_the_predicted_norm_is_that_of_the_node(bank):
    leaves = bank.relabel(node=np.arange(2))
    joined = Bank.concat([replace(each, history=None) for each in merge_tree(leaves, pixels=torch.rand(8, *SHAPE))])
    found = children(joined)
    np.testing.assert_allclose(found.predicted_norm[2], weight_norm(joined)[2], rtol=1e-5)
    assert (abs(found.children_cosine[2]) <= 1).all()
    assert found.predicted_norm[:2].isnull().all()


def test_upper_bounds_are_refused_by_name_and_not_applicable_in_the_data_set(bank, make_images, tmp_path):
    pixels, images = torch.rand(1, *SHAPE), make_images("test", 12, shape=SHAPE)
    for bound in (global_lipschitz, eclipse_fast, lambda bank: local_lipschitz(bank, pixels, radius=0.1)):
        with pytest.raises(ValueError, match=r"for ReLU MLPs only, not for Recognised of .* parameters"):
            bound(bank)
    with pytest.raises(ValueError, match="in pixel units only, got 'normalised'"):
        gradient_norm(bank, pixels, units="normalised")
    found = measure(bank, images.pixels, images.labels, radii=[0.1, 1.0], bounded=5)
    records.write(found, tmp_path / "regularity.nc", stage="regularity")
    back = records.read(tmp_path / "regularity.nc", stage="regularity")
    n_layers = len(bank.architecture.layers)
    assert dict(back.sizes) == {"model": 2, "layer": n_layers, "bound": 2, "radius": 2, "image": 12}
    for name in ("lipschitz", "local_lipschitz"):
        assert back[name].isnull().all()
        assert back[name].attrs["comment"] == NOT_APPLICABLE
    assert back.attrs["comment"] == NOT_APPLICABLE
    assert back.gradient_norm.notnull().all()
    assert (back.margin > 0).sum() == (bank(images.pixels).argmax(-1) == images.labels).sum()


@pytest.fixture(scope="module")
def stages(trained):
    return merge_tree(trained.select(slice(4)).relabel(node=np.arange(4)))


def test_the_cosine_is_that_of_the_aligned_children(stages):
    found, leaves = children(Bank.concat(stages)), stages[0]
    first, second = leaves.select([0]), leaves.select([1])
    moved = match_weights(first, second, seed="0/group-0/stage-1/node-0").apply(second)  # as merge_pairs names it
    for layer in leaves.architecture.layers:
        a, b = (
            torch.cat([bank.tensors[f"{layer}.{part}"].double().flatten() for part in ("weight", "bias")])
            for bank in (first, moved)
        )
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
        assert found.children_cosine.sel(layer=layer)[4].item() == pytest.approx(cosine, abs=1e-5)
    # networks without children in the bank have none
    others = Bank.concat([leaves, merge_many(leaves), merge_naive(leaves), stages[2]])
    assert children(others).children_cosine.isnull().all()


def test_the_predicted_norm_is_that_of_the_merged_network_and_of_no_other(stages):
    bank = Bank.concat(stages)
    found, norm = children(bank), weight_norm(bank)
    nodes = bank.labels["method"] == "tree"
    np.testing.assert_allclose(found.predicted_norm[nodes], norm[nodes], rtol=1e-6)
    assert found.predicted_norm[~nodes].isnull().all()
    halves = torch.ones(len(bank))
    halves[4] = 0.5  # a node whose norm is half of what averaging gives
    halved = {key: tensor * halves.view(-1, *[1] * (tensor.ndim - 1)) for key, tensor in bank.tensors.items()}
    shrunk = Bank(bank.architecture, halved, bank.labels)
    assert (children(shrunk).predicted_norm[4] != pytest.approx(weight_norm(shrunk)[4], rel=0.01)).all()
