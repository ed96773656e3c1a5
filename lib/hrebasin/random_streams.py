"""Random streams that are found by name, so that no result depends on order, shard or process."""

import hashlib

import torch

Seed = int | str


def seed_of(name: str) -> int:
    """The 63-bit seed that belongs to ``name``: the first eight bytes of its SHA-256."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"a random stream needs a non-empty name, got {name!r}")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(name: str) -> torch.Generator:
    """A fresh CPU generator for the random stream ``name``, such as ``"batch-order/17/3"``.

    CPU and CUDA streams differ, so every draw is made on the CPU and moved afterwards.
    """
    return torch.Generator(device="cpu").manual_seed(seed_of(name))
