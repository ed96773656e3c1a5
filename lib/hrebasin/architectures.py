"""The architecture of any PyTorch network: what two networks must share to be merged, read from a module.

`hrebasin.networks.Architecture` says the same of MLPs, whose products are faster for many networks at once.
"""

import copy
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from torch.func import functional_call, vmap

from .networks import Stackable
from .random_streams import generator
from .symmetry import Symmetry, derive_symmetry, prove_symmetry
from .symmetry.subject import check_tensors, copied, is_dense

DRAWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
RECIPE = "_hrebasin_recipe"  # attribute of networks that `hrebasin.small_networks.build` makes anew
AGREEMENT = 1e-4  # of outputs for an image alone and among others, relative: rounding in float32 stays far below


@dataclass(frozen=True, eq=False)
class NetworkArchitecture(Stackable):
    """A module's structure, without its weights.

    Args:
        template: a copy of the module, on the CPU, in evaluation mode; its weights do not count.
        image_shape: of one input, such as (channel, y, x).
        n_classes: number of logits.
        symmetry: which permutations act on which axes of its tensors.
        recipe: how `hrebasin.small_networks.build` makes the module, ``{"kind": ...}``; empty for other modules.
    """

    template: nn.Module
    image_shape: tuple[int, ...]
    n_classes: int
    symmetry: Symmetry
    recipe: Mapping = field(default_factory=dict)
    copies: threading.local = field(default_factory=threading.local, init=False, repr=False)

    @classmethod
    def of(
        cls, network: nn.Module, example: torch.Tensor, *, symmetry: Symmetry | None = None, prove: bool = True
    ) -> "NetworkArchitecture":
        """Read a module's architecture.

        Args:
            network: is not changed.
            example: inputs (image, ...), at least one. Of images that are alike, all but the first are drawn at random
                where outputs are compared.
            symmetry: by default derived from the module's graph.
            prove: that the symmetry leaves the outputs as they are.

        Raises:
            ValueError: an example that does not fit, outputs that are no logits (image, class), that are random or
                depend on the other images, or a symmetry that changes them.
        """
        if not isinstance(example, torch.Tensor) or example.ndim < 2 or not len(example):
            raise ValueError(f"an example must be a tensor (image, ...) of at least one image, got {_about(example)}")
        if not is_dense(example):
            raise ValueError(f"an example must be a dense tensor with values, got {example.layout} on {example.device}")
        check_tensors(network)
        if not isinstance(symmetry, Symmetry | None):
            raise ValueError(f"symmetry must be a Symmetry, got {type(symmetry).__name__}")
        template = copied(network).cpu().eval().requires_grad_(False)
        template.zero_grad(set_to_none=True)
        example = example.detach().cpu()
        example = as_floats(example)
        if example.is_floating_point():
            example = example.to(next((p.dtype for p in template.parameters()), torch.float32))
        n_classes = _n_classes(template, example)
        symmetry = symmetry or derive_symmetry(network, example)
        if prove:
            prove_symmetry(template, symmetry, telling_inputs(example))
        return cls(template, tuple(example.shape[1:]), n_classes, symmetry, getattr(network, RECIPE, {}))

    def __eq__(self, other) -> bool:
        if not isinstance(other, NetworkArchitecture):
            return NotImplemented
        mine, theirs = ((a.shapes, a.image_shape, str(a.template)) for a in (self, other))
        return mine == theirs

    __hash__ = None

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "copies"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, copies=threading.local())

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter and of every buffer that is saved; of tied ones under their first name."""
        saved, tensors = self.template.state_dict(), dict(self.template.named_parameters())
        tensors |= {name: buffer for name, buffer in self.template.named_buffers() if name in saved}
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of what is trained and matched; buffers such as running statistics are not."""
        return tuple(name for name, _ in self.template.named_parameters())

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The parameters of each layer, by the name of its module."""
        found: dict[str, list[str]] = {}
        for name in self.parameters:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return {layer: tuple(names) for layer, names in found.items()}

    @cached_property
    def batch_norms(self) -> tuple[str, ...]:
        """Names of the modules whose running statistics follow from weights and images."""
        norms = nn.modules.batchnorm._NormBase  # batch norm, and instance norm where it keeps statistics
        modules = self.template.named_modules()
        return tuple(n for n, module in modules if isinstance(module, norms) and module.running_mean is not None)

    @cached_property
    def bytes_kept(self) -> int:
        """What autograd keeps of one image on its way through a network, in float32."""
        network, totals = self.network({}).float().requires_grad_(False), []
        for n_images in (1, 2):  # the difference is without weights
            kept = {}

            def keep(tensor, kept=kept):
                kept[tensor.data_ptr()] = tensor.numel() * tensor.itemsize
                return tensor

            inputs = torch.zeros(n_images, *self.image_shape, requires_grad=True)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                network(inputs)
            totals.append(sum(kept.values()))
        return totals[1] - totals[0]

    @property
    def title(self) -> str:
        """In a few words, such as "ResNet of 11,689,512 parameters"."""
        return f"{type(self.template).__name__} of {self.n_parameters:,} parameters"

    def as_dict(self) -> dict:
        """Plain values, for a file's metadata."""
        return {
            "recipe": dict(self.recipe),
            "module": type(self.template).__name__,
            "image_shape": list(self.image_shape),
            "n_classes": self.n_classes,
            "symmetry": self.symmetry.to_json(),
        }

    def initial(self, stream: torch.Generator) -> dict[str, torch.Tensor]:
        """Untrained tensors: linear layers and convolutions uniform in +-1/sqrt(fan in); norms at 1 and 0.

        Raises:
            ValueError: parameters of another kind of module, whose start only its author knows.
        """
        drawn = {}
        for prefix, module in self.template.named_modules():
            own = {f"{prefix}.{name}".removeprefix("."): p for name, p in module.named_parameters(recurse=False)}
            if not own:
                continue
            if isinstance(module, DRAWN):
                bound = 1 / math.sqrt(module.weight[0].numel())
                drawn |= {
                    name: torch.empty(p.shape).uniform_(-bound, bound, generator=stream) for name, p in own.items()
                }
            elif isinstance(module, NORMS):
                drawn |= {name: torch.full(p.shape, float(name.endswith("weight"))) for name, p in own.items()}
            else:
                raise ValueError(f"no initial weights are known for {prefix!r}, a {type(module).__name__}")
        for name, buffer in self.template.named_buffers():
            if name in self.shapes:
                drawn[name] = torch.full(buffer.shape, float(name.endswith("running_var"))).to(buffer.dtype)
        return {name: drawn[name] for name in self.shapes}

    def network(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """A module with the given tensors, copied, in evaluation mode."""
        network = copy.deepcopy(self.template).requires_grad_(True)
        with torch.no_grad():
            for name, target in (*network.named_parameters(), *network.named_buffers()):
                if name in tensors:
                    target.copy_(tensors[name])
        return network

    def prepare(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs as the module takes them: uint8 pixels become floats in [0, 1]."""
        return as_floats(inputs)

    def logits(self, tensors: Mapping[str, torch.Tensor], inputs: torch.Tensor, *, training: bool = False):
        """Logits (model, image, class) of prepared inputs, shared by all networks or one batch for each.

        On a CPU the networks run one after the other with channels last, three to six times as fast there as all at
        once; on a GPU all at once.

        Args:
            tensors: parameters and buffers, (model, ...).
            inputs: (image, ...) or (model, image, ...).
            training: whether modules are in training mode; running statistics in ``tensors`` are then updated.
        """
        shared = inputs.ndim == len(self.image_shape) + 1
        template, constants = self._template(training), self._constants(tensors)
        if inputs.device.type != "cpu":
            in_dims = (0, None if shared else 0)
            call = vmap(lambda own, x: functional_call(template, own | constants, (x,)), in_dims=in_dims)
            return call(dict(tensors), inputs)
        inputs = _channels_last(inputs) if shared else inputs
        outputs = []
        for model in range(len(next(iter(tensors.values())))):
            own = {name: _channels_last(tensor[model]) for name, tensor in tensors.items()}
            batch = inputs if shared else _channels_last(inputs[model])
            outputs.append(functional_call(template, own | constants, (batch,)))
        return torch.stack(outputs)

    def _constants(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Buffers that are not saved, such as a normalisation's, on the device and of the precision of ``tensors``."""
        like = next((tensor for tensor in tensors.values() if tensor.is_floating_point()), next(iter(tensors.values())))
        others = {name: buffer for name, buffer in self.template.named_buffers() if name not in self.shapes}
        return {name: b.to(like if b.is_floating_point() else like.device) for name, b in others.items()}

    def _template(self, training: bool) -> nn.Module:
        """This thread's own copy of the module: a call puts the tensors of a network into it for a while."""
        if not hasattr(self.copies, "template"):
            self.copies.template = copy.deepcopy(self.template)
        return self.copies.template.train(training)


def as_floats(inputs: torch.Tensor) -> torch.Tensor:
    """Inputs as modules take them: uint8 pixels in [0, 1], others as they are."""
    return inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _n_classes(template: nn.Module, example: torch.Tensor) -> int:
    """Number of logits, of a module whose outputs are logits of each image by itself."""
    parameter = next(template.parameters(), None)
    example = example.to(parameter.dtype) if parameter is not None and example.is_floating_point() else example
    name = type(template).__name__
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        outputs = _run(template, example)
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != len(example):
            raise ValueError(f"{name} must give logits (image, class), got {_about(outputs)}")
        if not torch.equal(outputs.nan_to_num(), template(example).nan_to_num()):
            raise ValueError(f"{name} gives other outputs at every call in evaluation mode: it draws random numbers")
        example = telling_inputs(example)
        outputs = _run(template, example)
        alone = torch.cat([_run(template, image) for image in example.split(1)])
        difference = float((outputs - alone).abs().max() / outputs.abs().max().clamp(min=1e-30))
        if difference > AGREEMENT:
            raise ValueError(
                f"{name} gives an image other outputs among others than alone (by {difference:.1e} of their size): "
                "it takes statistics of the batch in evaluation mode"
            )
    return outputs.shape[1]


def _run(template: nn.Module, example: torch.Tensor) -> torch.Tensor:
    try:
        return template(example)
    except Exception as error:  # whatever a module's own code may raise
        raise ValueError(
            f"{type(template).__name__} does not run on the example of shape {tuple(example.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def telling_inputs(example: torch.Tensor) -> torch.Tensor:
    """Inputs (image, ...) that differ: of floating-point ones that are alike, all but the first are drawn at random."""
    if not example.is_floating_point() or (len(example) > 1 and bool((example != example[:1]).any())):
        return example
    drawn = torch.rand(max(2, len(example)), *example.shape[1:], generator=generator("example"))
    return torch.cat([example[:1], drawn[1:].to(example.dtype)])


def _about(given) -> str:
    return f"shape {tuple(given.shape)}" if isinstance(given, torch.Tensor) else type(given).__name__
