import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin import Architecture, match_weights
from hrebasin.random_streams import generator
from hrebasin.training.run import initial_bank

SMALL = Architecture((3, 3), 3, (1, 2, 2), (0.5,), (0.25,))


def permute_by_hand(bank, k, permutations):
    """Network k with its units in a given order, in float64 NumPy; permutations of all hidden layers."""
    weights = {name: tensor[k].double().numpy() for name, tensor in bank.tensors.items()}
    for number, perm in enumerate(permutations, start=1):
        weights[f"fc{number}.weight"] = weights[f"fc{number}.weight"][perm]
        weights[f"fc{number}.bias"] = weights[f"fc{number}.bias"][perm]
        weights[f"fc{number + 1}.weight"] = weights[f"fc{number + 1}.weight"][:, perm]
    return weights


def inner_product(reference, moving, k, permutations):
    """<A, pi(B)> over all parameters, float64."""
    permuted = permute_by_hand(moving, k, permutations)
    return sum((reference.tensors[name][k].double().numpy() * w).sum() for name, w in permuted.items())


def permutations_of(alignment, k):
    return [alignment.permutations[name][k].numpy() for name in sorted(alignment.permutations)]


def pair(architecture, n=2):
    """Reference and moving networks, untrained."""
    return initial_bank(architecture, range(n)), initial_bank(architecture, range(n, 2 * n))


@pytest.fixture(scope="module")
def halves(trained):
    return trained.select(slice(0, 4)), trained.select(slice(4, 8))


@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    image_shape=st.sampled_from([(1, 2, 2), (3, 4, 4)]),
    n=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_an_aligned_network_is_the_same_function(widths, image_shape, n, seed):
    channels = image_shape[0]
    architecture = Architecture(tuple(widths), 3, image_shape, (0.5,) * channels, (0.25,) * channels)
    reference, moving = pair(architecture, n)
    pixels = torch.rand(7, *image_shape, generator=generator("test/pixels"))
    alignment = match_weights(reference, moving, seed=seed)
    torch.testing.assert_close(alignment.apply(moving)(pixels), moving(pixels), rtol=1e-4, atol=1e-5)
    identity = [np.arange(width) for width in widths]
    for k in range(n):
        found = permutations_of(alignment, k)
        assert [sorted(perm) for perm in found] == [list(range(width)) for width in widths]
        expected = inner_product(reference, moving, k, found)
        assert alignment.objective[k].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert alignment.objective[k] >= inner_product(reference, moving, k, identity) - 1e-9


def test_apply_permutes_as_written_by_hand_and_the_inverse_takes_back(trained, random_permutations):
    alignment = random_permutations(trained, "apply")
    aligned = alignment.apply(trained)
    for k in range(len(trained)):
        for name, expected in permute_by_hand(trained, k, permutations_of(alignment, k)).items():
            np.testing.assert_array_equal(aligned.tensors[name][k], expected)
    assert (aligned.labels["seed"] == trained.labels["seed"]).all()
    back = alignment.inverse().apply(aligned)
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in trained.tensors.items())


def test_one_hidden_layer_gets_the_global_optimum():
    reference, moving = pair(replace(SMALL, widths=(5,)), 6)
    alignment = match_weights(reference, moving)
    for k in range(6):
        best = max(inner_product(reference, moving, k, [list(p)]) for p in itertools.permutations(range(5)))
        assert alignment.objective[k].item() == pytest.approx(best, rel=1e-6)


def test_two_hidden_layers_get_a_local_optimum():
    reference, moving = pair(SMALL, 20)
    alignment, best = match_weights(reference, moving), []
    everything = [list(p) for p in itertools.permutations(range(3))]
    for k in range(20):
        first, second = permutations_of(alignment, k)
        value = inner_product(reference, moving, k, [first, second])
        slack = 1e-6 * abs(value)
        for other in everything:  # no layer alone can gain
            assert inner_product(reference, moving, k, [other, second]) <= value + slack
            assert inner_product(reference, moving, k, [first, other]) <= value + slack
        globally = max(inner_product(reference, moving, k, [p, q]) for p in everything for q in everything)
        best.append(value >= globally - slack)
    assert np.mean(best) >= 0.5  # a local optimum is often the global one on 36 candidates


