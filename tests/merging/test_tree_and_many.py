import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hrebasin import Bank, interpolate, match_weights, merge_many, merge_naive, merge_pairs, merge_tree, train
from hrebasin.bank import LABELS
from hrebasin.evaluation import evaluate
from hrebasin.merging.ablations import lines
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.merging.many import merge_many_as_published, merge_many_sets
from hrebasin.merging.methods import MERGES
from hrebasin.merging.path import path
from hrebasin.training.run import initial_bank
from other_networks import KINDS, SHAPE, untrained

LOGITS = {"rtol": 1e-4, "atol": 1e-4}
WEIGHTS = {"rtol": 1e-4, "atol": 1e-6}


def assert_same(a, b, *, labels=True):
    torch.testing.assert_close(a.tensors, b.tensors, rtol=0, atol=0)
    for name in LABELS if labels else ():
        assert a.labels[name].tolist() == b.labels[name].tolist(), name


def distance(a, b):
    """Squared distance of networks k of both banks, (k,) float64."""
    return sum((a.tensors[n].double() - b.tensors[n].double()).square().flatten(1).sum(1) for n in a.tensors)


def sum_of_distances(bank):
    """sum_{i<j} |x_i - x_j|^2 by a double loop."""
    pairs = itertools.combinations(range(len(bank)), 2)
    return sum(distance(bank.select([i]), bank.select([j])).item() for i, j in pairs)


def assert_mean(merged, bank, **tolerance):
    """A network is the mean of others."""
    mean = {name: tensor.double().mean(0, keepdim=True) for name, tensor in bank.tensors.items()}
    torch.testing.assert_close(merged.tensors, mean, **tolerance, check_dtype=False)


def repeat(bank, times):
    """Each network ``times`` times in a row."""
    return bank.select(np.repeat(np.arange(len(bank)), times))


@pytest.fixture(scope="module")
def trained_shallow(shallow, train_images, recipe):
    """Eight networks with one hidden layer."""
    return train(shallow, train_images, range(8), recipe)


@pytest.fixture(scope="module")
def two_groups(trained):
    """Two trees of four leaves."""
    return trained.relabel(group=[3] * 4 + [5] * 4, node=[0, 1, 2, 3] * 2)


@pytest.fixture(scope="module")
def sides(trained):
    """The first and the second networks of four pairs."""
    return trained.select([0, 2, 4, 6]), trained.select([1, 3, 5, 7])


def test_a_pair_is_the_mean_of_the_first_and_the_aligned_second(trained, sides):
    first, second = sides
    alignment = match_weights(first, second, seed=[f"7/group-0/stage-1/node-{node}" for node in range(4)])
    aligned = alignment.apply(second)
    for weight in (0.5, 0.25, 0.0):
        merged = merge_pairs(trained, seed=7, weight=weight)  # of the second
        for name, tensor in merged.tensors.items():
            expected = (1 - weight) * first.tensors[name].double() + weight * aligned.tensors[name].double()
            np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(merged.history.pairwise_distance, distance(first, aligned), rtol=1e-9)
        assert merged.history.sweeps_done.values.tolist() == alignment.sweeps.tolist()
        assert merged.history.converged.values.tolist() == [1] * 4


def test_which_network_moves_makes_no_difference_to_a_global_optimum(trained, trained_shallow, sides, pixels):
    for permute in ("first", "second"):  # with all weight on one side the function stays
        for weight, bank in zip((0.0, 1.0), sides, strict=True):
            merged = merge_pairs(trained, weight=weight, permute=permute)
            torch.testing.assert_close(merged(pixels), bank(pixels), **LOGITS)
    second, first = (merge_pairs(trained_shallow, permute=which) for which in ("second", "first"))
    torch.testing.assert_close(first(pixels), second(pixels), **LOGITS)
    np.testing.assert_allclose(first.history.pairwise_distance, second.history.pairwise_distance, rtol=1e-6)
    assert (first.tensors["fc1.weight"] != second.tensors["fc1.weight"]).any()  # units in another order


@pytest.mark.parametrize("bank_name", ["trained_shallow", "initial"])
def test_a_network_with_itself_gives_it_back_and_with_its_permuted_copy_its_logits(
    request, architecture, random_permutations, pixels, bank_name
):
    untrained = initial_bank(architecture, [0, 1, 2, 3])  # units that differ much: their places are found
    bank = untrained if bank_name == "initial" else request.getfixturevalue(bank_name)
    merged = merge_pairs(repeat(bank, 2))
    assert_same(merged, bank, labels=False)
    assert (merged.history.pairwise_distance == 0).all()
    copy = random_permutations(bank, "copy").apply(bank)
    both = Bank.concat([bank, copy]).select(np.arange(2 * len(bank)).reshape(2, -1).T.ravel())
    torch.testing.assert_close(merge_pairs(both)(pixels), bank(pixels), **LOGITS)
    # while the plain mean of the two is another function
    naive = Bank.concat([merge_naive(both.select([2 * k, 2 * k + 1])) for k in range(len(bank))])
    assert (naive(pixels) - bank(pixels)).abs().max() > 0.1 * bank(pixels).abs().max()


