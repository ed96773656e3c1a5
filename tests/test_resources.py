"""Work side by side on threads, sizes that fit into memory, and numbers that are too small for float32."""

import threading
import time

import pytest
import torch

from hrebasin import resources
from hrebasin.resources import fitting, halving, limited_to, side_by_side, subnormals_flushed
from hrebasin.robustness.attacks import attack


@pytest.fixture
def threads():
    """``threads(n)`` gives torch n threads until the test ends."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def test_results_keep_the_order_of_the_items(threads):
    for n in (1, 2, 5):
        threads(n)
        assert side_by_side(lambda k: k * k, range(7)) == [0, 1, 4, 9, 16, 25, 36]
    assert side_by_side(lambda k: k, []) == []


def test_items_run_at_the_same_time_and_share_the_threads(threads):
    threads(4)
    meeting = threading.Barrier(2, timeout=20)  # passes only when two calls are inside at once

    def work(_):
        meeting.wait()
        return torch.get_num_threads()

    assert side_by_side(work, range(2)) == [2, 2]
    assert torch.get_num_threads() == 4
    assert side_by_side(lambda _: torch.get_num_threads(), [0]) == [4], "one item takes all threads"


def test_work_inside_work_stays_on_its_thread(threads):
    threads(2)

    def outer(_):
        names = side_by_side(lambda _: threading.current_thread().name, range(3))
        return set(names) == {threading.current_thread().name}

    assert side_by_side(outer, range(2)) == [True, True]


def test_after_a_failure_nothing_more_begins(threads):
    threads(2)
    begun = []

    def work(k):
        begun.append(k)
        if k == 0:
            raise RuntimeError("item 0")
        time.sleep(0.02)

    with pytest.raises(RuntimeError, match="item 0"):
        side_by_side(work, range(100))
    assert len(begun) < 100


def test_linear_algebra_works_after_limited_threads(threads):
    """torch.set_num_threads in a worker makes MKL's LU fail from then on; `limited_to` must not."""
    matrix = torch.eye(200, dtype=torch.float64) + 0.01
    with limited_to(1):
        assert torch.get_num_threads() == 1
    torch.testing.assert_close(torch.linalg.inv(matrix) @ matrix, torch.eye(200, dtype=torch.float64))


def product(_=None) -> float:
    return (torch.tensor([1e-30]) * 1e-10).item()


def test_subnormal_numbers_are_flushed_inside_and_nowhere_else(threads):
    threads(2)
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot")
    with pytest.raises(ZeroDivisionError), subnormals_flushed():  # noqa: PT012
        assert side_by_side(product, range(2)) == [product(), 0.0] == [0.0, 0.0]
        1 / 0  # noqa: B018
    assert product() > 0
    with subnormals_flushed():
        with subnormals_flushed():
            pass
        assert product() == 0, "as it was"


def test_flushing_changes_no_result(trained, pixels, test_images):
    """Weights as strong penalties leave them: the same as if the smallest were zero."""
    found = []
    for value in (1e-40, 0.0):
        bank = trained.select([0, 1])
        bank.tensors["fc2.weight"][:, ::2] = value
        found.append(attack(bank, pixels[:20], test_images.labels[:20], kind="fgsm", epsilons=[0.0, 0.01, 0.05]))
    assert (found[0].robust.values == found[1].robust.values).all()


def test_what_fits(monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda device: {"cpu": 1000, "cuda": 4000}[device])
    assert (fitting(100, share=0.5), fitting(100, device="cuda", share=0.5)) == (5, 20)
    assert (fitting(100, share=0.5, most=3), fitting(1e9)) == (3, 1)


def test_the_size_is_halved_until_it_fits_and_no_other_error_is_hidden():
    def work(size, fits=5):
        if size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1 / (size != 3)

    with pytest.warns(UserWarning, match="out of GPU memory") as told:
        assert halving(work, 40, what="networks") == (1, 5)
    assert [str(each.message)[-2:] for each in told] == ["20", "10", " 5"]
    assert str(told[0].message) == "out of GPU memory with 40 networks at once: going on with 20"
    with pytest.warns(UserWarning, match="going on with 1"), pytest.raises(torch.OutOfMemoryError):
        halving(lambda size: work(size, fits=0), 2, what="networks")
    with pytest.raises(ZeroDivisionError):
        halving(work, 3, what="networks")
