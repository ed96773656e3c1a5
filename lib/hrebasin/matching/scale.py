"""Networks of tiny or huge weights, whose products would leave float32: below 1e-22 they vanish, beyond 1e19 overflow.

Tiny ones are taken times a power of two, which changes no digit, so that what is matched does not depend on a network's
scale. Huge ones are named.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from ..bank import Bank
from ..checks import largest_weight
from .assignment import NotFiniteError

SMALL = 2.0**-20  # largest weight below which a network is lifted; ordinary ones stay as they are
MOST = 126  # exponent of the largest power of two in float32, nearly


def parameters_of(bank: Bank) -> dict[str, torch.Tensor]:
    """The parameters of a bank of one network."""
    return {name: bank.tensors[name][0] for name in bank.architecture.parameters}


def lifted(tensors: Mapping[str, torch.Tensor]) -> tuple[Mapping[str, torch.Tensor], int]:
    """Parameters times 2**k, by which the largest number comes near 1, and k; 0 unless all are below `SMALL`."""
    ends = (end for tensor in tensors.values() if tensor.numel() for end in tensor.detach().aminmax())
    largest = max((abs(float(end)) for end in ends), default=0.0)
    up = min(-math.frexp(largest)[1], MOST) if 0 < largest < SMALL else 0
    return {name: tensor * 2.0**up for name, tensor in tensors.items()} if up else tensors, up


@contextmanager
def overflow_named(*banks: Bank, what: str = "products of weights") -> Iterator[None]:
    """A context in which gains that are not finite raise ValueError, with the largest weight of some banks."""
    try:
        yield
    except NotFiniteError as error:
        raise ValueError(f"{what} left float32: {largest_weight(banks)}, which are too large to match") from error
