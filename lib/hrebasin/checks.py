"""What does not fit is refused before anything is computed: pixels, labels, weights, networks of another kind."""

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from .architectures import NetworkArchitecture, telling_inputs
from .images.sources import Images, check_labels
from .networks import Architecture
from .symmetry.subject import check_tensors

SAME_OUTPUTS = 1e-3  # relative; rounding in float32 stays far below

if TYPE_CHECKING:
    from .bank import Bank


def check_bank(*banks: "Bank") -> None:
    """Raise TypeError unless these are banks."""
    from .bank import Bank  # which imports this module

    for bank in banks:
        if not isinstance(bank, Bank):
            raise TypeError(
                f"a Bank of networks is needed, got {type(bank).__name__}: hrebasin.Bank.stack(networks, "
                "example=images[:2]) makes one"
            )


def check_pixels(architecture: Architecture, pixels: torch.Tensor, labels: torch.Tensor | None = None) -> None:
    """Raise ValueError unless pixels are (image, channel, y, x) of an architecture, uint8 or in [0, 1], and labels fit.

    Labels, where they are given, are checked by `check_labels`.
    """
    if tuple(pixels.shape[1:]) != architecture.image_shape or not len(pixels):
        raise ValueError(
            f"pixels must be (image, *{architecture.image_shape}) of at least one image, got {tuple(pixels.shape)}"
        )
    if not (pixels.is_floating_point() or pixels.dtype == torch.uint8):
        raise ValueError(f"pixels must be uint8 or floats in [0, 1], got {pixels.dtype}")
    if pixels.dtype != torch.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {pixels.min():g} to {pixels.max():g}")
    if labels is not None:
        check_labels(labels, len(pixels), architecture.n_classes)


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


def check_same_architecture(bank: "Bank", other: "Bank") -> None:
    """Raise ValueError unless both banks hold networks of one architecture."""
    if bank.architecture != other.architecture:
        raise ValueError(f"networks of different architectures: {bank.architecture} and {other.architecture}")


def check_finite(bank: "Bank", where: str) -> None:
    """Raise ValueError unless all weights are numbers; it names the tensor and the seeds of the networks."""
    for name, tensor in bank.tensors.items():
        if torch.isfinite(tensor.sum()):  # several times as fast as to look at each; a sum that overflows tells nothing
            continue
        bad = ~torch.isfinite(tensor).flatten(1).all(1).cpu().numpy()
        if bad.any():
            raise ValueError(f"{where}: {name} of {_called(bank, bad)} holds weights that are not finite")


def check_permutations(bank: "Bank") -> None:
    """Raise ValueError unless networks have units to permute."""
    if not bank.architecture.symmetry.permutations:
        raise ValueError(f"{bank.architecture.title} has no permutation symmetry: there is nothing to match")


def single_precision(pixels: torch.Tensor) -> torch.Tensor:
    """Floating-point pixels as float32, as networks take them; uint8 as it is."""
    return pixels.float() if pixels.is_floating_point() else pixels


def largest_weight(banks: Iterable["Bank"]) -> str:
    """Where the largest parameter of some banks stands, in words: for errors of products that left float32."""
    largest, words = -1.0, ""
    for bank in banks:
        for name in bank.architecture.parameters:
            sizes = bank.tensors[name].flatten(1).abs().amax(1).cpu()
            if float(sizes.max()) > largest:
                largest = float(sizes.max())
                words = f"{name} of {_called(bank, [int(sizes.argmax())])} holds weights of {largest:.1e}"
    return words


def _called(bank: "Bank", which) -> str:
    """Networks in words: their seeds, or their positions where these are unknown."""
    seeds, positions = bank.labels["seed"][which], np.arange(len(bank))[which]
    known = (seeds >= 0).all()
    return f"the network {'of seed' if known else 'at position'} {', '.join(map(str, seeds if known else positions))}"