@pytest.mark.parametrize("name", ["shallow", "architecture"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_planted_permutation_is_matched(request, random_permutations, name, noise):
    reference, stream = initial_bank(request.getfixturevalue(name), range(8)), generator("test/noise")
    planted = random_permutations(reference, "planted")
    moving = planted.apply(reference)
    noisy = {
        key: t + noise * t.std() * torch.empty(t.shape).normal_(generator=stream) for key, t in moving.tensors.items()
    }
    moving = replace(moving, tensors=noisy)
    alignment = match_weights(reference, moving)
    for k in range(8):
        expected = inner_product(reference, moving, k, permutations_of(planted.inverse(), k))
        assert alignment.objective[k].item() >= expected * (1 - 1e-6)


def test_the_objective_never_falls_with_more_sweeps(halves):
    reference, moving = halves
    runs = [match_weights(reference, moving, max_sweeps=limit) for limit in (1, 2, 3, 100)]
    for fewer, more in itertools.pairwise(runs):
        assert (more.objective >= fewer.objective - 1e-9).all()
    assert (runs[0].sweeps == 1).all()
    assert (runs[-1].sweeps < 100).all()
    # a converged result is a fixed point: one more matching finds nothing to gain
    again = match_weights(reference, runs[-1].apply(moving), seed="again")
    for perm in again.permutations.values():
        assert torch.equal(perm, torch.arange(perm.shape[1]).expand(4, -1))
    assert (again.sweeps == 1).all()


def test_the_bias_takes_part_in_matching_but_not_that_of_the_output():
    # equal weights: only the biases tell the units apart
    reference, _ = pair(replace(SMALL, widths=(3,)), 1)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in reference.tensors.items()}
    a = replace(reference, tensors=tensors | {"fc1.bias": torch.tensor([[1.0, 2.0, 3.0]])})
    b = replace(reference, tensors=tensors | {"fc1.bias": torch.tensor([[3.0, 1.0, 2.0]])})
    assert match_weights(a, b).permutations["P1"].tolist() == [[1, 2, 0]]
    reference, moving = pair(SMALL, 3)
    other = replace(moving, tensors=moving.tensors | {"fc3.bias": moving.tensors["fc3.bias"].flip(1) * 7})
    found, same = match_weights(reference, moving), match_weights(reference, other)
    torch.testing.assert_close(found.permutations, same.permutations)


@pytest.mark.parametrize("exponent", [-70, -40, 10])
def test_scale_does_not_matter(halves, exponent):
    plain = match_weights(*halves)
    # a power of two, so float32 scales exactly
    scaled = (replace(b, tensors={n: t * 2.0**exponent for n, t in b.tensors.items()}) for b in halves)
    alignment = match_weights(*scaled)
    torch.testing.assert_close(plain.permutations, alignment.permutations)
    torch.testing.assert_close(alignment.objective, plain.objective * 4.0**exponent)
    assert torch.equal(alignment.sweeps, plain.sweeps)


def test_a_pair_does_not_depend_on_its_company_but_on_its_seed(trained, halves):
    reference, moving = halves
    seeds = ["a", "b", 3, 4]
    together = match_weights(reference, moving, seed=seeds)
    for k, order in ((0, [0]), (3, [3, 1, 2])):
        company = match_weights(reference.select(order), moving.select(order), seed=[seeds[i] for i in order])
        alone, same = permutations_of(company, 0), permutations_of(together, k)
        assert all(map(np.array_equal, alone, same))
        assert company.sweeps[0] == together.sweeps[k]
        assert company.objective[0].item() == pytest.approx(together.objective[k].item(), rel=1e-12)
    index = list(itertools.permutations(range(8), 2))[:20]
    reference, moving = trained.select([i for i, _ in index]), trained.select([j for _, j in index])
    first, each, other = (match_weights(reference, moving, seed=seed) for seed in (1, [1] * len(index), 2))
    torch.testing.assert_close(first.permutations, each.permutations)  # one seed for all is that seed for each
    assert any((perm != other.permutations[name]).any() for name, perm in first.permutations.items())
