"""Independent work side by side on CPU threads, never nested with the threads of a matrix product."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch


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
        torch.set_num_threads(threads // at_once)  # of this thread alone
        return work(item)

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(alone, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
