"""Independent work side by side on CPU threads, never nested with the threads of a matrix product."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TypeVar

import psutil
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


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside, new tensors are float32 on the CPU, products keep their precision, and gradients can be taken.

    Whatever default the caller has set; it is as before afterwards.
    """
    with ExitStack() as stack:
        if torch.get_default_dtype() != torch.float32:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float32)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it: without, PyTorch's products take a hundred times as long."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def limited_to(threads: int):
    """A context in which the products of the calling thread take so many threads; other threads keep theirs."""
    torch.get_num_threads()  # torch sets a thread's number when it is first used there, which must not come later
    # torch.set_num_threads would also switch off MKL's dynamic threads for good, after which its LU decomposition fails
    return threadpool_limits(threads, user_api="openmp")


@contextmanager
def subnormals_flushed():
    """A context, or a decorator, in which the calling thread, and those that it starts, take numbers below 1e-38 (in
    float32) for zero.

    Penalties leave up to a fifth of the weights there, which a CPU multiplies twenty times as slowly as others.
    """
    flushing = not (torch.tensor([1e-30], dtype=torch.float32, device="cpu") * 1e-10).item()
    torch.set_flush_denormal(True)  # where a CPU cannot, nothing changes
    try:
        yield
    finally:
        torch.set_flush_denormal(flushing)


Result = TypeVar("Result")


def free_memory(device="cpu") -> int:
    """Bytes that a computation on ``device`` can still take: free memory of the GPU, or what the system can give."""
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # kept by torch for reuse
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available


def fitting(bytes_each: float, *, device="cpu", share: float = 0.25, most: int | None = None) -> int:
    """How many things of ``bytes_each`` fit into a ``share`` of the free memory: at least 1, at most ``most``."""
    n = max(1, int(share * free_memory(device) // bytes_each))
    return n if most is None else min(n, most)


def halving(work: Callable[[int], Result], size: int, *, what: str) -> tuple[Result, int]:
    """``work(size)`` and the size; where the GPU's memory does not suffice, with half the size, and so on down to 1.

    What the size counts is ``what``, for the warning.
    """
    while True:
        try:
            return work(size), size
        except torch.OutOfMemoryError:
            if size <= 1:
                raise
        # outside of the handler, whose traceback would keep the tensors alive
        warnings.warn(f"out of GPU memory with {size} {what} at once: going on with {size // 2}", stacklevel=2)
        size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