def test_a_tree_merges_the_merged_and_two_at_once_are_each_alone(trained, two_groups):
    tree, by_hand = merge_tree(trained, seed=2), trained
    assert [len(stage) for stage in tree] == [8, 4, 2, 1]
    for number, stage in enumerate(tree):
        assert_same(stage, by_hand)
        told = {name: stage.labels[name].tolist() for name in ("stage", "n_merged", "node", "seed")}
        expected = [[number] * len(stage), [2**number] * len(stage), list(range(len(stage))), [*range(0, 8, 2**number)]]
        assert list(told.values()) == expected
        by_hand = merge_pairs(by_hand, seed=2) if len(by_hand) > 1 else None
    together = merge_tree(two_groups, leaves=4, seed=1)
    assert [len(stage) for stage in together] == [8, 4, 2]
    for group in (3, 5):
        alone = merge_tree(two_groups.where(group=group), seed=1)
        for stage, own in zip(together, alone, strict=True):
            part = stage.where(group=group)
            assert_same(part, own)
            if own.labels["stage"][0] > 0:
                for name in ("pairwise_distance", "sweeps_done", "converged"):
                    np.testing.assert_allclose(part.history[name], own.history[name], rtol=1e-9)


def test_tree_and_merge_many_are_named_by_their_seed(trained):
    for merge in (lambda seed: merge_tree(trained, seed=seed)[3], lambda seed: merge_many(trained, seed=seed)):
        first, again, *others = map(merge, (3, 3, 4))
        assert_same(first, again)
        assert any((first.tensors["fc1.weight"] != other.tensors["fc1.weight"]).any() for other in others)
    # and by its group: the same leaves get other random orders, so other local optima
    pairs = [merge_pairs(trained.relabel(group=group)).tensors["fc2.weight"] for group in range(3)]
    assert any((pair != pairs[0]).any() for pair in pairs)


def test_the_trees_distance_by_double_loop_over_composed_alignments(trained):
    leaves = trained.select(slice(0, 4))
    stage_1 = merge_pairs(leaves)
    seeds = [f"0/group-0/stage-1/node-{node}" for node in range(2)]
    first = match_weights(leaves.select([0, 2]), leaves.select([1, 3]), seed=seeds).apply(leaves.select([1, 3]))
    second = match_weights(stage_1.select([0]), stage_1.select([1]), seed="0/group-0/stage-2/node-0")
    right = [second.apply(leaf) for leaf in (leaves.select([2]), first.select([1]))]
    aligned = Bank.concat([leaves.select([0]), first.select([0]), *right])
    top = merge_tree(leaves)[2]
    np.testing.assert_allclose(top.history.pairwise_distance, [sum_of_distances(aligned)], rtol=1e-5)
    assert_mean(top, aligned, **WEIGHTS)


@pytest.mark.parametrize(("bank_name", "size", "max_sweeps"), [("trained", 5, 2), ("trained_shallow", 4, 100)])
def test_merge_many_follows_the_algorithm(request, bank_name, size, max_sweeps):
    bank = request.getfixturevalue(bank_name).select(slice(0, size))
    aligned, sweeps = merge_many_as_published(bank, max_sweeps=max_sweeps, seed="x")
    merged = merge_many(bank, max_sweeps=max_sweeps, seed="x")
    assert_mean(merged, aligned, **WEIGHTS)
    np.testing.assert_allclose(merged.history.pairwise_distance, [sum_of_distances(aligned)], rtol=1e-5)
    assert merged.history.sweeps_done.values.tolist() == [sweeps]


def test_converged_is_a_fixed_point_and_the_distance_that_of_a_double_loop(trained_shallow):
    merged = merge_many(trained_shallow, seed=5)
    assert merged.history.converged.item() == 1
    # With one hidden layer a converged network is also best aligned to the mean of all: M is a mean of the others,
    # to which it is best aligned, and of itself, to which no order is nearer than its own.
    aligned = match_weights(repeat(merged, 8), trained_shallow).apply(trained_shallow)
    assert_mean(merged, aligned, **WEIGHTS)
    np.testing.assert_allclose(merged.history.pairwise_distance, sum_of_distances(aligned), rtol=1e-5)
    for k in range(8):
        others = {name: (t.sum(0, keepdim=True) - t[k]) / 7 for name, t in aligned.tensors.items()}
        again = match_weights(replace(merged, tensors=others), aligned.select([k]))
        assert torch.equal(again.permutations["P1"], torch.arange(16)[None])


LIMITS = (1, 2, 3, 100)


