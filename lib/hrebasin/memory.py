"""How much memory there is, so that banks get as large as fits and no larger."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

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
    """``work(size)``; where the GPU's memory does not suffice, with half the size, and so on down to 1.

    Args:
        work: takes the size.
        size: at first.
        what: is counted by the size, for the warning.

    Returns:
        The result and the size that it took.
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
