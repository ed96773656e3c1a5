import pytest
import torch

from hrebasin import Bank, match_weights, merge_many, merge_tree
from hrebasin.merging.aligned_many import align_many_by_sweeps
from hrebasin.merging.methods import MERGES
from hrebasin.merging.tree import _greedy, align_paired_tree, align_tree, average_blocks


@pytest.fixture(scope="module")
def eight(trained) -> Bank:
    return trained.relabel(group=3)


def mean(bank: Bank) -> Bank:
    return Bank(bank.architecture, {key: tensor.mean(0, keepdim=True) for key, tensor in bank.tensors.items()})


def assert_equal(a: Bank, b: Bank, **tolerance):
    torch.testing.assert_close(a.tensors, b.tensors, **tolerance)


def test_every_stage_of_the_tree_is_the_mean_of_aligned_leaves(eight, pixels):
    for chosen in (slice(None), slice(4, 8)):
        leaves = eight.relabel(node=range(8)).select(chosen)
        tree, stages = merge_tree(leaves), align_tree(leaves)
        assert len(stages) == len(tree)
        assert_equal(stages[0], leaves, rtol=0, atol=0)
        torch.testing.assert_close(stages[-1](pixels), leaves(pixels), rtol=1e-4, atol=1e-4)
        for stage in range(1, len(stages)):
            nodes = average_blocks(stages[stage], 2**stage)
            assert_equal(nodes, tree[stage], rtol=1e-5, atol=1e-6)
            for name in ("stage", "n_merged", "node", "group", "seed"):
                assert nodes.labels[name].tolist() == tree[stage].labels[name].tolist()
    assert_equal(MERGES["tree"](eight), merge_tree(eight)[-1], rtol=0, atol=0)
    assert_equal(align_paired_tree(eight).bank, align_tree(eight)[-1], rtol=0, atol=0)


def test_the_star_is_the_mean_of_all_aligned_to_the_first_and_the_fold_of_two_the_pair(eight):
    first = eight.select([0])

    def moved(method, k):
        name = f"0/{method}/group-3/node-0/model-{k}"
        return match_weights(first, eight.select([k]), seed=name).apply(eight.select([k]))

    star = Bank.concat([first, *(moved("star", k) for k in range(1, 8))])
    assert_equal(MERGES["star"](eight), mean(star))
    assert_equal(MERGES["fold"](eight.select(slice(2))), mean(Bank.concat([first, moved("fold", 1)])))
    # three weigh all alike: the biases of the output are not permuted, so their mean depends on no alignment
    three = eight.select(slice(3))
    torch.testing.assert_close(MERGES["fold"](three).tensors["fc4.bias"], mean(three).tensors["fc4.bias"])


def test_pairs_are_drawn_by_the_seed_or_the_nearest_first(eight):
    one, other = (MERGES["tree-random"](eight, seed) for seed in (1, 2))
    assert not torch.equal(one.tensors["fc1.weight"], other.tensors["fc1.weight"])
    assert _greedy([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], [5, 1, 6, 2, 7, 3]) == [(0, 2), (1, 3)]
    # twins: 0 and 4, 1 and 5 are the same networks, and a nearest pairing finds them at distance 0
    half = MERGES["tree-nearest"](eight.select([0, 1, 2, 3, 0, 1, 2, 3]))
    once = MERGES["tree-nearest"](eight.select(slice(4)))
    assert abs(half.history.pairwise_distance.item() / (4 * once.history.pairwise_distance.item()) - 1) < 0.05
    for given, pairing, message in (
        (slice(3), "random", r"a tree needs 2\*\*k networks, got 3"),
        (slice(8), "closest", "pairing must be one of .* got 'closest'"),
    ):
        with pytest.raises(ValueError, match=message):
            align_paired_tree(eight.select(given), pairing=pairing)


def test_merge_many_continues_from_the_tree(eight):
    merged = MERGES["merge-many-from-tree"](eight)
    tree = merge_tree(eight)[-1]
    assert merged.history.pairwise_distance <= tree.history.pairwise_distance.item() * (1 + 1e-6)
    assert_equal(merged, merge_many(align_tree(eight)[-1], seed=0), rtol=1e-5, atol=1e-6)


def test_merge_many_tells_the_networks_that_it_averages_after_every_sweep(eight, pixels):
    limits = [1, 2, 100]
    merged, aligned = align_many_by_sweeps(eight, limits, seed=4)
    assert_equal(merged, merge_many(eight, limits=limits, seed=4), rtol=0, atol=0)
    for number, bank in enumerate(aligned):
        torch.testing.assert_close(bank(pixels), eight(pixels), rtol=1e-4, atol=1e-4)
        assert_equal(merged.select([number]), mean(bank), rtol=1e-5, atol=1e-6)
