"""Running statistics of batch norm, which an average of networks must measure anew."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from ..bank import Bank
from ..checks import check_bank, check_inputs
from ..resources import plain_torch, side_by_side

IMAGES_AT_ONCE = 500
MEASURED_LATER = ContextVar("MEASURED_LATER", default=False)  # of a thread: `finished` need not warn


@contextmanager
def measured_later() -> Iterator[None]:
    """A context in which `finished` is silent, for this thread alone: whoever opens it measures batch norm, or warns.

    The filters of `warnings` are those of all threads, so that they cannot be changed where methods run side by side.
    """
    token = MEASURED_LATER.set(True)
    try:
        yield
    finally:
        MEASURED_LATER.reset(token)


@plain_torch()
def measure_batch_norm(bank: Bank, pixels: torch.Tensor) -> Bank:
    """The bank with every running mean and variance measured on images, the mean over batches of `IMAGES_AT_ONCE`.

    An average of networks has other activations than its parents, so averages of their statistics do not fit it (Jordan
    et al. 2023; Izmailov et al. 2018).

    Args:
        bank: the networks; not changed. Returned as it is where there is no batch norm.
        pixels: training images (image, ...) as the networks take them, at least two.

    Raises:
        ValueError: images of another shape, not finite, or fewer than two.
    """
    check_bank(bank)
    names = bank.architecture.batch_norms
    if not names:
        return bank
    check_inputs(bank.architecture, pixels)
    if len(pixels) < 2:
        raise ValueError(f"batch norm needs at least 2 images to measure on, got {len(pixels)}")

    def measured(model: int) -> dict[str, torch.Tensor]:
        network = bank[model].to(bank.device, torch.float32)  # as the bank, whatever the modules given were
        for name in names:
            norm = network.get_submodule(name)
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            parts = [part for part in pixels.split(IMAGES_AT_ONCE) if len(part) > 1]  # one image has no variance
            for number, part in enumerate(parts, start=1):
                for name in names:
                    network.get_submodule(name).momentum = 1 / number  # the mean over all batches
                network(bank.architecture.prepare(part.to(bank.device)))
        return {name: buffer for name, buffer in network.named_buffers() if name.rpartition(".")[0] in names}

    found = side_by_side(measured, range(len(bank)))
    for each in found:
        if bad := [name for name, buffer in each.items() if not torch.isfinite(buffer).all()]:
            raise ValueError(
                f"{bad[0]} is not finite on these images, whose values reach {float(pixels.abs().max()):.1e}"
            )
    tensors = bank.tensors | {name: torch.stack([each[name] for each in found]) for name in found[0]}
    return Bank(bank.architecture, tensors, bank.labels, bank.history)


def finished(merged: Bank, pixels: torch.Tensor | None) -> Bank:
    """A merged bank, its batch norm measured on images; where there are none, a warning says what that costs."""
    if pixels is not None:
        return measure_batch_norm(merged, pixels)
    if merged.architecture.batch_norms and not MEASURED_LATER.get():
        warnings.warn(
            "the running statistics of batch norm were averaged, which costs a merged network most of its accuracy: "
            "give training images as pixels=, or call measure_batch_norm",
            stacklevel=4,
        )
    return merged