def listed(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """Networks as a list; ValueError for one network, or what holds none."""
    if isinstance(networks, nn.Module) or not isinstance(networks, Iterable):
        raise ValueError(f"networks must be a list of modules, got one {type(networks).__name__}")
    return list(networks)


def check_module(position: int, network: nn.Module) -> None:
    """Raise ValueError for what is no module of real tensors with 32 or 64 bits; it names position and tensor."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"network {position} is no torch.nn.Module but {type(network).__name__}")
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"network {position} is wrapped in {type(network).__name__}: give its .module")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(f"network {position} is a TorchScript module: give the module that it was made from")
    try:
        check_tensors(network)
        check_range(network.state_dict())
        precisions = {each.dtype: name for name, each in network.named_parameters() if each.is_floating_point()}
        if len(precisions) > 1:
            told = " and ".join(f"{name!r} has {dtype}" for dtype, name in precisions.items())
            raise ValueError(f"{told}: convert the network by network.float()")
    except ValueError as error:
        raise ValueError(f"network {position}: {error}") from error


def check_range(state: Mapping[str, object]) -> None:
    """Raise ValueError for a number of 64 bits that is infinite once it is float32; the tensor is named."""
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
            lost = tensor.float().isinf() & tensor.isfinite()
            if lost.any():
                raise ValueError(f"{name!r} holds {float(tensor[lost][0]):.1e}, which float32 cannot hold")


def check_alike(position: int, network: nn.Module, first: nn.Module) -> None:
    """Raise ValueError unless a network has the architecture of network 0."""
    ours, theirs = (
        {name: tuple(getattr(tensor, "shape", ())) for name, tensor in each.state_dict().items()}
        for each in (network, first)
    )
    different = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    if different:
        name = min(different)
        what = f"{name!r} of shape {ours.get(name, 'none')}, but network 0 has {theirs.get(name, 'none')}"
    elif getattr(network, "architecture", None) != getattr(first, "architecture", None) or str(network) != str(first):
        lines = zip(*(str(each).splitlines() for each in (network, first)), strict=False)
        a, b = next(
            ((a, b) for a, b in lines if a != b),
            (getattr(network, "architecture", ""), getattr(first, "architecture", "")),
        )
        what = f"{str(a).strip()}, but network 0 has {str(b).strip()}"
    else:
        _check_integers(position, network, first)
        return
    raise ValueError(f"network {position} has {what}: only networks of one architecture form a bank")


def _check_integers(position: int, network: nn.Module, first: nn.Module) -> None:
    """Raise ValueError where tables of integers, such as masks and places, are not those of network 0."""
    there = first.state_dict()
    for name, tensor in network.state_dict().items():
        whole = isinstance(tensor, torch.Tensor) and not tensor.is_floating_point() and tensor.ndim
        if whole and not torch.equal(tensor.cpu(), there[name].cpu()):
            raise ValueError(f"network {position} has other numbers in {name!r} than network 0: no mean is one of them")


def check_outputs(bank: "Bank", networks: Iterable[nn.Module], example: torch.Tensor) -> None:
    """Raise ValueError unless a bank answers as the networks that it was stacked from.

    What a module computes may hang on functions, numbers and buffers that neither its weights nor its text tell, and
    weights that network 0 ties may differ elsewhere.
    """
    inputs = telling_inputs(bank.architecture.prepare(example.detach().cpu()))  # zeros would hide what differs
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    for position, (network, ours) in enumerate(zip(networks, bank(inputs), strict=True)):
        own = copy.deepcopy(network).cpu().float().eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            theirs = own(inputs)
        difference = float((theirs - ours).abs().max() / theirs.abs().max().clamp(min=1e-30))
        if theirs.isfinite().all() and not difference <= SAME_OUTPUTS:
            raise ValueError(
                f"network {position} gives other outputs than network 0 with its weights (by {difference:.1e} of their "
                "size): they differ in ties, or in functions, numbers or buffers that are no weights"
            )
