"""Networks from elsewhere: state dicts of multilayer perceptrons, read as if with ReLU, which no file tells."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from .bank import Bank
from .networks import Architecture
from .weight_files import read_weights

AGREEMENT = 1e-3  # of logits with a reference, relative to the largest: GELU in place of ReLU changes them by 1e-2
OTHERS = "other networks need a module (merge_state_dicts; --network in a shell)"
READ_AS = (
    "It was read as ReLU after all but the last layer: another activation, another order of layers, or images "
    "normalised in another way?"
)


class Perceptron(NamedTuple):
    """One file.

    Attributes:
        layers: names of the affine layers, input side first.
        tensors: fc1.weight, fc1.bias, ..., float32.
        given: the tensors under their own names.
        key: under which they lay in a checkpoint, or "".
    """

    layers: tuple[str, ...]
    tensors: dict[str, torch.Tensor]
    given: dict[str, torch.Tensor]
    key: str


def read_state_dicts(
    paths: Sequence[Path | str],
    *,
    image_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    layers: Sequence[str] = (),
    reference: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Bank:
    """Read one network a file into a bank.

    A file holds ``<layer>.weight`` (output, input) and, where the layer has one, ``<layer>.bias`` (output,) of every
    affine layer, under whatever names; widths and depth follow from the shapes. What stands between the layers, and
    their order, no file tells: they are read as ReLU and in natural order. A warning says so, and ``reference`` checks
    it. Networks as modules need no such guess: see `hrebasin.merge` and `hrebasin.Bank.stack`.

    Args:
        paths: the files, of the types that `hrebasin.weight_files.read_weights` takes; they must hold networks of the
            same widths.
        image_shape: (channel, y, x) of the images, which are flattened so, as `torch.nn.Flatten` does; by default one
            row of as many pixels as the first layer takes.
        n_classes: number of logits; by default what the last layer gives.
        mean, std: what each channel is normalised with before the first layer, pixels in [0, 1]; by default not at all.
        layers: names of the layers, input side first; by default in natural order: layers.2 before layers.10.
        reference: inputs (image, channel, y, x) and the logits that the first network gave for them, (image, class), or
            those of every network, (model, image, class). In place of the warning.

    Returns:
        A bank of float32 networks, ``seed`` counting the files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file is given, or one holds something else than such a network, or gives other logits than the
            reference; file and tensor are named.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no file of a network was given")
    networks = [read_perceptron(path, layers) for path in paths]
    widths = [tuple(len(each.tensors[f"fc{k}.weight"]) for k in range(1, len(each.layers) + 1)) for each in networks]
    inputs = [each.tensors["fc1.weight"].shape[1] for each in networks]
    for path, units, found in zip(paths, widths, inputs, strict=True):
        if units != widths[0]:
            raise ValueError(
                f"{path} has layers of {units} units, but {paths[0]} of {widths[0]}: only ot-fusion merges them"
            )
        if not image_shape and found != inputs[0]:
            raise ValueError(f"{path} takes {found} inputs, but {paths[0]} takes {inputs[0]}")
    image_shape, n_classes = tuple(image_shape or (1, 1, inputs[0])), n_classes or widths[0][-1]
    normalisation = tuple(mean) or (0.0,) * image_shape[0], tuple(std) or (1.0,) * image_shape[0]
    architecture = Architecture(widths[0][:-1], n_classes, image_shape, *normalisation)
    for path, found in zip(paths, inputs, strict=True):
        if found != architecture.units[0] or widths[0][-1] != n_classes:
            raise ValueError(
                f"{path} takes {found} inputs and gives {widths[0][-1]} logits, but the images have "
                f"{architecture.units[0]} values (channel, y, x) = {image_shape} and {n_classes} classes"
            )
    stacked = {name: torch.stack([each.tensors[name] for each in networks]) for name in architecture.shapes}
    bank = Bank(architecture, stacked, {"seed": list(range(len(paths)))})
    if reference is None:
        warnings.warn(_assumed(networks[0], ordered=bool(layers)), stacklevel=2)
    else:
        _check_reference(bank, *checked_pair(reference), names=[str(path) for path in paths])
    return bank


def read_perceptron(path: Path, layers: Sequence[str] = ()) -> Perceptron:
    """The affine layers of one file, in the given or in natural order, float32."""
    given, key = read_weights(path)
    tensors = dict(given)
    found = sorted((name.removesuffix(".weight") for name in tensors if name.endswith(".weight")), key=_natural)
    layers = list(layers) or found
    if not found or sorted(layers) != sorted(found):
        raise ValueError(f"{path} holds weights <layer>.weight of the layers {found}, not of {layers or 'any layer'}")
    renamed = {}
    for number, layer in enumerate(layers, start=1):
        weight = tensors.pop(f"{layer}.weight")
        bias = tensors.pop(f"{layer}.bias", torch.zeros(len(weight) if weight.ndim else 0))
        _check(path, layer, weight, bias)
        renamed |= {f"fc{number}.weight": weight.float(), f"fc{number}.bias": bias.float()}
    if tensors:
        raise ValueError(f"{path} is no plain MLP: it also holds {sorted(tensors)}; {OTHERS}")
    for number, (one, other) in enumerate(zip(layers[:-1], layers[1:], strict=True), start=1):
        outputs, inputs = len(renamed[f"fc{number}.weight"]), renamed[f"fc{number + 1}.weight"].shape[1]
        if outputs != inputs:
            raise ValueError(
                f"{path}: {one} gives {outputs} values, but {other} takes {inputs}. If the order is not {layers}, "
                "give it as `layers`"
            )
    return Perceptron(tuple(layers), renamed, given, key)


