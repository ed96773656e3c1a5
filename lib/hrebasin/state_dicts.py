"""Networks from elsewhere: state dicts of multilayer perceptrons with ReLU, as safetensors files."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .bank import Bank
from .networks import Architecture


def read_state_dicts(
    paths: Sequence[Path | str],
    *,
    image_shape: tuple[int, int, int],
    n_classes: int,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    layers: Sequence[str] = (),
) -> Bank:
    """Read one network a file into a bank.

    A file holds ``<layer>.weight`` (output, input) and, where the layer has one, ``<layer>.bias`` (output,) of every
    affine layer, under whatever names; widths and depth follow from the shapes. Between layers there must be ReLU,
    which no file tells. Images are flattened as (channel, y, x), as `torch.nn.Flatten` does.

    Args:
        paths: the files; they must hold networks of the same widths.
        image_shape: (channel, y, x) of the images.
        n_classes: number of logits.
        mean, std: what each channel is normalised with before the first layer, pixels in [0, 1]; by default not at all.
        layers: names of the layers, input side first; by default in natural order: layers.2 before layers.10.

    Returns:
        A bank of float32 networks, ``seed`` counting the files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file is given, or one holds something else than such a network; file and tensor are named.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no file of a network was given")
    channels = image_shape[0]
    normalisation = tuple(mean) or (0.0,) * channels, tuple(std) or (1.0,) * channels
    networks = [_read(path, list(layers)) for path in paths]
    widths = [tuple(len(tensors[name]) for name in tensors if name.endswith("weight")) for tensors in networks]
    for path, found in zip(paths, widths, strict=True):
        if found != widths[0]:
            raise ValueError(
                f"{path} has layers of {found} units, but {paths[0]} of {widths[0]}: they cannot be merged"
            )
    architecture = Architecture(widths[0][:-1], n_classes, tuple(image_shape), *normalisation)
    first = networks[0]["fc1.weight"].shape[1]
    if first != architecture.units[0] or widths[0][-1] != n_classes:
        raise ValueError(
            f"{paths[0]} takes {first} inputs and gives {widths[0][-1]} logits, but the images have "
            f"{architecture.units[0]} values (channel, y, x) = {tuple(image_shape)} and {n_classes} classes"
        )
    stacked = {name: torch.stack([tensors[name] for tensors in networks]) for name in architecture.shapes}
    return Bank(architecture, stacked, {"seed": list(range(len(paths)))})


def _read(path: Path, layers: list[str]) -> dict[str, torch.Tensor]:
    """Tensors of one file as fc1.weight, fc1.bias, fc2.weight, ..."""
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    found = sorted((name.removesuffix(".weight") for name in tensors if name.endswith(".weight")), key=_natural)
    layers = layers or found
    if not found or sorted(layers) != sorted(found):
        raise ValueError(f"{path} holds weights <layer>.weight of the layers {found}, not of {layers or 'any layer'}")
    renamed = {}
    for number, layer in enumerate(layers, start=1):
        weight = tensors.pop(f"{layer}.weight")
        bias = tensors.pop(f"{layer}.bias", torch.zeros(len(weight)))
        _check(path, layer, weight, bias)
        renamed |= {f"fc{number}.weight": weight.float(), f"fc{number}.bias": bias.float()}
    if tensors:
        raise ValueError(f"{path} is no plain MLP: it also holds {sorted(tensors)}")
    for number, (one, other) in enumerate(zip(layers[:-1], layers[1:], strict=True), start=1):
        outputs, inputs = len(renamed[f"fc{number}.weight"]), renamed[f"fc{number + 1}.weight"].shape[1]
        if outputs != inputs:
            raise ValueError(
                f"{path}: {one} gives {outputs} values, but {other} takes {inputs}. If the order is not {layers}, "
                "give it as `layers`"
            )
    return renamed


def _check(path: Path, layer: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{path} is no MLP: {layer} has a weight of {tuple(weight.shape)} and a bias of "
            f"{tuple(bias.shape)}; an affine layer has (output, input) and (output,)"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {layer}.{name} is {tensor.dtype}, not floating point")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {layer}.{name} holds values that are not finite")


def _natural(name: str) -> list:
    """Sorts numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
