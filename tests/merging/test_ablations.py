from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin import Architecture, Bank, evaluate, match_weights
from hrebasin.merging.ablations import lines, pairs_of, permutation_choice
from hrebasin.merging.batch_norm import measure_batch_norm
from hrebasin.random_streams import generator
from hrebasin.small_networks import convolutional
from hrebasin.training.run import initial_bank
from other_networks import SHAPE, untrained

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TINY = Architecture((2,), 2, (1, 1, 1), (0.5,), (0.25,))


@pytest.fixture(scope="module")
def images(train_images, test_images):
    return {"train": train_images, "test": test_images}


@pytest.fixture(scope="module")
def pairs(trained):
    return pairs_of(trained, 6)


@pytest.fixture(scope="module")
def curves(pairs, images):
    return lines(*pairs, images, LAMBDAS, seed="lines")


@pytest.fixture(scope="module")
def choice(pairs, test_images):
    return permutation_choice(*pairs, test_images, seed="choice")


def average(a, b):
    return Bank(a.architecture, {name: (a.tensors[name] + b.tensors[name]) / 2 for name in a.tensors})


def test_neighbours_come_first_then_wider_gaps():
    bank = initial_bank(TINY, range(10, 16))  # seeds differ from places
    first, second = pairs_of(bank, 13)
    expected = [(0, 1), (2, 3), (4, 5)]
    expected += [(0, 2), (1, 3), (2, 4), (3, 5), (0, 3), (1, 4), (2, 5), (0, 4), (1, 5), (0, 5)]
    assert [(a - 10, b - 10) for a, b in zip(first.labels["seed"], second.labels["seed"], strict=True)] == expected
    for name, tensor in bank.tensors.items():
        assert torch.equal(first.tensors[name], tensor[[a for a, _ in expected]])
        assert torch.equal(second.tensors[name], tensor[[b for _, b in expected]])


@given(size=st.integers(2, 9), n_groups=st.integers(1, 3), interleaved=st.booleans(), share=st.floats(0, 1))
def test_no_pair_is_repeated_and_none_crosses_groups(size, n_groups, interleaved, share):
    most = size // 2 + (size - 1) * (size - 2) // 2  # neighbours of the tree, and all with a gap of 2 or more
    n = max(1, round(share * most))
    groups = np.tile(np.arange(n_groups), size) if interleaved else np.repeat(np.arange(n_groups), size)
    bank = initial_bank(TINY, range(size * n_groups)).relabel(group=groups)
    first, second = pairs_of(bank, n)
    assert len(first) == len(second) == n * n_groups
    np.testing.assert_array_equal(first.labels["group"], second.labels["group"])
    np.testing.assert_array_equal(first.labels["group"], np.repeat(np.arange(n_groups), n))
    seeds = list(zip(first.labels["seed"], second.labels["seed"], strict=True))
    assert len({frozenset(pair) for pair in seeds}) == n * n_groups
    assert all(a < b for a, b in seeds)
    with pytest.raises(ValueError, match=f"{most + 1} pairs asked for, {size} networks have {most}"):
        pairs_of(bank, most + 1)


def test_ends_are_the_networks_and_the_middle_is_the_average_without_and_with_matching(curves, pairs, images):
    first, second = pairs
    seeds = [f"lines/{a}-{b}" for a, b in zip(first.labels["seed"], second.labels["seed"], strict=True)]
    aligned = match_weights(first, second, seed=seeds).apply(second)
    for split, part in images.items():
        for alignment, other in (("before", second), ("after", aligned)):
            for weight, bank in ((0.0, first), (0.5, average(first, other)), (1.0, second)):
                found = curves.sel({"split": split, "alignment": alignment, "lambda": weight})
                expected = evaluate(bank, part)
                np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4)
                np.testing.assert_allclose(found.accuracy, expected.accuracy, atol=1 / len(part) + 1e-9)
    barrier = curves.loss_barrier.mean("pair")
    assert (barrier.sel(alignment="after") < barrier.sel(alignment="before")).all()


def test_batch_norm_is_measured_anew_at_every_point(images):
    stream = generator("test/line")
    drawn = torch.randint(256, (2, 40, *SHAPE), dtype=torch.uint8, generator=stream).unbind()
    some = {k: replace(images[k], pixels=x, labels=images[k].labels[:40]) for k, x in zip(images, drawn, strict=True)}
    first, second = (untrained(convolutional).select([position]) for position in (0, 1))
    curves = lines(first, second, some, (0.0, 0.5, 1.0), seed=0, pixels=some["train"].pixels)
    middle = measure_batch_norm(average(first, second), some["train"].pixels)
    for split, part in some.items():
        found = curves.loss.sel({"split": split, "alignment": "before", "lambda": 0.5})
        np.testing.assert_allclose(found, evaluate(middle, part).loss, rtol=1e-5)


def test_barriers_follow_from_the_curves(curves):
    weight = np.array(LAMBDAS)
    for name, sign in (("loss", 1), ("accuracy", -1)):
        values = curves[name].transpose(..., "lambda").values
        chord = values[..., :1] * (1 - weight) + values[..., -1:] * weight
        barrier = curves[f"{name}_barrier"]
        expected = (sign * (values - chord)).max(-1)
        np.testing.assert_allclose(barrier.transpose(*curves[name].dims[:-1]), expected, atol=1e-12)
        assert (barrier >= 0).all()


def test_a_pair_has_a_name_and_does_not_depend_on_the_other_pairs(curves, pairs, images):
    fewer = lines(*(bank.select([4, 2]) for bank in pairs), images, LAMBDAS, seed="lines")
    for name in fewer.data_vars:
        np.testing.assert_allclose(fewer[name], curves[name].isel(pair=[4, 2]), rtol=1e-4, atol=1 / 60 + 1e-9)
    assert fewer.pair.values.tolist() == ["pair/0-2", "pair/4-5"]
    assert curves.pair.values.tolist() == ["pair/0-1", "pair/2-3", "pair/4-5", "pair/6-7", "pair/0-2", "pair/1-3"]
    assert (curves["first"].values.tolist(), curves["second"].values.tolist()) == (
        [0, 2, 4, 6, 0, 1],
        [1, 3, 5, 7, 2, 3],
    )
    assert curves.group.values.tolist() == [0] * 6


def test_with_the_same_order_both_choices_agree_exactly(choice):
    same = choice.choice_accuracy.sel(order="same")
    np.testing.assert_array_equal(same.sel(permuted="first"), same.sel(permuted="second"))
    # layer orders matter on three hidden layers: at least one of the six pairs ends in another minimum
    assert (choice.choice_accuracy != same.sel(permuted="second")).any()


@pytest.mark.parametrize("order", ["same", "other"])
def test_the_choice_by_hand(choice, pairs, test_images, order):
    first, second = pairs
    for permuted, (fixed, moving) in {"second": (first, second), "first": (second, first)}.items():
        stream = "choice/same" if order == "same" else f"choice/other/{permuted}"
        seeds = [f"{stream}/group-0/stage-1/node-{node}" for node in range(6)]
        aligned = match_weights(fixed, moving, seed=seeds).apply(moving)
        expected = evaluate(average(fixed, aligned), test_images).accuracy
        found = choice.choice_accuracy.sel(order=order, permuted=permuted)
        np.testing.assert_allclose(found, expected, atol=1 / len(test_images) + 1e-9)  # one borderline image


def test_a_line_needs_both_ends(pairs, test_images):
    with pytest.raises(ValueError, match=r"needs lambda = 0 and 1, got \[0.0, 0.5\]"):
        lines(*pairs, {"test": test_images}, (0.0, 0.5), seed=0)
