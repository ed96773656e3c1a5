import numpy as np
import pytest
import torch

from hrebasin import Bank, match_weights, merge_many, merge_naive, merge_tree, weight_norm
from hrebasin.lipschitz.norms import children


@pytest.fixture
def stages(trained):
    return merge_tree(trained.select(slice(4)).relabel(node=np.arange(4)))


def test_the_cosine_is_that_of_the_aligned_children(trained):
    pair = trained.select(slice(2)).relabel(node=np.arange(2))
    found = children(Bank.concat(merge_tree(pair)))
    first, second = pair.select([0]), pair.select([1])
    seed = "0/group-0/stage-1/node-0"  # as merge_pairs names it
    moved = match_weights(first, second, seed=seed).apply(second)
    for layer in pair.architecture.layers:
        a, b = (
            torch.cat([bank.tensors[f"{layer}.{part}"].double().flatten() for part in ("weight", "bias")])
            for bank in (first, moved)
        )
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
        assert found.children_cosine.sel(layer=layer)[2].item() == pytest.approx(cosine, abs=1e-5)
    assert found.children_cosine[:2].isnull().all()


def test_the_predicted_norm_is_that_of_the_merged_network(stages):
    bank = Bank.concat(stages)
    found, norm = children(bank), weight_norm(bank)
    nodes = bank.labels["method"] == "tree"
    np.testing.assert_allclose(found.predicted_norm[nodes], norm[nodes], rtol=1e-6)
    assert found.predicted_norm[~nodes].isnull().all()


def test_another_mean_than_that_of_the_children_is_noticed(stages):
    bank = Bank.concat(stages)
    tensors = {key: tensor.clone() for key, tensor in bank.tensors.items()}
    for tensor in tensors.values():
        tensor[4] *= 0.5  # a node whose norm is half of what averaging gives
    shrunk = Bank(bank.architecture, tensors, bank.labels)
    assert (children(shrunk).predicted_norm[4] != pytest.approx(weight_norm(shrunk)[4], rel=0.01)).all()


def test_networks_without_children_in_the_bank_have_no_cosine(stages):
    leaves = stages[0]
    others = Bank.concat([leaves, merge_many(leaves), merge_naive(leaves), stages[2]])
    assert children(others).children_cosine.isnull().all()
