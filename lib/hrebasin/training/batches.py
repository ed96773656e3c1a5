"""Batches of training images: every network its own order and augmentation, from named streams."""

import math
from collections.abc import Iterator, Sequence

import torch

from ..images.sources import Images
from ..networks import Architecture
from ..random_streams import generator
from ..resources import fitting
from .recipe import Recipe

IMAGES_AT_ONCE = 5000  # normalised at once: 60 MB of CIFAR-10


class Batches:
    """The training images as networks see them, normalised and in the precision of the products.

    Images that are not augmented are normalised once, if they fit into a quarter of the free memory, and batch by batch
    otherwise; both give the same bits. Threads may share one object.

    Args:
        architecture: whose normalisation is applied.
        images: on the device that trains.
        recipe: batch size, augmentation and precision.
    """

    def __init__(self, architecture: Architecture, images: Images, recipe: Recipe):
        self.architecture, self.images, self.recipe = architecture, images, recipe
        self.dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.augmented = bool(recipe.crop_padding or recipe.flip)
        self.inputs = None
        shape = architecture.prepare(images.pixels[:1].clone()).shape[1:]
        n_inputs = shape.numel()
        if not self.augmented and fitting(n_inputs * self.dtype.itemsize, device=images.pixels.device) >= len(images):
            self.inputs = torch.empty(len(images), *shape, dtype=self.dtype, device=images.pixels.device)
            for part in torch.arange(len(images)).split(IMAGES_AT_ONCE):
                piece = slice(int(part[0]), int(part[-1]) + 1)
                self.inputs[piece] = architecture.prepare(images.pixels[piece])

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.images) / self.recipe.batch_size)

    def epoch(self, seeds: Sequence[int], number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs (model, image, input) and labels (model, image) of one epoch, batch by batch.

        Network ``s`` draws from the streams ``batch-order/s/<number>`` and ``augmentation/s/<number>``.
        """
        n, device = len(self.images), self.images.pixels.device
        orders = torch.stack([torch.randperm(n, generator=generator(f"batch-order/{seed}/{number}")) for seed in seeds])
        streams = [generator(f"augmentation/{seed}/{number}") for seed in seeds]
        for chosen in orders.to(device).split(self.recipe.batch_size, dim=1):
            yield self._inputs(chosen, streams), self.images.labels[chosen]

    def _inputs(self, chosen: torch.Tensor, streams: list[torch.Generator]) -> torch.Tensor:
        if self.inputs is not None:
            return self.inputs[chosen]
        pixels = self.images.pixels[chosen]
        if self.augmented:
            pixels = torch.stack([_augment(p, self.recipe, g) for p, g in zip(pixels, streams, strict=True)])
        return self.architecture.prepare(pixels).to(self.dtype)


def _augment(pixels: torch.Tensor, recipe: Recipe, stream: torch.Generator) -> torch.Tensor:
    """Random crop and flip of uint8 pixels (image, channel, y, x), drawn for each image."""
    n, _, height, width = pixels.shape
    pad = recipe.crop_padding
    top, left = torch.randint(0, 2 * pad + 1, (2, n), generator=stream).to(pixels.device)
    mirrored = (torch.rand(n, generator=stream) < 0.5).to(pixels.device) & recipe.flip
    rows = top[:, None] + torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device).expand(n, -1)
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    image = torch.arange(n, device=pixels.device)
    # advanced indexing puts the channel last: (image, y, x, channel)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
