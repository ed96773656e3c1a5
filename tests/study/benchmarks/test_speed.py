import time
from functools import partial

import numpy as np
import pytest

from hrebasin.networks import Architecture
from hrebasin.study import records
from hrebasin.study.benchmarks import growth as scaling
from hrebasin.study.benchmarks import speed as benchmarks
from hrebasin.study.benchmarks.speed import Row, compare, training_operations
from hrebasin.study.figures import registry as figures


class FakeClock:
    """Time that passes only when work is done."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def work(self, durations, result):
        durations = iter(durations)

        def run():
            self.now += next(durations)
            return result

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(benchmarks, "time", clock)
    return clock


def row(clock, ours, other, goal=2.0):
    difference = lambda a, b: b - a  # noqa: E731
    return Row("ours", "theirs", clock.work(ours, 5.0), clock.work(other, 7.5), difference, "of numbers", goal)


def test_ratios_are_of_medians_and_ranges_over_repeats(clock):
    rows = {"a": row(clock, [1, 2, 3], [20, 10, 30]), "b": row(clock, [4, 4, 4], [2, 2, 2])}
    result = compare(rows, repeats=3)
    np.testing.assert_array_equal(result.seconds.sel(row="a"), [[1, 2, 3], [20, 10, 30]])
    np.testing.assert_allclose(result.ratio, [20 / 2, 0.5])
    np.testing.assert_allclose(result.ratio_low, [5, 0.5])
    np.testing.assert_allclose(result.ratio_high, [20, 0.5])
    np.testing.assert_allclose(result.difference, [2.5, 2.5])
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        compare(rows, repeats=0)


def test_operations_of_training_by_hand():
    # 12-5-4-3: forward 12*5 + 5*4 + 4*3, gradients of all weights, gradients of the inputs but the first
    products = (60 + 20 + 12) + (60 + 20 + 12) + (20 + 12)
    assert training_operations(Architecture((5, 4), 3, (3, 2, 2), (0.5,) * 3, (0.25,) * 3), 10) == 2 * 10 * products


def test_sixteen_networks_are_needed(trained, train_images, test_images):
    with pytest.raises(ValueError, match="16 networks, got 8"):
        benchmarks.rows(trained, train_images, test_images, None)


@pytest.fixture(scope="module")
def measured():
    """A benchmark data set with planted times, and real ones of the best matrix product."""
    clock = FakeClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "time", clock)
        rows = {"training-float32": row(clock, [1, 2], [20, 10]), "b": row(clock, [4, 4], [6, 7])}
        comparison = compare(rows, repeats=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmarks, "product_rate", partial(benchmarks.product_rate, repeats=3))
        architecture = Architecture((5, 4), 3, (3, 2, 2), (0.5,) * 3, (0.25,) * 3)
        comparison = benchmarks.with_rates(comparison, architecture, 10**9)
    n = np.array([16, 32])
    times = 0.5 * n[None, None]
    points = scaling.dataset(times, 0 * times + 5, sizes=["small"], stages=["merge"], counts=n)
    lines = scaling.straight_lines(points)
    return comparison.merge(points).merge(lines).assign_attrs(data_source="planted", device="cpu")


def test_training_has_a_rate_and_its_share_of_the_machine(measured):
    assert measured.rate.sel(row="training-float32") == pytest.approx(2 * 216 / 1.5)  # GFLOP/s, median of 1 and 2 s
    assert measured.share.sel(row="training-float32") > 0
    assert np.isnan(measured.rate.sel(row="b"))
    assert np.isnan(measured.share.sel(row="b"))


def test_benchmarks_are_a_stage_like_others_and_are_drawn(measured, tmp_path):
    records.write(measured, tmp_path / "benchmarks.nc", stage="benchmarks", attrs=measured.attrs)
    again = records.read(tmp_path / "benchmarks.nc", stage="benchmarks")
    drawn = figures.draw_benchmarks(again, tmp_path)
    assert set(drawn) == set(figures.BENCHMARKS)
    for name in drawn:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert "planted" in (tmp_path / f"{name}.md").read_text()


def test_lines_tell_slope_and_bend():
    n = np.array([16, 32, 64, 128])
    times = np.stack([0.5 * n + 2, 0.5 * n + 2])[:, None]
    times[1, 0, 0] = np.nan  # not measured: the line goes through the others
    times[0, 0, 3] += 33
    points = scaling.dataset(times, 0 * times + 5, sizes=["small", "full"], stages=["merge"], counts=n)
    lines = scaling.straight_lines(points)
    assert lines.slope_seconds[1, 0] == pytest.approx(0.5)
    assert lines.bend[1, 0] == pytest.approx(0, abs=1e-12)
    assert lines.bend[0, 0] > 0.03
    np.testing.assert_allclose(lines.slope_memory, 0, atol=1e-12)


def test_peak_memory_is_that_of_the_block():
    with scaling.PeakMemory() as peak:
        block = np.ones(40_000_000)  # 320 MB, gone before the end
        time.sleep(0.05)
        del block
    assert 300e6 < peak.bytes < 600e6


@pytest.mark.parametrize(("points", "message"), [({"small": [8]}, r"multiples of 16, got \[8\]")])
def test_points_must_hold_whole_trees(train_images, points, message):
    with pytest.raises(ValueError, match=message):
        scaling.scaling(points, train_images)
    with pytest.raises(ValueError, match=r"unknown stages \['tree'\]"):
        scaling.scaling({"small": [16]}, train_images, stages=["tree"])
