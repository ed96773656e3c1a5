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


def best_by_brute_force(gains):
    rows = np.arange(len(gains))
    return max(gains[rows, list(perm)].sum() for perm in itertools.permutations(range(len(gains))))


def assert_optimal(gains, permutation, best):
    assert permutation.dtype == np.int64
    assert sorted(permutation) == list(range(len(gains)))
    # rounding in float64 sums of n terms, relative to the largest entry
    assert value(gains, permutation) == pytest.approx(best, rel=0, abs=1e-12 * len(gains) * np.abs(gains).max())


def matrices(kind, rng, n):
    if kind == "random":
        return rng.normal(size=(n, n))
    if kind == "tied":
        return rng.integers(0, 3, size=(n, n)).astype(float)
    if kind == "constant":
        return np.full((n, n), 0.1)
    if kind == "negative":
        return -rng.random((n, n)) - 5
    if kind == "large":
        return rng.normal(size=(n, n)) * 1e6
    if kind == "mixed":
        return rng.normal(size=(n, n)) * 10.0 ** rng.integers(-6, 7, size=(n, n))
    return np.outer(rng.normal(size=n), rng.normal(size=n))  # rank one


KINDS = ["random", "tied", "constant", "negative", "large", "mixed", "rank-deficient"]


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 12), number=st.integers(0, 2**32 - 1))
def test_the_optimum_is_scipys(kind, n, number):
    gains = matrices(kind, np.random.default_rng(number), n)
    assert_optimal(gains, assign(gains[None])[0][0], best_by_scipy(gains))


@given(data=st.data(), n=st.integers(1, 6))
def test_the_optimum_is_that_of_brute_force(data, n):
    entries = st.floats(-1e6, 1e6) | st.integers(-2, 2).map(float)
    gains = np.array(data.draw(st.lists(entries, min_size=n * n, max_size=n * n))).reshape(n, n)
    assert_optimal(gains, assign(gains[None])[0][0], best_by_brute_force(gains))


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 12), number=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1.0, 1e3]))
def test_any_start_and_prices_lead_to_the_same_optimum(kind, n, number, scale):
    rng = np.random.default_rng(number)
    gains = matrices(kind, rng, n)
    prices = rng.normal(size=(1, n)) * scale * np.abs(gains).max()
    start = rng.permutation(n)[None]
    kept = gains.copy(), start.copy(), prices.copy()
    permutations, _ = assign(gains[None], start, prices)
    # prices of size s cost as many digits as they have above the gains
    slack = 1e-12 * n * max(1.0, scale) * np.abs(gains).max()
    assert value(gains, permutations[0]) == pytest.approx(best_by_scipy(gains), rel=0, abs=slack)
    for now, before in zip((gains, start, prices), kept, strict=True):
        np.testing.assert_array_equal(now, before)


@given(n=st.integers(1, 12), number=st.integers(0, 2**32 - 1))
def test_a_start_may_leave_rows_open_or_name_a_column_twice(n, number):
    rng = np.random.default_rng(number)
    gains = rng.normal(size=(1, n, n))
    permutations, _ = assign(gains, rng.integers(-1, n, size=(1, n)))
    assert_optimal(gains[0], permutations[0], best_by_scipy(gains[0]))


def test_prices_prove_the_optimum():
    # dual feasibility and complementary slackness: no row prefers another column at these prices
    gains = np.random.default_rng(0).normal(size=(3, 9, 9))
    permutations, prices = assign(gains)
    profit = gains + prices[:, None, :]
    chosen = np.take_along_axis(profit, permutations[..., None], axis=2)
    assert (profit <= chosen + 1e-12).all()


def test_an_optimal_start_with_its_prices_is_kept():
    gains = np.random.default_rng(1).integers(0, 3, size=(4, 8, 8)).astype(float)  # ties: many optima
    permutations, prices = assign(gains)
    again, _ = assign(gains, permutations, prices)
    np.testing.assert_array_equal(again, permutations)


def test_a_slightly_changed_problem_from_the_last_solution():
    rng = np.random.default_rng(2)
    gains = rng.normal(size=(2, 30, 30))
    permutations, prices = assign(gains)
    for _ in range(5):
        gains = gains + 0.1 * rng.normal(size=gains.shape)
        permutations, prices = assign(gains, permutations, prices)
        for problem, permutation in zip(gains, permutations, strict=True):
            assert_optimal(problem, permutation, best_by_scipy(problem))


