"""The network under study: a copy that may be changed, its tensors by name, and its outputs as plain tensors."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

# A tensor, or positional arguments, or arguments by name.
Example = torch.Tensor | tuple | list | Mapping
Kind = TypeVar("Kind")


class Subject(nn.Module):
    """A copy of a network on the CPU in evaluation mode, whose outputs are a tuple of tensors.

    Args:
        network: is not changed.

    Raises:
        ValueError: a network that cannot be copied, or a tensor that is not real with 32 or 64 bits.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ValueError(f"a network must be a torch.nn.Module, got {type(network).__name__}")
        check_tensors(network)
        self.network = copied(network).cpu().eval()
        self.n_runs = 0
        for parameter in self.parameters():
            # without gradients, attention takes a shortcut of which an exported graph shows one opaque operation
            parameter.requires_grad_(parameter.is_floating_point())

    def forward(self, *args, **kwargs):
        """All tensors of the outputs."""
        return tuple(found_in(self.network(*args, **kwargs), torch.Tensor))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and saved buffers by name; tied ones are one object under several names."""
        named = dict(self.network.named_parameters(remove_duplicate=False))
        named |= self.network.named_buffers(remove_duplicate=False)
        return {name: named[name] for name in self.network.state_dict() if name in named}

    def run(self, example: Example) -> tuple[torch.Tensor, ...]:
        """The outputs without gradients.

        Raises:
            ValueError: an example that does not fit.
        """
        args, kwargs = arguments(example, self)
        try:
            self.n_runs += 1  # a network that draws random numbers is seen to: every run has its own
            with torch.no_grad(), own_random_state(self.n_runs):
                outputs = self(*args, **kwargs)
        except Exception as error:  # whatever a module's own code may raise
            raise ValueError(
                f"{type(self.network).__name__} does not run on the example {_described(example)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not outputs:
            raise ValueError(f"the outputs of {type(self.network).__name__} hold no tensor")
        return outputs


@contextlib.contextmanager
def own_random_state(seed: int) -> Iterator[None]:
    """Whatever is drawn inside, the caller's random numbers stay the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def arguments(example: Example, subject: Subject) -> tuple[tuple, dict]:
    """An example as positional arguments and arguments by name, on the CPU, in the precision of the network."""
    precisions = {p.dtype for p in subject.parameters() if p.is_floating_point()}
    dtype = next(iter(precisions)) if len(precisions) == 1 else None

    def placed(value):
        if not isinstance(value, torch.Tensor):
            return value
        value = value.detach().cpu()
        return value.to(dtype) if dtype and value.is_floating_point() else value

    if isinstance(example, Mapping):
        return (), {name: placed(value) for name, value in example.items()}
    args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    return tuple(map(placed, args)), {}


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds a value for each of its elements."""
    return tensor.layout == torch.strided and not tensor.is_meta


def copied(network: nn.Module) -> nn.Module:
    """A copy of a network; ValueError where it cannot be copied, such as one that is pruned."""
    try:
        return copy.deepcopy(network)
    except Exception as error:  # whatever a module's own code may raise
        raise ValueError(f"the network {type(network).__name__} cannot be copied: {error}") from error


def check_tensors(network: nn.Module) -> None:
    """Raise ValueError unless a network's tensors are there, real, and of 32 or 64 bits; it names the tensor."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if isinstance(tensor, UninitializedTensorMixin):
            raise ValueError(f"{name!r} is not initialised: run the lazy module once on an example")
    for name, tensor in network.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            if name.endswith("_extra_state"):
                continue
            raise ValueError(f"{name!r} is no tensor but {type(tensor).__name__}: is the module quantised?")
        if tensor.is_quantized:
            raise ValueError(f"{name!r} is quantised ({tensor.dtype}); merge the network before it is quantised")
        if tensor.is_complex():
            raise ValueError(f"{name!r} is complex ({tensor.dtype}); only real weights can be merged")
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name!r} has dtype {tensor.dtype}; convert the network by network.float()")
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the meta device: it has a shape but no numbers")


def found_in(given, kind: type[Kind]) -> Iterator[Kind]:
    """Everything of one kind in nested tuples, lists, mappings and dataclasses."""
    if isinstance(given, kind):
        yield given
        return
    if isinstance(given, Mapping):
        given = given.values()
    elif dataclasses.is_dataclass(given):
        given = [getattr(given, field.name) for field in dataclasses.fields(given)]
    elif not isinstance(given, (tuple, list)):
        return
    for part in given:
        yield from found_in(part, kind)


def _described(example: Example) -> str:
    args = list(example.values()) if isinstance(example, Mapping) else example
    args = args if isinstance(args, (tuple, list)) else (args,)
    shapes = (f"{tuple(a.shape)}" if isinstance(a, torch.Tensor) else type(a).__name__ for a in args)
    return f"of shape {', '.join(shapes)}"
