import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrebasin.symmetry import Symmetry, axis_size
from hrebasin.symmetry.factors import Factors, concatenation, fixed


def moved_alike(factors, first, second):
    """Whether random permutations of all that is unknown move two axes alike."""
    axes = {"a": (factors.resolve(first),), "b": (factors.resolve(second),)}
    sizes = {f.name: f.size for (axis,) in axes.values() for segment in axis for f in segment if f.name is not None}
    symmetry = Symmetry(sizes, axes)
    permutations = symmetry.random_permutations(torch.Generator().manual_seed(0))
    return torch.equal(*(symmetry.expand(axis, permutations) for (axis,) in axes.values()))


def names(factors, axis):
    return {f.name for segment in factors.resolve(axis) for f in segment if f.name is not None}


@pytest.fixture
def factors():
    return Factors()


def test_a_fixed_axis_fixes_the_other_and_products_without_a_common_refinement_are_fixed(factors):
    a, b = factors.new(12), factors.new(24)
    parts = factors.factorise(a, [3, 4])
    factors.tie(fixed(12), a)
    assert names(factors, a) == names(factors, parts[0]) == set()
    factors.factorise(b, [4, 6])
    factors.factorise(b, [6, 4])
    assert names(factors, b) == set()


def test_repeated_concatenations(factors):
    pieces = concatenation([factors.new(2), factors.new(3)])
    counted = factors.product([fixed(3), pieces])
    assert len(factors.resolve(counted)) == 6
    heads = factors.new(3)
    assert moved_alike(factors, factors.product([heads, pieces]), counted)
    assert names(factors, heads) == set()  # a concatenation in every head: heads stay, their units move
    assert axis_size(factors.product([fixed(1000), pieces])) == 5000
    assert names(factors, pieces) == set()  # what would be too long is fixed


def test_sizes_must_agree(factors):
    with pytest.raises(ValueError, match="axes of 3 and 4 units"):
        factors.tie(fixed(3), fixed(4))


def build(factors, kind, shared):
    """An axis of 24 units."""
    new, product = factors.new, factors.product
    return {
        "new": lambda: new(24),
        "halves": lambda: concatenation([new(8), shared["sixteen"]]),
        "product": lambda: product([shared["four"], new(6)]),
        "shared": lambda: product([shared["four"], shared["six"]]),
        "fixed first": lambda: concatenation([fixed(6), new(18)]),
        "repeat": lambda: concatenation([shared["six"], shared["six"], new(12)]),
        "nested": lambda: product([shared["six"], concatenation([new(1), new(3)])]),
    }[kind]()


KINDS = st.sampled_from(["new", "halves", "product", "shared", "fixed first", "repeat", "nested"])


@given(st.lists(st.tuples(KINDS, KINDS), min_size=1, max_size=4))
def test_whatever_is_tied_is_moved_alike(pairs):
    factors = Factors()
    shared = {"four": factors.new(4), "six": factors.new(6), "sixteen": factors.new(16)}
    tied = []
    for pair in pairs:
        tied.append([build(factors, kind, shared) for kind in pair])
        factors.tie(*tied[-1])
    for first, second in tied:
        assert moved_alike(factors, first, second)