def test_several_problems_at_once_equal_one_by_one():
    rng = np.random.default_rng(3)
    gains = np.stack([matrices(kind, rng, 10) for kind in KINDS])
    start, prices = rng.permuted(np.tile(np.arange(10), (len(gains), 1)), axis=1), rng.normal(size=(len(gains), 10))
    together = assign(gains, start, prices)
    for k in range(len(gains)):
        alone = assign(gains[k, None], start[k, None], prices[k, None])
        np.testing.assert_array_equal(together[0][k], alone[0][0])
        np.testing.assert_array_equal(together[1][k], alone[1][0])


@pytest.mark.parametrize("change", [lambda g: g.transpose(0, 2, 1), lambda g: g[:, ::-1], lambda g: g.astype("f4")])
def test_the_memory_layout_and_type_do_not_matter(change):
    gains = change(np.random.default_rng(4).normal(size=(2, 9, 9)))
    for problem, permutation in zip(gains.astype(float), assign(gains)[0], strict=True):
        assert_optimal(problem, permutation, best_by_scipy(problem))


ZEROS = np.zeros((1, 3, 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((ZEROS + np.nan,), "gains must be finite"),
        ((ZEROS - np.inf,), "gains must be finite"),
        ((ZEROS, None, np.array([[0, np.inf, 0]])), "prices must be finite"),
        ((ZEROS[0],), r"\(problem, unit, unit\), got \(3, 3\)"),
        ((np.zeros((1, 3, 4)),), r"got \(1, 3, 4\)"),
        ((ZEROS, np.zeros((1, 2))), r"start \(1, 2\)"),
        ((ZEROS, None, np.zeros((2, 3))), r"prices \(2, 3\)"),
        ((ZEROS, np.array([[0, 3, 1]])), "got 3"),
        ((ZEROS, np.array([[0, -2, 1]])), "got -2"),
    ],
)
def test_what_is_no_problem_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        assign(*given)


# ---- whatever comes in

EXTREMES = [1.7e308, -1.7e308, 1e300, -1e300, 1.0, -1.0, 0.0, -0.0, 5e-324, 1e-300]


@given(data=st.data(), n=st.integers(0, 6), problems=st.integers(0, 3))
def test_any_finite_numbers_give_permutations(data, n, problems):
    def draw(*shape):
        entries = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EXTREMES)
        size = int(np.prod(shape))
        return np.array(data.draw(st.lists(entries, min_size=size, max_size=size))).reshape(shape)

    gains = draw(problems, n, n)
    start = np.array(data.draw(st.lists(st.integers(-1, max(n - 1, -1)), min_size=problems * n, max_size=problems * n)))
    prices = draw(problems, n)
    for given_too in ((), (start.reshape(problems, n).astype(np.int64), prices)):
        permutations, found = assign(gains, *given_too)
        assert np.isfinite(found).all()
        for problem, permutation in zip(gains, permutations, strict=True):
            assert sorted(permutation) == list(range(n))
            if n and not given_too:  # prices cost as many digits as they have above the gains
                unit = max(np.abs(problem).max(), 1.0)
                assert value(problem / unit, permutation) >= best_by_scipy(problem / unit) - 1e-9 * n


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_gains_and_prices_that_are_not_finite_are_refused(bad):
    gains = np.zeros((2, 3, 3))
    gains[1, 0, 2] = bad
    with pytest.raises(ValueError, match="gains must be finite"):
        assign(gains)
    if np.finfo(np.longdouble).max > np.finfo(float).max:
        with pytest.raises(ValueError, match="gains must be finite"), np.errstate(over="ignore"):
            assign(np.full((1, 2, 2), np.longdouble("1e400")))
    with pytest.raises(ValueError, match="prices must be finite"):
        assign(np.zeros((2, 3, 3)), prices=gains[:, 0])


# ---- what Numba keeps on disk


@pytest.fixture
def add(tmp_path, monkeypatch):
    """``add()``: the sum of 1 and 2 by a function that is compiled as `assign` is, in a module that was just loaded."""
    (tmp_path / "kept.py").write_text("def add(a, b):\n    return a + b\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)

    def call():
        monkeypatch.delitem(sys.modules, "kept", raising=False)
        return Compiled(importlib.import_module("kept").add)(1, 2)

    return call


def test_a_damaged_cache_is_left_aside_with_a_warning_that_names_it(add, tmp_path):
    assert add() == 3
    kept = sorted((tmp_path / "__pycache__").glob("kept.add*"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for path in kept:
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"\x80\x04garbage"):
            path.write_bytes(damage)
            with pytest.warns(
                UserWarning, match=rf"compiled code in {re.escape(str(tmp_path))}.* is left aside"
            ) as told:
                assert add() == 3
            assert len(told) == 1
        path.write_bytes(whole)
    assert add() == 3


def test_no_cache_is_needed(add, monkeypatch):
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.warns(UserWarning, match=r"code of kept cannot be used and is left aside: cannot cache function 'add'"):
        assert add() == 3
