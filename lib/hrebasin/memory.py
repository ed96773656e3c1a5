"""How much memory there is, so that banks get as large as fits and no larger."""

import psutil
import torch


def free_memory(device="cpu") -> int:
    """Bytes that a computation on ``device`` can still take: free memory of the GPU, or what the system can give."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def fitting(bytes_each: float, *, device="cpu", share: float = 0.25, most: int | None = None) -> int:
    """How many things of ``bytes_each`` fit into a ``share`` of the free memory: at least 1, at most ``most``."""
    n = max(1, int(share * free_memory(device) // bytes_each))
    return n if most is None else min(n, most)
