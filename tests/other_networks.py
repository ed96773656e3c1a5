"""Small networks that are no ReLU MLPs, with running statistics and norms that are not those of initial networks."""

import torch
from torch import nn

from hrebasin.bank import Bank
from hrebasin.small_networks import convolutional, residual

SHAPE = (3, 8, 8)
KINDS = (convolutional, residual)


def with_dropout(widths, *, n_classes: int, image_shape, mean, std) -> nn.Module:
    """A network that draws random numbers in training mode; images are not normalised."""
    del mean, std
    layers = [nn.Conv2d(image_shape[0], widths[0], 3), nn.BatchNorm2d(widths[0]), nn.ReLU(), nn.Dropout(0.5)]
    layers += [nn.Conv2d(widths[0], widths[1], 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(widths[1], n_classes))


def untrained(make, n: int = 2) -> Bank:
    """Networks of 4 and 6 channels and 4 classes; every counter is at 7."""
    torch.manual_seed(0)
    networks = [
        make((4, 6), n_classes=4, image_shape=SHAPE, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.25]) for _ in range(n)
    ]
    for tensor in (tensor for network in networks for tensor in network.state_dict().values()):
        if not tensor.is_floating_point():
            tensor.fill_(7)
        elif tensor.ndim == 1:
            tensor.uniform_(0.2, 1.2)
    return Bank.stack(networks, torch.rand(2, *SHAPE))
