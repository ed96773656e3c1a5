import pytest
import torch

from hrebasin import Bank, match_weights, merge_many, merge_tree
from hrebasin.merging.aligned_many import align_many_by_sweeps
from hrebasin.merging.methods import MERGES
from hrebasin.merging.tree import _greedy, align_paired_tree, align_tree, average_blocks


@pytest.fixture
def eight(trained) -> Bank:
    return trained.relabel(group=3)


def assert_equal(a: Bank, b: Bank, **tolerance):
    for name, tensor in a.tensors.items():
        torch.testing.assert_close(tensor, b.tensors[name], **tolerance)


def test_a_tree_of_neighbours_is_the_papers(eight):
    top = MERGES["tree"](eight)
    assert_equal(top, merge_tree(eight)[-1], rtol=0, atol=0)
    assert_equal(align_paired_tree(eight).bank, align_tree(eight)[-1], rtol=0, atol=0)
    assert top.labels["method"].tolist() == ["tree"]
    assert (top.labels["n_merged"].item(), top.labels["stage"].item(), top.labels["node"].item()) == (8, 3, 0)


def test_aligned_leaves_have_the_tree_as_mean_and_the_logits_of_the_leaves(eight, pixels):
    stages = align_tree(eight)
    leaves = stages[-1]
    torch.testing.assert_close(leaves(pixels), eight(pixels), rtol=1e-4, atol=1e-4)
    mean = Bank(leaves.architecture, {k: t.mean(0, keepdim=True) for k, t in leaves.tensors.items()})
    assert_equal(mean, merge_tree(eight)[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chosen", [slice(None), slice(4, 8), slice(2, 4)])
def test_every_stage_of_the_tree_is_the_mean_of_aligned_leaves(eight, chosen):
    leaves = eight.relabel(node=range(8)).select(chosen)
    tree, stages = merge_tree(leaves), align_tree(leaves)
    assert len(stages) == len(tree)
    assert_equal(stages[0], leaves, rtol=0, atol=0)
    for stage in range(1, len(stages)):
        nodes = average_blocks(stages[stage], 2**stage)
        assert_equal(nodes, tree[stage], rtol=1e-5, atol=1e-6)
        for name in ("stage", "n_merged", "node", "group", "seed"):
            assert nodes.labels[name].tolist() == tree[stage].labels[name].tolist()


def test_the_star_is_the_mean_of_all_aligned_to_the_first(eight):
    first = eight.select([0])
    moved = [
        match_weights(first, eight.select([k]), seed=f"0/star/group-3/node-0/model-{k}").apply(eight.select([k]))
        for k in range(1, 8)
    ]
    each = Bank.concat([first, *moved])
    assert_equal(
        MERGES["star"](eight), Bank(each.architecture, {k: t.mean(0, keepdim=True) for k, t in each.tensors.items()})
    )


def test_the_fold_of_two_is_the_pair_and_of_three_weighs_all_alike(eight):
    two = eight.select(slice(2))
    name = "0/fold/group-3/node-0/model-1"
    moved = match_weights(two.select([0]), two.select([1]), seed=name).apply(two.select([1]))
    pair = {k: (t[:1] + moved.tensors[k]) / 2 for k, t in two.tensors.items()}
    assert_equal(MERGES["fold"](two), Bank(two.architecture, pair))
    # the biases of the output are not permuted: their mean does not depend on any alignment
    three = eight.select(slice(3))
    last = f"{list(eight.architecture.layers)[-1]}.bias"
    torch.testing.assert_close(MERGES["fold"](three).tensors[last], three.tensors[last].mean(0, keepdim=True))


def test_pairs_are_drawn_by_the_seed(eight):
    one, other = (MERGES["tree-random"](eight, seed) for seed in (1, 2))
    assert not torch.equal(one.tensors["fc1.weight"], other.tensors["fc1.weight"])


def test_the_nearest_are_paired_first(eight):
    assert _greedy([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], [5, 1, 6, 2, 7, 3]) == [(0, 2), (1, 3)]
    # twins: 0 and 4, 1 and 5 are the same networks, and a nearest pairing finds them at distance 0
    twins = eight.select([0, 1, 2, 3]).tensors
    doubled = Bank(eight.architecture, {k: torch.cat([t, t]) for k, t in twins.items()})
    half = MERGES["tree-nearest"](doubled)
    once = MERGES["tree-nearest"](eight.select(slice(4)))
    assert abs(half.history.pairwise_distance.item() / (4 * once.history.pairwise_distance.item()) - 1) < 0.05


def test_merge_many_continues_from_the_tree(eight):
    merged = MERGES["merge-many-from-tree"](eight)
    tree = merge_tree(eight)[-1]
    assert merged.history.pairwise_distance <= tree.history.pairwise_distance.item() * (1 + 1e-6)
    converged = merge_many(align_tree(eight)[-1], seed=0)
    assert_equal(merged, converged, rtol=1e-5, atol=1e-6)


def test_merge_many_tells_the_networks_that_it_averages_after_every_sweep(eight, pixels):
    limits = [1, 2, 100]
    merged, aligned = align_many_by_sweeps(eight, limits, seed=4)
    assert_equal(merged, merge_many(eight, limits=limits, seed=4), rtol=0, atol=0)
    for number, bank in enumerate(aligned):
        torch.testing.assert_close(bank(pixels), eight(pixels), rtol=1e-4, atol=1e-4)
        mean = Bank(bank.architecture, {k: t.mean(0, keepdim=True) for k, t in bank.tensors.items()})
        assert_equal(merged.select([number]), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": 3}, r"a tree needs 2\*\*k networks, got 3"),
        ({"pairing": "closest"}, "pairing must be one of .* got 'closest'"),
    ],
)
def test_what_cannot_be_paired_is_refused(eight, change, message):
    with pytest.raises(ValueError, match=message):
        align_paired_tree(eight.select(slice(change.get("networks", 8))), pairing=change.get("pairing", "random"))
