import numpy as np
import pytest
import torch

from hrebasin import Bank, match_weights, merge_many, merge_naive, merge_tree, weight_norm
from hrebasin.lipschitz.norms import children


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
