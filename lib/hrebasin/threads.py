"""Independent work side by side on CPU threads, never nested with the threads of a matrix product."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import threadpool_limits


def side_by_side(work: Callable, items: Iterable) -> list:
    """``[work(item) for item in items]`` on as many threads as torch has; the products in each share what is left.

    A product of one network keeps one core busy, hardly two; so cores go to networks first. When a call fails or the
    user interrupts, the calls that have not begun never do.
    """
    items, threads = list(items), torch.get_num_threads()
    at_once = max(1, min(len(items), threads))
    if at_once == 1:
        return [work(item) for item in items]

    def alone(item):
        with limited_to(threads // at_once):
            return work(item)

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(alone, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def limited_to(threads: int):
    """A context in which the products of the calling thread take so many threads; other threads keep theirs."""
    torch.get_num_threads()  # torch sets a thread's number when it is first used there, which must not come later
    # torch.set_num_threads would also switch off MKL's dynamic threads for good, after which its LU decomposition fails
    return threadpool_limits(threads, user_api="openmp")