def test_limits_at_once_are_separate_runs_and_the_distance_never_rises(trained):
    together = merge_many(trained, limits=LIMITS, seed="x")
    distances = together.history.pairwise_distance.values
    assert (np.diff(distances) <= 1e-6 * distances[0]).all()
    assert distances[0] < sum_of_distances(trained)
    assert (together.history.sweeps_done.values <= LIMITS).all()
    assert together.history.converged.values[-1] == 1
    assert together.history.sweeps.values.tolist() == list(LIMITS)
    assert len(set(together.history.sweeps_done.values.tolist())) > 2
    for k, limit in enumerate(LIMITS):
        alone = merge_many(trained, max_sweeps=limit, seed="x")
        assert_same(together.select([k]), alone)
        for name in ("pairwise_distance", "sweeps_done", "converged"):
            np.testing.assert_array_equal(together.history[name][[k]], alone.history[name])


def test_sets_at_once_are_one_by_one(trained):
    banks = [trained.select(part) for part in ([0, 1], [2, 3, 4], slice(0, 8), [5, 6, 7, 1])]
    seeds = ["a", 2, "c", "d"]
    together = merge_many_sets(banks, limits=(1, 50), seeds=seeds)
    for result, bank, seed in zip(together, banks, seeds, strict=True):
        alone = merge_many(bank, limits=(1, 50), seed=seed)
        assert_same(result, alone)
        np.testing.assert_allclose(result.history.pairwise_distance, alone.history.pairwise_distance, rtol=1e-9)
        assert result.history.sweeps_done.values.tolist() == alone.history.sweeps_done.values.tolist()


def test_naive_is_the_mean_and_labelled_as_merge_many(two_groups):
    part = two_groups.where(group=5)
    expected = {"stage": [2], "n_merged": [4], "group": [5], "node": [0], "seed": [4]}
    naive = merge_naive(part)
    assert_mean(naive, part, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(naive.history.pairwise_distance, [sum_of_distances(part)], rtol=1e-5)
    for merged, method, sweeps in ((merge_many(part, max_sweeps=2), "merge-many", 2), (naive, "naive", 0)):
        labels = {name: merged.labels[name].tolist() for name in (*expected, "method", "sweeps")}
        assert labels == expected | {"method": [method], "sweeps": [sweeps]}


class Attention(nn.Module):
    """Attention over the rows of images, with a residual stream."""

    def __init__(self, widths, *, n_classes, image_shape, **_normalisation):
        super().__init__()
        width, n_inputs = widths[1], image_shape[0] * image_shape[2]
        self.embed, self.last = nn.Linear(n_inputs, width), nn.Linear(width, n_classes)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        x = self.embed(x.movedim(1, 2).flatten(2))
        return self.last((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


@pytest.fixture(params=[*KINDS, Attention], ids=lambda make: make.__name__)
def others(request):
    """Three networks that are no MLPs."""
    return untrained(request.param, 3)


@pytest.mark.filterwarnings("ignore:the running statistics")
def test_other_networks_merge_as_published(others):
    merged, (aligned, sweeps) = merge_many(others, seed=1), merge_many_as_published(others, seed=1)
    assert merged.history.sweeps_done.item() == sweeps
    for name in others.architecture.parameters:
        torch.testing.assert_close(merged.tensors[name][0], aligned.tensors[name].mean(0), rtol=1e-4, atol=1e-5)


def test_lines_between_other_networks_end_at_them(others, make_images):
    images, a, b = make_images("test", 12, shape=SHAPE), others.select([0]), others.select([1])
    start, middle, end = interpolate(a, b, [0, 0.5, 1])
    assert_same(start, a)
    assert_same(end, b, labels=False)
    for name in others.architecture.parameters:
        torch.testing.assert_close(middle.tensors[name], (a.tensors[name] + b.tensors[name]) / 2)
    pixels, lambdas = images.pixels, [0, 0.5, 1]
    curve = path(a, b, images, lambdas, pixels=pixels)
    found = lines(a, b, {"test": images}, lambdas, seed=0, pixels=pixels).sel(split="test")
    for alignment in ("before", "after"):
        chosen = found.sel(alignment=alignment)
        np.testing.assert_allclose(chosen.loss.values[..., [0, 2]], curve.loss.values[..., [0, 2]], rtol=1e-3)
        assert (chosen.loss_barrier >= 0).all()
    for place, bank in ((0, a), (2, b)):
        loss = evaluate(measure_batch_norm(bank, pixels), images).loss.values
        np.testing.assert_allclose(curve.loss.values[..., place], loss, rtol=1e-4)


@pytest.mark.parametrize("method", [name for name in MERGES if not MERGES[name].needs])
def test_tiny_networks_merge_as_large_ones_do(trained, method):
    factor = 2.0**-80
    bank = replace(trained.select(range(4)), history=None)
    tiny = replace(bank, tensors={name: tensor * factor for name, tensor in bank.tensors.items()})
    plain, found = MERGES[method](bank), MERGES[method](tiny)
    expected = {name: tensor * factor for name, tensor in plain.tensors.items()}
    torch.testing.assert_close(found.tensors, expected, rtol=0, atol=0)
    distance = plain.history.pairwise_distance * factor**2
    np.testing.assert_allclose(found.history.pairwise_distance, distance, rtol=1e-12)
