"""A bank as Foolbox sees it, and how much of it fits into one call of an attack.

Foolbox sees M networks as one model: the batch is M x B images and slice m goes through network m. Attacks treat
samples independently, so this equals M separate runs.
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from foolbox import PyTorchModel
from foolbox.criteria import Misclassification
from torch import nn

from ..architectures import as_floats
from ..bank import Bank
from ..checks import is_relu_mlp
from ..progress import track
from ..resources import fitting

# Networks and samples (images times networks) in one call of an attack. On a CPU few networks with many images each are
# fastest; a GPU takes what fits into a quarter of its free memory. Attacks hold about 40 copies of a sample.
NETWORKS_AT_ONCE = {"cpu": 8, "cuda": 64}
SAMPLES_AT_ONCE = {"cpu": 1600, "cuda": 65536}
COPIES = 40


class BankModel(nn.Module):
    """A bank as Foolbox sees it: (model x image, channel, y, x) to (model x image, class), float64 from float64."""

    def __init__(self, bank: Bank):
        super().__init__()
        self.bank = bank

    @cached_property
    def in_float64(self) -> Bank:
        """The networks with all arithmetic in float64; counters stay."""
        tensors = {name: t.double() if t.is_floating_point() else t for name, t in self.bank.tensors.items()}
        return Bank(self.bank.architecture, tensors, self.bank.labels)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Slice m of the batch through network m."""
        bank = self.in_float64 if pixels.dtype == torch.float64 else self.bank
        return bank(pixels.unflatten(0, (len(bank), -1))).flatten(0, 1)


class SharedForward(BankModel):
    """Gives gradients of many outputs at the same pixels from one pass forward, where Foolbox makes one for each."""

    inputs = logits = None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """As `BankModel`, bit for bit."""
        if not pixels.requires_grad:
            return super().forward(pixels)
        if self.inputs is None or not torch.equal(pixels, self.inputs):
            self.inputs = pixels.detach().clone().requires_grad_()
            self.logits = super().forward(self.inputs)
        return _Kept.apply(pixels, self)


class _Kept(torch.autograd.Function):
    """Logits that a `SharedForward` keeps, with the graph that they came from."""

    @staticmethod
    def forward(ctx, pixels, model):
        ctx.model = model
        return model.logits.detach()

    @staticmethod
    def backward(ctx, gradient):
        return (*torch.autograd.grad(ctx.model.logits, ctx.model.inputs, gradient, retain_graph=True), None)


def in_unit_range(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels that are uint8 or in [0, 1], as float32 in [0, 1]."""
    return as_floats(pixels).float()


def fitting_samples(bank: Bank, pixels: torch.Tensor, device: str | torch.device) -> int:
    """How many samples an attack on a device can hold at once, of float pixels (image, channel, y, x)."""
    bytes_each = COPIES * pixels[0].numel() * pixels.itemsize
    if not is_relu_mlp(bank.architecture):
        bytes_each += bank.architecture.bytes_kept * pixels.itemsize // 4
    return fitting(bytes_each, device=device, most=SAMPLES_AT_ONCE[torch.device(device).type])


def in_pieces(bank: Bank, samples_at_once: int, kind: str, *tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Tensors (image, ...) in pieces, so that every network sees each piece at once."""
    size = max(1, samples_at_once // len(bank))
    for start in track(range(0, len(tensors[0]), size), label=kind, unit="piece"):
        yield [tensor[start : start + size] for tensor in tensors]


def run(attack, bank: Bank, pixels: torch.Tensor, labels: torch.Tensor, epsilons, *, model=BankModel):
    """Foolbox on network m with the images ``pixels[m]`` (model, image, ...), all in one batch."""
    wrapped = PyTorchModel(model(bank).eval(), bounds=(0, 1), device=bank.device)
    return attack(wrapped, pixels.flatten(0, 1), Misclassification(labels.flatten()), epsilons=epsilons)


def select(bank: Bank, marked: torch.Tensor) -> tuple[Bank, tuple[torch.Tensor, torch.Tensor]]:
    """The networks with any marked sample (model, image), and an index of these samples, (network, n) for each axis.

    Where a network has fewer than n, its first one is repeated.
    """
    models = marked.any(1).nonzero()[:, 0]
    counts = marked[models].sum(1, keepdim=True)
    n = int(counts.max())
    images = marked[models].byte().argsort(dim=1, descending=True, stable=True)[:, :n]
    images = torch.where(torch.arange(n, device=images.device) < counts, images, images[:, :1])
    some = bank if len(models) == len(bank) else bank.select(models.tolist())
    return some, (models[:, None], images)
