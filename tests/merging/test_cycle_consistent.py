"""C2M3 against brute force, dense matrices and finite differences."""

import itertools

import numpy as np
import pytest
import torch

from hrebasin import Bank, merge_many, mlp
from hrebasin.merging.cycle_consistent import _climb, _Network, match_cycle_consistent
from hrebasin.merging.methods import MERGES
from hrebasin.symmetry.blocks import blocks_of
from other_networks import KINDS, SHAPE, untrained


def drawn(widths, n: int, seed: int) -> Bank:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = {"n_classes": 3, "image_shape": (1, 2, 2), "mean": [0.5], "std": [0.25]}
        return Bank.stack([mlp(widths, **shape) for _ in range(n)])


def pairs(bank: Bank, permutations) -> float:
    """The sum of inner products of all pairs, one by one."""
    permuted = bank.architecture.symmetry.apply(bank.tensors, permutations)
    flat = torch.cat([permuted[name].double().flatten(1) for name in bank.architecture.parameters], dim=1)
    return sum(float(flat[i] @ flat[j]) for i, j in itertools.combinations(range(len(bank)), 2))


def brute_force(bank: Bank) -> float:
    """The largest sum; the first network stays, for only relative orders count."""
    sizes = bank.architecture.symmetry.permutations
    orders = [dict(zip(sizes, each, strict=True))
              for each in itertools.product(*(itertools.permutations(range(n)) for n in sizes.values()))]  # fmt: skip
    found = []
    for others in itertools.product(orders, repeat=len(bank) - 1):
        every = [orders[0], *others]
        found.append(pairs(bank, {name: torch.tensor([order[name] for order in every]) for name in sizes}))
    return max(found)


@pytest.mark.parametrize(("widths", "n", "seeds", "least"), [((5,), 2, 3, 3), ((3, 3), 2, 6, 4), ((4,), 3, 3, 2)])
def test_tiny_networks_mostly_reach_the_best_of_all_permutations_and_two_of_one_layer_always(widths, n, seeds, least):
    reached = 0
    for seed in range(seeds):
        bank = drawn(widths, n, seed)
        found, best = pairs(bank, match_cycle_consistent(bank).permutations), brute_force(bank)
        assert found <= best + 1e-5
        reached += found >= best - 1e-5
    assert reached >= least


def dense(network: _Network, tensors) -> torch.Tensor:
    """All blocks of a network with its matrices multiplied along their axes, flat in float64."""
    parts = []
    for block in network.blocks:
        x = tensors[block.tensor][block.where].reshape(block.shape).double()
        for axis, name in block.moved.items():
            x = torch.tensordot(network.matrices[name].double(), x, dims=([1], [axis])).movedim(0, axis)
        parts.append(x.flatten())
    return torch.cat(parts)


def objective(networks, rows) -> float:
    each = [dense(network, row) for network, row in zip(networks, rows, strict=True)]
    return sum(float(a @ b) for a, b in itertools.combinations(each, 2))


def total(networks) -> list[torch.Tensor]:
    """The blocks of all networks, summed."""
    return [sum(network.whole(k) for network in networks) for k in range(len(networks[0].blocks))]


@pytest.fixture(params=["mlp", *KINDS], ids=lambda p: getattr(p, "__name__", p))
def part_way(request, trained):
    """Networks after two steps and a third of one more, and their parameters."""
    bank = trained.select(slice(3)) if request.param == "mlp" else untrained(request.param, 3)
    symmetry, parameters = bank.architecture.symmetry, bank.architecture.parameters
    rows = [{name: bank.tensors[name][k] for name in parameters} for k in range(len(bank))]
    networks = [_Network(row, blocks_of(symmetry, parameters), symmetry) for row in rows]
    objectives = []
    assert not _climb(networks, objectives, 2, 0.0)
    assert objectives[-1] == pytest.approx(objective(networks, rows), rel=1e-5)
    summed = total(networks)
    for network in networks:
        network.aim(summed)
        network.step(1 / 3, [network.terms(k) for k in range(len(network.blocks))])
    return networks, rows


def test_matrices_are_doubly_stochastic_and_applied(part_way):
    networks, rows = part_way
    soft = 0
    for network, row in zip(networks, rows, strict=True):
        for matrix in network.matrices.values():
            torch.testing.assert_close(matrix.sum(0), torch.ones(len(matrix)))
            torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))
            soft += int(((matrix > 0.01) & (matrix < 0.99)).sum())
        whole = torch.cat([network.whole(k).flatten() for k in range(len(network.blocks))])
        torch.testing.assert_close(whole.double(), dense(network, row), rtol=1e-4, atol=1e-5)
    assert soft


def test_the_gradient_is_that_of_finite_differences(part_way):
    networks, rows = part_way
    summed = total(networks)
    stream = torch.Generator().manual_seed(0)
    for network in networks:
        for name, gradient in network.gradient(summed).items():
            matrix, direction = network.matrices[name], torch.randn(gradient.shape, generator=stream)
            values = []
            for size in (1e-3, -1e-3):
                network.matrices[name] = (matrix + size * direction).double()
                values.append(objective(networks, rows))
            network.matrices[name] = matrix
            expected = (values[0] - values[1]) / 2e-3
            assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_step_is_as_long_as_is_best(part_way):
    networks, rows = part_way
    objectives = []
    before = [{name: matrix.clone() for name, matrix in network.matrices.items()} for network in networks]
    _climb(networks, objectives, 1, 0.0)
    for t in np.linspace(0, 1, 21):
        for network, start in zip(networks, before, strict=True):
            for name, matrix in start.items():
                aim = torch.zeros_like(matrix)
                aim[torch.arange(len(aim)), network.towards[name]] = 1
                network.matrices[name] = (1 - t) * matrix + t * aim
        assert objective(networks, rows) <= objectives[-1] + 1e-5 * abs(objectives[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_any_network_keeps_its_logits_and_the_objective_never_falls(kind):
    bank = untrained(kind, 3)
    found = match_cycle_consistent(bank)
    assert found.converged
    assert (np.diff(found.objectives) >= 0).all()
    assert len(found.objectives) > 2
    permuted = bank.architecture.symmetry.apply(bank.tensors, found.permutations)
    inputs = torch.rand(3, *SHAPE)
    ours = Bank(bank.architecture, permuted, bank.labels)(inputs)
    torch.testing.assert_close(ours, bank(inputs), rtol=1e-4, atol=1e-4)


def test_it_brings_networks_about_as_near_as_merge_many(trained):
    merged, many = MERGES["cycle-consistent"](trained), merge_many(trained)
    ours, theirs, plain = (
        float(bank.history.pairwise_distance[0]) for bank in (merged, many, MERGES["naive"](trained))
    )
    assert ours < 1.05 * theirs < plain
    assert merged.history.converged.item() == 1
    cut = match_cycle_consistent(trained, max_steps=2)
    assert not cut.converged
    assert len(cut.objectives) == 3


def test_what_cannot_be_aligned_is_refused(trained):
    with pytest.raises(ValueError, match=r"C2M3 needs at least 2 networks with permutations, got Bank.1 unmerged"):
        match_cycle_consistent(trained.select([0]))
    for factor in (1e19, 1e25):  # at first the gains are finite and only the objective is not
        huge = Bank(trained.architecture, {name: tensor * factor for name, tensor in trained.tensors.items()})
        with pytest.raises(ValueError, match=r"fc\d.weight of .* holds weights of .*too large to match"):
            match_cycle_consistent(huge)
