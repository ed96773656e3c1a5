"""Images, pixels and labels that do not fit networks, refused before anything is computed."""

import torch

from .architectures import NetworkArchitecture
from .images.sources import Images
from .networks import Architecture


def check_pixels(architecture: Architecture, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> None:
    """Raise ValueError unless networks of an architecture can be asked about these pixels.

    Args:
        architecture: of the networks.
        pixels: must be (image, channel, y, x) of the architecture's shape, uint8 or in [0, 1].
        labels: must be int64 (image,), from 0 to below the number of classes; by default none are needed.
    """
    if tuple(pixels.shape[1:]) != architecture.image_shape or not len(pixels):
        raise ValueError(
            f"pixels must be (image, *{architecture.image_shape}) of at least one image, got {tuple(pixels.shape)}"
        )
    if not (pixels.is_floating_point() or pixels.dtype == torch.uint8):
        raise ValueError(f"pixels must be uint8 or floats in [0, 1], got {pixels.dtype}")
    if pixels.dtype != torch.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {pixels.min():g} to {pixels.max():g}")
    if labels is None:
        return
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"labels must be int64 (image,), got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) != len(pixels):
        raise ValueError(f"{len(labels)} labels do not fit {len(pixels)} images")
    if labels.min() < 0 or labels.max() >= architecture.n_classes:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} do not fit {len(pixels)} images and "
            f"{architecture.n_classes} classes"
        )


def is_relu_mlp(architecture: Architecture | NetworkArchitecture) -> bool:
    """Whether networks are affine layers with ReLU between them and nothing else."""
    return isinstance(architecture, Architecture)


def check_relu_mlp(architecture: Architecture | NetworkArchitecture, what: str) -> None:
    """Raise ValueError unless networks are ReLU MLPs; it says of what they must be."""
    if not is_relu_mlp(architecture):
        raise ValueError(f"{what} are known for ReLU MLPs only, not for {architecture.title}")


def check_inputs(architecture: Architecture, inputs: torch.Tensor) -> None:
    """Raise ValueError unless networks of an architecture take these inputs (image, ...), whatever their range."""
    if not isinstance(inputs, torch.Tensor) or tuple(inputs.shape[1:]) != tuple(architecture.image_shape):
        given = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        shape = ", ".join(map(str, architecture.image_shape))
        raise ValueError(f"images must be a tensor (image, {shape}), got {given}")
    if inputs.is_floating_point() and not torch.isfinite(inputs).all():
        raise ValueError("images must be finite")


def check_images(architecture: Architecture, images: Images) -> None:
    """Raise ValueError unless images have the architecture's shape and number of classes."""
    if images.shape != architecture.image_shape or len(images.classes) != architecture.n_classes:
        raise ValueError(
            f"images {images.shape} of {len(images.classes)} classes do not fit the architecture's "
            f"{architecture.image_shape} and {architecture.n_classes}"
        )
