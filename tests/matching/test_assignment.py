import importlib
import itertools
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from hrebasin.compiled import Compiled
from hrebasin.matching.assignment import assign


def value(gains, permutation):
    return np.take_along_axis(gains, permutation[:, None], axis=1).sum()


def best_by_scipy(gains):
    return gains[linear_sum_assignment(gains, maximize=True)].sum()


def assert_optimal(gains, permutation, best=None, *, digits=1.0):
    assert permutation.dtype == np.int64
    assert sorted(permutation) == list(range(len(gains)))
    # rounding in float64 sums of n terms, relative to the largest entry
    slack = 1e-12 * digits * len(gains) * np.abs(gains).max()
    assert value(gains, permutation) == pytest.approx(best_by_scipy(gains) if best is None else best, rel=0, abs=slack)


MATRICES = {
    "random": lambda rng, n: rng.normal(size=(n, n)),
    "tied": lambda rng, n: rng.integers(0, 3, size=(n, n)).astype(float),
    "constant": lambda rng, n: np.full((n, n), 0.1),
    "negative": lambda rng, n: -rng.random((n, n)) - 5,
    "mixed": lambda rng, n: rng.normal(size=(n, n)) * 10.0 ** rng.integers(-6, 7, size=(n, n)),
    "rank one": lambda rng, n: np.outer(rng.normal(size=n), rng.normal(size=n)),
    "transposed": lambda rng, n: rng.normal(size=(n, n)).T,
    "backwards": lambda rng, n: rng.normal(size=(n, n))[::-1],
}


@pytest.mark.parametrize("kind", MATRICES)
@given(n=st.integers(1, 12), number=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_any_start_and_prices_lead_to_the_optimum_of_scipy(kind, n, number, scale):
    rng = np.random.default_rng(number)
    gains = MATRICES[kind](rng, n)
    assert_optimal(gains, assign(gains[None])[0][0])
    prices, start = rng.normal(size=(1, n)) * scale * np.abs(gains).max(), rng.permutation(n)[None]
    kept = gains.copy(), start.copy(), prices.copy()
    # prices of size s cost as many digits as they have above the gains
    assert_optimal(gains, assign(gains[None], start, prices)[0][0], digits=max(1.0, scale))
    for now, before in zip((gains, start, prices), kept, strict=True):
        np.testing.assert_array_equal(now, before)
    # a start may leave rows open, or name a column twice
    assert_optimal(gains, assign(gains[None], rng.integers(-1, n, size=(1, n)))[0][0])


@given(data=st.data(), n=st.integers(1, 6))
def test_the_optimum_is_that_of_brute_force(data, n):
    entries = st.floats(-1e6, 1e6) | st.integers(-2, 2).map(float)
    gains = np.array(data.draw(st.lists(entries, min_size=n * n, max_size=n * n))).reshape(n, n)
    best = max(gains[np.arange(n), list(perm)].sum() for perm in itertools.permutations(range(n)))
    assert_optimal(gains, assign(gains[None])[0][0], best)


def test_prices_prove_the_optimum_which_is_kept_and_float32_is_taken():
    gains = np.random.default_rng(1).integers(0, 3, size=(4, 8, 8)).astype("f4")  # ties: many optima
    permutations, prices = assign(gains)
    # dual feasibility and complementary slackness: no row prefers another column at these prices
    profit = gains + prices[:, None, :]
    assert (profit <= np.take_along_axis(profit, permutations[..., None], axis=2) + 1e-12).all()
    np.testing.assert_array_equal(assign(gains, permutations, prices)[0], permutations)


def test_several_problems_at_once_equal_one_by_one():
    rng = np.random.default_rng(3)
    gains = np.stack([make(rng, 10) for make in MATRICES.values()])
    start, prices = rng.permuted(np.tile(np.arange(10), (len(gains), 1)), axis=1), rng.normal(size=(len(gains), 10))
    together = assign(gains, start, prices)
    for k in range(len(gains)):
        for whole, alone in zip(together, assign(gains[k, None], start[k, None], prices[k, None]), strict=True):
            np.testing.assert_array_equal(whole[k], alone[0])


ZEROS = np.zeros((1, 3, 3))
HUGE = np.longdouble("1e400") if np.finfo(np.longdouble).max > np.finfo(float).max else np.inf  # no float64


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(((ZEROS + bad,), "gains must be finite") for bad in (np.nan, np.inf, -np.inf, HUGE)),
        ((ZEROS, None, np.array([[0, np.inf, 0]])), "prices must be finite"),
        ((ZEROS, None, np.array([[0, np.nan, 0]])), "prices must be finite"),
        ((ZEROS[0],), r"\(problem, unit, unit\), got \(3, 3\)"),
        ((np.zeros((1, 3, 4)),), r"got \(1, 3, 4\)"),
        ((ZEROS, np.zeros((1, 2))), r"start \(1, 2\)"),
        ((ZEROS, None, np.zeros((2, 3))), r"prices \(2, 3\)"),
        ((ZEROS, np.array([[0, 3, 1]])), "got 3"),
        ((ZEROS, np.array([[0, -2, 1]])), "got -2"),
    ],
)
def test_what_is_no_problem_is_refused(given, message):
    with pytest.raises(ValueError, match=message), np.errstate(over="ignore"):
        assign(*given)


EXTREMES = [1.7e308, -1.7e308, 1e300, -1e300, 1.0, -1.0, 0.0, -0.0, 5e-324, 1e-300]
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EXTREMES)


@given(data=st.data(), n=st.integers(0, 6), problems=st.integers(0, 3))
def test_any_finite_numbers_give_permutations(data, n, problems):
    def draw(*shape, entries=FINITE):
        size = int(np.prod(shape))
        return np.array(data.draw(st.lists(entries, min_size=size, max_size=size))).reshape(shape)

    gains, prices = draw(problems, n, n), draw(problems, n)
    start = draw(problems, n, entries=st.integers(-1, max(n - 1, -1))).astype(np.int64)
    for given_too in ((), (start, prices)):
        permutations, found = assign(gains, *given_too)
        assert np.isfinite(found).all()
        for problem, permutation in zip(gains, permutations, strict=True):
            assert sorted(permutation) == list(range(n))
            if n and not given_too:  # prices cost as many digits as they have above the gains
                unit = max(np.abs(problem).max(), 1.0)
                assert value(problem / unit, permutation) >= best_by_scipy(problem / unit) - 1e-9 * n


@pytest.fixture
def add(tmp_path, monkeypatch):
    """``add()``: the sum of 1 and 2 by a function that is compiled as `assign` is, in a module that was just loaded."""
    (tmp_path / "kept.py").write_text("def add(a, b):\n    return a + b\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def call():
        monkeypatch.delitem(sys.modules, "kept", raising=False)
        return Compiled(importlib.import_module("kept").add)(1, 2)

    return call


def test_a_damaged_cache_is_left_aside_with_a_warning_that_names_it_and_none_is_needed(add, tmp_path, monkeypatch):
    assert add() == 3
    kept = sorted((tmp_path / "__pycache__").glob("kept.add*"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    message = rf"compiled code in {re.escape(str(tmp_path))}.* is left aside"
    for path in kept:
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"\x80\x04garbage"):
            path.write_bytes(damage)
            with pytest.warns(UserWarning, match=message) as told:
                assert add() == 3
            assert len(told) == 1
        path.write_bytes(whole)
    assert add() == 3
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.warns(UserWarning, match=r"code of kept cannot be used and is left aside: cannot cache function 'add'"):
        assert add() == 3
