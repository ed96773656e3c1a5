"""The architecture: multilayer perceptrons with ReLU whose normalisation lives inside the network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import nn

from .resources import multiplies_bfloat16, plain_torch
from .symmetry import Symmetry, symmetry_from_spec

PermutationSpec = dict[str, tuple[str | None, ...]]


def scaled(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    """Hidden widths times a factor, rounded, at least 1.

    >>> scaled((512, 512, 256), 0.001953125)
    (1, 1, 1)
    """
    return tuple(max(1, round(factor * width)) for width in widths)


class Stackable:
    """What architectures of all kinds share: a size, and networks that answer side by side."""

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters of one network."""
        return sum(math.prod(self.shapes[name]) for name in self.parameters)

    def forward(self, tensors: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        """Logits (model, image, class); see `hrebasin.bank.Bank.__call__`."""
        n_models, own = len(next(iter(tensors.values()))), len(self.image_shape)
        if tuple(inputs.shape[-own:]) != self.image_shape or inputs.ndim not in (own + 1, own + 2):
            shape = ", ".join(map(str, self.image_shape))
            raise ValueError(f"inputs must be (image, {shape}) or (model, image, {shape}), got {tuple(inputs.shape)}")
        if inputs.ndim == own + 2 and len(inputs) != n_models:
            raise ValueError(f"inputs are {tuple(inputs.shape)} for {n_models} networks")
        return self.logits(tensors, self.prepare(inputs))


@dataclass(frozen=True)
class Architecture(Stackable):
    """What two networks must share to be merged.

    Args:
        widths: hidden widths, input side first; ``(512, 512, 256)`` reads the paper's "4 layers, hidden
            width 512, latent width 256" as 3072-512-512-256-10.
        n_classes: number of logits.
        image_shape: (channel, y, x) of an image.
        mean, std: per-channel normalisation in pixel units, pixels in [0, 1].

    >>> Architecture(widths=(8,), n_classes=3, image_shape=(1, 2, 2), mean=(0.5,), std=(0.25,)).units
    (4, 8, 3)
    """

    widths: tuple[int, ...] = (512, 512, 256)
    n_classes: int = 10
    image_shape: tuple[int, int, int] = (3, 32, 32)
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        for name in ("widths", "image_shape", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.widths:
            raise ValueError("at least one hidden layer is needed, got widths=()")
        if any(int(width) != width or width < 1 for width in self.widths):
            raise ValueError(f"widths must be positive integers, got {self.widths}")
        if self.n_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got n_classes={self.n_classes}")
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape must be (channel, y, x), got {self.image_shape}")
        channels = self.image_shape[0]
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean {self.mean} and std {self.std} need one value for each of {channels} channels")
        if not all(math.isfinite(value) for value in self.mean + self.std) or min(self.std) <= 0:
            raise ValueError(f"mean must be finite and std finite and positive, got {self.mean}, {self.std}")

    @property
    def units(self) -> tuple[int, ...]:
        """Units from input to output: (3072, 512, 512, 256, 10)."""
        return (math.prod(self.image_shape), *self.widths, self.n_classes)

    @property
    def title(self) -> str:
        """In a few words: "3072-512-512-256-10"."""
        return "-".join(map(str, self.units))

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The parameters of each affine layer, by its name: ``{"fc1": ("fc1.weight", "fc1.bias"), ...}``."""
        names = [f"fc{number}" for number in range(1, len(self.widths) + 2)]
        return {name: (f"{name}.weight", f"{name}.bias") for name in names}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of what is trained and matched: everything."""
        return tuple(self.shapes)

    batch_norms = ()

    @cached_property
    def symmetry(self) -> Symmetry:
        """Which permutations act on which axes."""
        return symmetry_from_spec(permutation_spec(self), self.shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter, in layer order."""
        shapes = {}
        for (weight, bias), (fan_in, fan_out) in zip(self.layers.values(), pairwise(self.units), strict=True):
            shapes |= {weight: (fan_out, fan_in), bias: (fan_out,)}
        return shapes

    def as_dict(self) -> dict:
        """Plain values, for a file's metadata."""
        return asdict(self)

    def initial(self, stream: torch.Generator) -> dict[str, torch.Tensor]:
        """Untrained weights, uniform in +-1/sqrt(fan in), drawn layer by layer."""
        drawn = {}
        for names, fan_in in zip(self.layers.values(), self.units[:-1], strict=True):
            bound = 1 / math.sqrt(fan_in)
            drawn |= {name: torch.empty(self.shapes[name]).uniform_(-bound, bound, generator=stream) for name in names}
        return drawn

    def network(self, tensors: Mapping[str, torch.Tensor]) -> "MLP":
        """A module with the given tensors, copied."""
        network = MLP(self)
        network.load_state_dict({name: tensor.cpu() for name, tensor in tensors.items()})
        return network

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (..., channel, y, x), uint8 or in [0, 1], to the first layer's input (..., input), float32."""
        whole = pixels.dtype == torch.uint8
        unit = 255.0 if whole else 1.0
        pixels = pixels.float() if whole else pixels
        options = {"dtype": pixels.dtype, "device": pixels.device}
        mean = torch.tensor(self.mean, **options).view(-1, 1, 1) * unit
        std = torch.tensor(self.std, **options).view(-1, 1, 1) * unit
        # in place only on the copy made here: the caller's pixels stay, and autograd may need them
        x = pixels.sub_(mean).div_(std) if whole else (pixels - mean) / std
        return x.flatten(-3)

    def logits(self, tensors: Mapping[str, torch.Tensor], x: torch.Tensor, *, training: bool = False) -> torch.Tensor:
        """Logits (model, image, class) of prepared input (image, input) or (model, image, input)."""
        return self.after_first(tensors, self.first_layer(tensors, x))

    def first_layer(self, tensors: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """What the first layer gives before its ReLU, (model, image, unit); linear in its weights. ``x``: `logits`."""
        return _affine(x, tensors["fc1.weight"], tensors["fc1.bias"])

    def after_first(self, tensors: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Logits (model, image, class) from what `first_layer` gives."""
        for weight, bias in list(self.layers.values())[1:]:
            x = _affine(torch.relu(x), tensors[weight], tensors[bias])
        return x

    def pixel_scale(self) -> torch.Tensor:
        """1/std for every input unit, (input,) float64: the slope of the normalisation in pixel units."""
        channels, *pixels = self.image_shape
        return (1 / torch.tensor(self.std, dtype=torch.float64)).repeat_interleave(math.prod(pixels))


class Normalize(nn.Module):
    """Pixels in [0, 1], (..., channel, y, x), to zero mean and unit variance per channel."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, pixels):
        """Normalise."""
        return (pixels - self.mean) / self.std


class MLP(nn.Sequential):
    """One network of an `Architecture`: pixels (image, channel, y, x) in [0, 1] to logits (image, class)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.add_module("normalize", Normalize(architecture.mean, architecture.std))
        self.add_module("flatten", nn.Flatten())
        for name, (fan_in, fan_out) in zip(architecture.layers, pairwise(architecture.units), strict=True):
            self.add_module(name, nn.Linear(fan_in, fan_out))
            if name != list(architecture.layers)[-1]:
                self.add_module(f"relu{name[2:]}", nn.ReLU())


def is_mlp(network: nn.Module) -> bool:
    """Whether a module is an `MLP` as it was made: no layer replaced, no class of its own."""
    if type(network) is not MLP:
        return False
    hidden = [nn.Linear, nn.ReLU] * len(network.architecture.widths)
    return [type(module) for module in network] == [Normalize, nn.Flatten, *hidden, nn.Linear]


@plain_torch()
def mlp(
    widths=(512, 512, 256),
    *,
    n_classes=10,
    image_shape=(3, 32, 32),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
) -> MLP:
    """A multilayer perceptron with ReLU after all but the last layer; see `Architecture` for the arguments."""
    return MLP(Architecture(tuple(widths), n_classes, tuple(image_shape), tuple(mean), tuple(std)))


def permutation_spec(architecture: Architecture) -> PermutationSpec:
    """Which permutation acts on which axis of which parameter; None where none may.

    Input and output units are never permuted.

    >>> permutation_spec(Architecture(widths=(8,)))["fc2.weight"]
    (None, 'P1')
    """
    last = len(architecture.layers)
    spec: PermutationSpec = {}
    for number, layer in enumerate(architecture.layers, start=1):
        rows = f"P{number}" if number < last else None
        columns = f"P{number - 1}" if number > 1 else None
        spec[f"{layer}.weight"] = (rows, columns)
        spec[f"{layer}.bias"] = (rows,)
    return spec


def _affine(x, weight, bias):
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not multiplies_bfloat16():
        return _product(x.float(), weight.float(), bias.float()).bfloat16()
    return _product(x, weight, bias)


def _product(x, weight, bias):
    n_models, n_out, n_in = weight.shape
    if n_models == 1:  # the plain product is as fast as a CPU gets
        # squeezed, not indexed: the gradient of an index is a copy into zeros
        y = torch.nn.functional.linear(x.reshape(-1, n_in), weight.squeeze(0), bias.squeeze(0))
        return y.view(1, -1, n_out)
    if x.ndim == 2:  # shared input: one wide product for all networks
        y = torch.nn.functional.linear(x, weight.reshape(-1, n_in), bias.reshape(-1))
        return y.view(len(x), n_models, n_out).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
