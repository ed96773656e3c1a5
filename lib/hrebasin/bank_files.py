"""Files of banks: weights as safetensors, whose header tells architecture, labels and origin."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .architectures import NetworkArchitecture
from .files import check_readable, write_atomically
from .networks import Architecture
from .small_networks import build
from .symmetry import Symmetry
from .symmetry.subject import copied

FORMAT = "hrebasin-bank/1"


def write(path: Path, architecture, tensors: Mapping[str, torch.Tensor], labels: Mapping, origin: Mapping) -> None:
    """Write a bank's parts, see `hrebasin.bank.Bank.save`."""
    _check_types(tensors, path, architecture.parameters)
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(architecture.as_dict()),
        "labels": json.dumps(dict(labels)),
        "origin": json.dumps(dict(origin)),
    }
    write_atomically(path, save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))


def read(path: Path, network: nn.Module | None, device: str) -> tuple:
    """Architecture, tensors and labels of a bank's file, see `hrebasin.bank.Bank.load`."""
    if not path.is_file():
        raise FileNotFoundError(f"no bank of networks at {path}")
    check_readable(path)
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} is not a bank: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    try:
        architecture = _architecture(json.loads(metadata["architecture"]), network)
        labels = json.loads(metadata["labels"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no valid bank: {error}") from error
    _check_types(tensors, path, architecture.parameters)
    return architecture, tensors, labels


def read_origin(path: Path | str) -> dict:
    """Where the networks of a file that `Bank.load` reads come from, as `Bank.save` was told; empty if it was not."""
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get("origin", "{}"))


def _architecture(told: Mapping, network: nn.Module | None) -> Architecture | NetworkArchitecture:
    """What a file tells of its networks."""
    if "recipe" not in told:
        return Architecture(**told)
    if told["recipe"]:
        network = build(told["recipe"])
    if network is None:
        raise ValueError(f"its networks are {told['module']}, which only a module tells: give one as network=")
    template = copied(network).cpu().eval().requires_grad_(False)
    shape, symmetry = tuple(told["image_shape"]), Symmetry.from_json(told["symmetry"])
    architecture = NetworkArchitecture(template, shape, told["n_classes"], symmetry, told["recipe"])
    if type(network).__name__ != told["module"] or not set(architecture.shapes) <= set(symmetry.axes):
        raise ValueError(f"its networks are {told['module']}, but the given one is {architecture.title}")
    return architecture


def _check_types(tensors: Mapping[str, torch.Tensor], path: Path | str, parameters: Collection[str]) -> None:
    """Raise ValueError unless all numbers are float32; counters and tables of integers are no parameters."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 and (tensor.is_floating_point() or name in parameters):
            raise ValueError(f"{path}: {name} is {tensor.dtype}, not torch.float32")
