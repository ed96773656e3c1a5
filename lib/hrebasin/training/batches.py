"""Batches of training images: every network its own order and augmentation, from named streams."""

import math
from collections.abc import Iterator, Sequence

import torch

from ..compiled import Compiled
from ..images.sources import Images
from ..networks import Architecture
from ..random_streams import generator
from ..resources import fitting
from .recipe import Recipe

IMAGES_AT_ONCE = 5000  # normalised at once: 60 MB of CIFAR-10


class Batches:
    """The training images as networks see them, normalised and in the precision of the products.

    All images are normalised once, with their padding, if they fit into a quarter of the free memory, and batch by
    batch otherwise; both give the same bits. Threads may share one object.

    Args:
        architecture: whose normalisation is applied.
        images: on the device that trains.
        recipe: batch size, augmentation and precision.
    """

    def __init__(self, architecture: Architecture, images: Images, recipe: Recipe):
        self.architecture, self.images, self.recipe = architecture, images, recipe
        self.dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.shape = architecture.prepare(images.pixels[:1]).shape[1:]
        self.augmented = bool(recipe.crop_padding or recipe.flip)
        self.inputs, first = None, self._prepared(images.pixels[:1])
        if fitting(first.nbytes, device=first.device) >= len(images):
            self.inputs = torch.empty(len(images), *first.shape[1:], dtype=self.dtype, device=first.device)
            for start in range(0, len(images), IMAGES_AT_ONCE):
                part = slice(start, start + IMAGES_AT_ONCE)
                self.inputs[part] = self._prepared(images.pixels[part])

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
            inputs = [self._inputs(one, stream) for one, stream in zip(chosen, streams, strict=True)]
            yield torch.stack(inputs) if len(inputs) > 1 else inputs[0][None], self.images.labels[chosen]

    def _prepared(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (image, channel, y, x) with their padding; of images that are not augmented, inputs."""
        pad = self.recipe.crop_padding
        padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
        shape = padded.shape if self.augmented else (-1, *self.shape)
        return self.architecture.prepare(padded).to(self.dtype).view(shape)

    def _inputs(self, chosen: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        """Inputs (image, input) of one network, cropped and flipped at random, each image by itself."""
        if self.inputs is None:
            source, rows = self._prepared(self.images.pixels[chosen]), torch.arange(len(chosen), device=chosen.device)
        else:
            source, rows = self.inputs, chosen
        if not self.augmented:
            return source[rows]
        top, left = torch.randint(0, 2 * self.recipe.crop_padding + 1, (2, len(rows)), generator=stream).to(rows.device)
        mirrored = (torch.rand(len(rows), generator=stream) < 0.5).to(rows.device) & self.recipe.flip
        cut = _cut_on_cpu if source.device.type == "cpu" else cut_by_index
        return cut(source, rows, top, left, mirrored, self.images.shape[1:]).view(-1, *self.shape)


def cut_by_index(source, rows, top, left, mirrored, size) -> torch.Tensor:
    """Images ``rows`` of ``source``, cut at ``top`` and ``left`` to ``size``, and some mirrored; on any device."""
    windows = source.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (image, channel, top, left, y, x), a view
    crops = windows.permute(0, 2, 3, 1, 4, 5)[rows, top, left]
    crops[mirrored] = crops[mirrored].flip(-1)
    return crops


def _cut_on_cpu(source, rows, top, left, mirrored, size) -> torch.Tensor:
    """The same, two to four times as fast."""
    crops = torch.empty(len(rows), source.shape[1], *size, dtype=source.dtype)
    bits = torch.int16 if source.dtype == torch.bfloat16 else torch.int32  # NumPy knows no bfloat16
    places = (each.contiguous().numpy() for each in (rows, top, left, mirrored))
    _cut(source.view(bits).numpy(), *places, crops.view(bits).numpy())
    return crops


def _cut_lines(source, rows, top, left, mirrored, crops):
    width = crops.shape[3]
    for i in range(len(rows)):
        for channel in range(crops.shape[1]):
            for y in range(crops.shape[2]):
                line = source[rows[i], channel, top[i] + y]
                if mirrored[i]:
                    for x in range(width):
                        crops[i, channel, y, x] = line[left[i] + width - 1 - x]
                else:
                    for x in range(width):
                        crops[i, channel, y, x] = line[left[i] + x]


_cut = Compiled(_cut_lines, nogil=True)
