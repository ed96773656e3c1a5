"""Networks of tiny weights, taken times a power of two: products of numbers below 1e-22 would leave float32.

Such a factor changes no digit, so the result does not depend on a network's scale.
"""

import math
from collections.abc import Iterable

import torch

SMALL = 2.0**-20  # largest weight below which a network is lifted; ordinary ones stay as they are
MOST = 126  # exponent of the largest power of two in float32, nearly


def exponent(tensors: Iterable[torch.Tensor]) -> int:
    """The k by which 2**k brings the largest of some numbers near 1; 0 unless all are smaller than `SMALL`."""
    largest = max((float(tensor.detach().abs().max()) for tensor in tensors if tensor.numel()), default=0.0)
    return min(-math.frexp(largest)[1], MOST) if 0 < largest < SMALL else 0