def read_reference(path: Path | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and logits for `read_state_dicts`, from a file of the two tensors ``inputs`` and ``logits``."""
    tensors, _ = read_weights(path)
    if set(tensors) != {"inputs", "logits"}:
        raise ValueError(f"{path} must hold the tensors inputs and logits, got {sorted(tensors)}")
    return tensors["inputs"].float(), tensors["logits"]


def named_like(tensors: Mapping[str, torch.Tensor], like: Perceptron) -> dict[str, torch.Tensor]:
    """The tensors fc1.weight, fc1.bias, ... of a network under the names, and in the precision, of another one's file.

    Raises:
        ValueError: a bias that is not 0, where that file has none.
    """
    places = {layer: f"fc{number}" for number, layer in enumerate(like.layers, start=1)}
    state = {}
    for name, tensor in like.given.items():
        layer, _, kind = name.rpartition(".")
        state[name] = tensors[f"{places[layer]}.{kind}"].to(tensor.dtype)
    for layer, own in places.items():
        if f"{layer}.bias" not in state and tensors[f"{own}.bias"].any():
            raise ValueError(f"the merged {layer} has a bias, for which the first network has no {layer}.bias")
    return state


def _assumed(network: Perceptron, *, ordered: bool) -> str:
    """What a file does not tell and reading it assumes, in words; ``ordered``: a person gave the order."""
    shapes = [tuple(network.tensors[f"fc{number}.weight"].shape) for number in range(1, len(network.layers) + 1)]
    lying = f", from what lies under {network.key!r}" if network.key else ""
    words = f"read as ReLU after all but the last layer, in the {'given ' if ordered else ''}order "
    words += f"{', '.join(network.layers)}{lying}: a state dict tells neither"
    if not ordered and _fit_otherwise(shapes):
        words += ", and these shapes fit in other orders too"
    return f"{words}. reference=(inputs, logits) checks it, and a module in place of the state dict needs no guess"


def _check_reference(bank: Bank, inputs: torch.Tensor, logits: torch.Tensor, *, names: Sequence[str]) -> None:
    """As `check_logits`; ``inputs`` (image, channel, y, x), or of any shape with as many values an image."""
    shape = bank.architecture.image_shape
    if inputs[0].numel() != math.prod(shape):
        raise ValueError(f"reference inputs must have {math.prod(shape)} values an image, got {tuple(inputs.shape)}")
    with torch.no_grad():
        found = bank(inputs.reshape(len(inputs), *shape))
    check_logits(found, logits, names=names, hint=READ_AS)


def checked_pair(reference) -> tuple[torch.Tensor, torch.Tensor]:
    """The inputs and logits of a reference; ValueError where it is no pair of real tensors of some images."""
    pair = tuple(reference) if isinstance(reference, tuple | list) else (reference,)
    fit = [isinstance(e, torch.Tensor) and e.ndim > 1 and len(e) > 0 and not e.is_complex() for e in pair]
    if len(pair) != 2 or not all(fit):
        told = ", ".join(
            f"{e.dtype} {tuple(e.shape)}" if isinstance(e, torch.Tensor) else type(e).__name__ for e in pair
        )
        raise ValueError(
            f"reference must be two real tensors, inputs (image, ...) and logits (image, class), got {told}"
        )
    return pair


def check_logits(found: Sequence[torch.Tensor], logits: torch.Tensor, *, names: Sequence[str], hint: str) -> None:
    """Raise ValueError unless logits (image, class) of each network are those of a reference, all or only the first.

    Args:
        found: of every network.
        logits: of the reference, (image, class) of the first network, or (model, image, class).
        names: of the networks, for the message.
        hint: why they may differ, for the message.
    """
    logits = (logits if logits.ndim == 3 else logits[None]).float().cpu()
    shape = (len(found[: len(logits)]), *found[0].shape)
    if tuple(logits.shape) != shape:
        raise ValueError(f"reference logits must be {shape}, got {tuple(logits.shape)}")
    for name, one, other in zip(names, found, logits, strict=False):
        difference, size = float((one - other).abs().max()), float(other.abs().max())
        if not difference <= AGREEMENT * size:
            raise ValueError(
                f"{name} gives other logits than the reference: the largest difference is {difference:.3g}, "
                f"{difference / max(size, 1e-30):.1%} of the largest logit. {hint}"
            )


def _check(path: Path, layer: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"{path} is no MLP: {layer} has a weight of {tuple(weight.shape)} and a bias of "
            f"{tuple(bias.shape)}; an affine layer has (output, input) and (output,); {OTHERS}"
        )
    for name, tensor in (("weight", weight), ("bias", bias)):
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {layer}.{name} is {tensor.dtype}, not floating point")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {layer}.{name} holds values that are not finite")


def _natural(name: str) -> list:
    """Sorts numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _fit_otherwise(shapes: Sequence[tuple[int, int]]) -> bool:
    """Whether layers (output, input) make a network of the same inputs and outputs in another order too."""
    last = shapes[-1][0]

    def orders(inputs: int, left: tuple[int, ...]) -> int:
        if not left:
            return int(inputs == last)
        count = 0
        for layer in left:
            if shapes[layer][1] == inputs:
                count += orders(shapes[layer][0], tuple(other for other in left if other != layer))
            if count > 1:
                break
        return count

    return orders(shapes[0][1], tuple(range(len(shapes)))) > 1
