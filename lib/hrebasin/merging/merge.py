"""Merging in one call: modules in, a module like them out; or state dicts in, a state dict with their names out."""

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..architectures import as_floats
from ..bank import Bank
from ..checks import check_labels, check_module, check_permutations, listed
from ..images.sources import Images
from ..networks import is_mlp
from ..random_streams import Seed
from ..resources import plain_torch
from ..state_dicts import check_logits, checked_pair
from ..state_names import loaded, renamed
from ..symmetry import Symmetry
from ..symmetry.subject import is_dense
from .batch_norm import measured_later
from .looks import BUILT_IN, RIVALS
from .method import TrainingImages, parts_of
from .methods import MERGES, Method, method_named
from .transport import fuse

OTHER_MODULE = "Do the module's functions and numbers, which no state dict tells, differ from those of the training?"


@plain_torch()
def merge(
    networks: Sequence[nn.Module],
    example: torch.Tensor | None = None,
    *,
    method: str = "tree",
    images: TrainingImages | None = None,
    repair: bool = False,
    seed: Seed = 0,
    symmetry: Symmetry | None = None,
    prove: bool = True,
) -> nn.Module:
    """Merge networks of one architecture into one: their units are matched, then their weights averaged.

    >>> networks = [nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)) for _ in range(4)]
    >>> merge(networks, example=torch.randn(2, 4))
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): GELU(approximate='none')
      (2): Linear(in_features=8, out_features=3, bias=True)
    )

    Args:
        networks: two or more modules that give logits (image, class), of any kind that `torch.export` can read; they
            are not changed. Weights are merged in float32. They are of one architecture; only ``"ot-fusion"`` takes the
            library's MLPs (`hrebasin.mlp`) of different widths too, and gives one as wide as the first.
        example: inputs (image, ...) for all, such as ``images[:2]``; by default the first of ``images``.
        method: ``"tree"`` (the paper's; takes 2, 4, 8, ... networks), ``"merge-many"``, or another one of
            `method_names`. The ensemble is none: `hrebasin.ensemble` runs all networks as one module.
        images: training inputs (image, ...) as the networks take them, uint8 or floats, on which batch norm is measured
            anew. Without them its statistics are averaged, with a warning. Some methods cannot do without; those that
            need labels take `Images`, or a pair of inputs and labels (image,).
        repair: give every unit the mean and spread that it has in the networks (REPAIR, Jordan et al. 2023), measured
            on ``images``.
        seed: of the orders of layers and networks.
        symmetry: which permutations act on the networks; by default derived from the first one's graph. That of the
            library's MLPs is known.
        prove: that the symmetry leaves the outputs of the first network as they are.

    Returns:
        A module of the same class, names, precision and device as the first network, in evaluation mode. What is no
        floating-point number, such as a counter, is the first network's.

    Raises:
        ModuleNotFoundError: networks of different widths, and the package POT is not installed.
        ValueError: fewer than two networks, a number that no tree has, an unknown method, networks without permutations
            to match, or what `hrebasin.Bank.stack` refuses; network (they count from 0) and tensor are named.
    """
    networks = listed(networks)
    act = _checked_method(networks, method)
    for position, network in enumerate(networks):
        _check_network(position, network)
    images, example = _checked_images(images, example)
    if method == "ot-fusion" and _differ_in_width(networks):
        pixels = act.given(images, repaired=repair)["pixels"]
        banks = [Bank.stack([each], example, symmetry=symmetry) for each in networks]
        merged = fuse(banks, repaired_on=pixels if repair else None)
    else:
        bank = Bank.stack(networks, example, symmetry=symmetry, prove=prove, seed=range(len(networks)))
        merged = _merged(bank, act, images, seed, repair)
    return _like(networks[0], merged)


def merge_state_dicts(
    network: nn.Module,
    states: Sequence[Mapping[str, torch.Tensor]],
    example: torch.Tensor | None = None,
    *,
    names: Sequence[str] = (),
    reference: tuple[torch.Tensor, torch.Tensor] | None = None,
    **options,
) -> dict[str, torch.Tensor]:
    """`merge` for weights that lie in state dicts.

    Args:
        network: a module that they fit; it is not changed, and its own weights do not count.
        states: of two or more networks. What wrappers add to the names, such as ``module.`` or ``_orig_mod.``, is
            recognised; see `hrebasin.state_names.own_names`.
        example: as in `merge`.
        names: of the state dicts, such as their files, for messages; by default their positions, from 0.
        reference: inputs (image, ...) and the logits that the first network gave for them, (image, class), or those of
            every network, (model, image, class), which the module must give with these weights.
        options: as in `merge`.

    Returns:
        A state dict with the names and entries of the first one.

    Raises:
        ValueError: a state dict that does not fit the network, or gives other logits than the reference, or what
            `merge` refuses; state dict and tensor are named.
    """
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must be a torch.nn.Module, got {type(network).__name__}")
    states = list(states)
    names = list(names) or [f"state dict {position}" for position in range(len(states))]
    if len(names) != len(states):
        raise ValueError(f"{len(names)} names given for {len(states)} state dicts")
    networks = [loaded(network, state, name) for state, name in zip(states, names, strict=True)]
    if reference is not None:
        inputs, logits = checked_pair(reference)
        check_logits([_answers(each, inputs) for each in networks], logits, names=names, hint=OTHER_MODULE)
    merged = merge(networks, example, **options)
    return {
        name: tensor.to(states[0][name].dtype) if isinstance(tensor, torch.Tensor) else tensor
        for name, tensor in renamed(merged.state_dict(), states[0]).items()
    }


