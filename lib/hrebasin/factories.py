"""A network named in words: ``package.module:make``, where a file's weights do not tell one."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from .random_streams import generator

FORM = "package.module:make or path/to/file.py:make, as in torchvision.models:resnet18 or nets.py:make(width=8)"


def build_network(factory: str) -> nn.Module:
    """The module that a factory makes.

    >>> build_network("torch.nn:Linear(in_features=4, out_features=3)")
    Linear(in_features=4, out_features=3, bias=True)

    Args:
        factory: a function or class, by its module and name or by its Python file and name. It is called without
            arguments, or with those in brackets, which are named and literal.

    Raises:
        ValueError: words of another form, nothing of that name, or something else than a module.
    """
    place, colon, call = factory.rpartition(":")
    if not colon or not place or not call:
        raise ValueError(f"a network is named as {FORM}; got {factory!r}")
    name, options = _parsed(call, factory)
    module = _module(place)
    if not hasattr(module, name):
        raise ValueError(f"{place} has no {name!r}")
    try:
        network = getattr(module, name)(**options)
    except Exception as error:  # whatever the factory's code may raise
        raise ValueError(f"{factory} makes no network: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{factory} makes a {type(network).__name__}, no torch.nn.Module")
    return network


def example_inputs(shape: Sequence[int]) -> torch.Tensor:
    """Two inputs of a shape such as (3, 32, 32), in [0, 1], always the same."""
    shape = tuple(shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"an example's shape is of positive sizes, such as 3,32,32; got {shape}")
    try:
        return torch.rand(2, *shape, generator=generator("example"))
    except RuntimeError as error:
        raise ValueError(f"an example of shape {shape} does not fit into memory") from error


def _parsed(call: str, factory: str) -> tuple[str, dict]:
    try:
        tree = ast.parse(call, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, {word.arg: ast.literal_eval(word.value) for word in tree.keywords if word.arg}
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"a network is named as {FORM}; got {factory!r}")


def _module(place: str):
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        spec = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever the file's code may raise
            raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        return module
    try:
        return importlib.import_module(place)
    except Exception as error:  # whatever the module's code may raise
        raise ValueError(
            f"{place} cannot be imported ({type(error).__name__}: {error}); a module must be installed or on "
            "PYTHONPATH, a file is named by its path, as in nets.py:make"
        ) from error
