import time
from functools import partial

import numpy as np
import pytest
import xarray as xr

from hrebasin.networks import Architecture
from hrebasin.study.benchmarks import growth
from hrebasin.study.benchmarks import speed as benchmarks
from hrebasin.study.benchmarks.cycle_consistent import GOALS, exponents
from hrebasin.study.benchmarks.plots import goals
from hrebasin.study.benchmarks.speed import Row, compare, training_operations

TINY = Architecture((5, 4), 3, (3, 2, 2), (0.5,) * 3, (0.25,) * 3)


class FakeClock:
    """Time that passes only when work is done."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, durations, result):
        durations = iter(durations)

        def run():
            self.now += next(durations)
            return result

        return run

    def row(self, ours, other):
        ours, other = self.work(ours, 5.0), self.work(other, 7.5)
        return Row("ours", "theirs", ours, other, lambda a, b: b - a, "of numbers", 2.0)


def test_ratios_are_of_medians_and_ranges_over_repeats_and_training_has_a_rate(monkeypatch):
    monkeypatch.setattr(benchmarks, "time", clock := FakeClock())
    rows = {"training-float32": clock.row([1, 2, 3], [20, 10, 30]), "b": clock.row([4, 4, 4], [2, 2, 2])}
    result = compare(rows, repeats=3)
    np.testing.assert_array_equal(result.seconds.isel(row=0), [[1, 2, 3], [20, 10, 30]])
    np.testing.assert_allclose(result.ratio, [20 / 2, 0.5])
    np.testing.assert_allclose(result.ratio_low, [5, 0.5])
    np.testing.assert_allclose(result.ratio_high, [20, 0.5])
    np.testing.assert_allclose(result.difference, [2.5, 2.5])
    monkeypatch.undo()  # the best matrix product takes real time
    monkeypatch.setattr(benchmarks, "product_rate", partial(benchmarks.product_rate, repeats=3))
    rated = benchmarks.with_rates(result, TINY, 10**9)
    np.testing.assert_allclose(rated.rate, [2 * 216 / 2, np.nan])  # GFLOP/s, in the median of 2 s
    assert rated.share[0] > 0
    assert np.isnan(rated.share[1])


def test_operations_of_training_by_hand():
    # 12-5-4-3: forward 12*5 + 5*4 + 4*3, gradients of all weights, gradients of the inputs but the first
    products = (60 + 20 + 12) + (60 + 20 + 12) + (20 + 12)
    assert training_operations(TINY, 10) == 2 * 10 * products


def test_lines_tell_slope_and_bend():
    n = np.array([16, 32, 64, 128])
    times = np.stack([0.5 * n + 2, 0.5 * n + 2])[:, None]
    times[1, 0, 0] = np.nan  # not measured: the line goes through the others
    times[0, 0, 3] += 33
    points = growth.dataset(times, 0 * times + 5, sizes=["small", "full"], stages=["merge"], counts=n)
    lines = growth.straight_lines(points)
    assert lines.slope_seconds[1, 0] == pytest.approx(0.5)
    assert lines.bend[1, 0] == pytest.approx(0, abs=1e-12)
    assert lines.bend[0, 0] > 0.03
    np.testing.assert_allclose(lines.slope_memory, 0, atol=1e-12)


def test_a_straight_line_and_a_square_are_told_apart():
    sizes = np.array(list(GOALS), dtype=float)
    seconds = np.stack([0.3 * sizes, 0.2 * sizes**2], axis=1)[:, :, None] * [1, 1, 9]  # one repeat was disturbed
    data = xr.Dataset(
        {"seconds": (("row", "side", "repeat"), seconds), "ratio": ("row", [1.0] * 4), "goal": ("row", [1.0] * 4)},
        coords={"row": [f"cycle-consistent-{size:.0f}" for size in sizes], "title": ("row", ["C2M3"] * 4)},
    )
    assert exponents(data) == pytest.approx((1, 2))
    assert goals(data).endswith("C2M3's time grows as n^1. That of its published procedure grows as n^2.\n")
    assert exponents(data.isel(row=[0])) is None


def test_peak_memory_is_that_of_the_block():
    with growth.PeakMemory() as peak:
        block = np.ones(40_000_000)  # 320 MB, gone before the end
        time.sleep(0.05)
        del block
    assert 300e6 < peak.bytes < 600e6


def test_what_cannot_be_measured_is_refused(trained, train_images, test_images):
    for call, message in (
        (lambda: compare({}, repeats=0), "repeats must be at least 1, got 0"),
        (lambda: benchmarks.rows(trained, train_images, test_images, None), "16 networks, got 8"),
        (lambda: growth.scaling({"small": [8]}, train_images), r"multiples of 16, got \[8\]"),
        (lambda: growth.scaling({"small": [16]}, train_images, stages=["tree"]), r"unknown stages \['tree'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