def method_names() -> list[str]:
    """Names of all methods that `merge` takes: what the registry holds.

    >>> method_names()[:4]
    ['tree', 'merge-many', 'naive', 'merge-many-from-tree']
    """
    return list(MERGES)


def _answers(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Logits in evaluation mode."""
    own, like = copy.deepcopy(network).eval(), next(network.parameters(), torch.zeros(1))
    inputs = as_floats(inputs)
    with torch.no_grad():
        return own(inputs.to(like if inputs.is_floating_point() else like.device)).float().cpu()


def _checked_method(networks: Sequence[nn.Module], method: str) -> Method:
    found, n = method_named(method), len(networks)
    if n < 2:
        raise ValueError(f"merging needs at least 2 networks, got {n}")
    if not found.takes(n):
        what, others = "a tree" if method == "tree" else repr(method), [m for m in MERGES if MERGES[m].takes(n)]
        raise ValueError(
            f"{what} needs 2, 4, 8, ... networks, got {n}; any number can be merged by {', '.join(others)}"
        )
    return found


def _differ_in_width(networks: Sequence[nn.Module]) -> bool:
    """Whether these are MLPs of the library, and not all of one architecture."""
    return all(map(is_mlp, networks)) and any(each.architecture != networks[0].architecture for each in networks)


def _checked_images(images, example) -> tuple[TrainingImages | None, torch.Tensor | None]:
    """Images and example as `Bank.stack` and methods take them."""
    if images is None:
        return images, example
    pixels, labels = parts_of(images).values()
    if not isinstance(pixels, torch.Tensor) or (example is not None and pixels.shape[1:] != example.shape[1:]):
        given = tuple(pixels.shape) if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise ValueError(f"images must be a torch.Tensor (image, ...) of the example's shape, got {given}")
    if not pixels.ndim or not is_dense(pixels):
        kind = "a number" if not pixels.ndim else "on the meta device" if pixels.is_meta else pixels.layout
        raise ValueError(f"images must be a dense torch.Tensor (image, ...), got one that is {kind}")
    if example is not None and not (example.is_floating_point() or example.dtype == torch.uint8):
        raise ValueError(f"images are uint8 or floats, but the example is {example.dtype}: merge without images")
    if not len(pixels) or not (pixels.is_floating_point() or pixels.dtype == torch.uint8):
        raise ValueError(f"images must be some, uint8 or floats, got {len(pixels)} of {pixels.dtype}")
    floats = pixels.float() if pixels.is_floating_point() else pixels
    if not torch.isfinite(floats).all():
        raise ValueError("images must be finite, in float32 too")
    if labels is not None:
        check_labels(labels, len(pixels))
    if not isinstance(images, Images):
        pixels = floats
        images = pixels if labels is None else (pixels, labels)
    return images, pixels[:2] if example is None else example


def _check_network(position: int, network: nn.Module) -> None:
    """Raise ValueError for what is no module of finite numbers."""
    if isinstance(network, Mapping):
        raise ValueError(f"network {position} is a state dict: merge_state_dicts takes those, with a network")
    check_module(position, network)
    if position == 0 and any(map(is_parametrized, network.modules())):
        warnings.warn(
            "the networks have parametrised weights, such as weight norm: what these are made of is averaged, not the "
            "weights; torch.nn.utils.parametrize.remove_parametrizations makes them plain",
            stacklevel=4,
        )
    for name, tensor in network.state_dict().items():
        if isinstance(tensor, torch.Tensor) and not torch.isfinite(tensor).all():
            raise ValueError(f"network {position}: {name!r} holds values that are not finite")


def _merged(bank: Bank, act: Method, images: TrainingImages | None, seed: Seed, repaired: bool) -> Bank:
    """One network, its batch norm measured at last: until then only weights count."""
    if act.name in BUILT_IN + tuple(RIVALS) and act.name != "naive":
        check_permutations(bank)
    if bank.architecture.batch_norms and images is None:
        warnings.warn(
            "the running statistics of batch norm were averaged, which costs a merged network most of its accuracy: "
            "give training images as images=",
            stacklevel=4,
        )
    with measured_later():  # as said above
        return act(bank, seed, images, repaired=repaired)


def _like(network: nn.Module, bank: Bank) -> nn.Module:
    """A copy of a network with the tensors of a bank of one, in evaluation mode."""
    merged = copy.deepcopy(network).eval()
    merged.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, target in (*merged.named_parameters(), *merged.named_buffers()):
            if name in bank.tensors:
                target.copy_(bank.tensors[name][0])
    return merged
