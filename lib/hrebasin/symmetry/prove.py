"""The test of a symmetry on its network: with every permutation drawn at random, the outputs must stay."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import nn

from ..resources import plain_torch
from .axes import Permutations, Symmetry, inverse, names_of
from .subject import Example, Subject

# Relative error of the outputs. Rounding in float64 stays below 1e-12 in networks of 200 layers, while a single axis in
# a wrong order changes outputs by 1e-6 at the least.
TOLERANCE = 1e-9


class SymmetryRefutedError(ValueError):
    """A symmetry that changes the outputs.

    Attributes:
        permutations: names of those that do.
        error: relative error of the outputs with all permutations at once.
    """

    def __init__(self, message: str, permutations: tuple[str, ...], error: float):
        super().__init__(message)
        self.permutations, self.error = permutations, error


@plain_torch()
def prove_symmetry(
    network: nn.Module, symmetry: Symmetry, example: Example, *, seed: int | str = 0, tolerance: float = TOLERANCE
) -> float:
    """The relative error of the network's outputs after all permutations of the symmetry, drawn at random.

    A new network's scales are all 1, its biases 0, its running statistics alike: any order of those would pass. So its
    parameters and saved buffers of floating-point numbers are drawn at random first, in a copy in float64.

    >>> from hrebasin.symmetry import derive_symmetry
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> prove_symmetry(network, derive_symmetry(network, torch.zeros(2, 4)), torch.randn(2, 4)) < 1e-12
    True

    Args:
        network: is not changed; it is run in evaluation mode.
        symmetry: derived or written by hand, with axes for all parameters and saved buffers.
        example: as for `derive_symmetry`; floating-point inputs should differ from image to image and from 0.
        seed: names the random numbers; the global ones are not touched.
        tolerance: the largest relative error that passes.

    Returns:
        The largest absolute change of each output tensor by its largest absolute value; the largest of these.

    Raises:
        SymmetryRefutedError: outputs that change; it names the permutations that change them.
        ValueError: a symmetry of another network, or outputs that are random, not finite, or nothing but zeros.
    """
    subject = Subject(network).double()
    tensors = subject.tensors()
    _check_names(tensors, symmetry)
    tensors = {name: tensors[name] for name in _first_names(tensors).values()}
    _draw(tensors, seed)
    before = subject.run(example)
    _check_outputs(before)
    permutations = _moving_permutations(symmetry, seed)
    _permute(tensors, symmetry, permutations)
    found = max(map(_relative_error, before, subject.run(example)))
    if found <= tolerance:
        return found
    _permute(tensors, symmetry, inverse(permutations))
    if not all(map(torch.equal, before, subject.run(example))):
        raise ValueError("the outputs differ between two runs in evaluation mode: the network draws random numbers")

    def breaking(names: list[str]) -> list[str]:
        chosen = {name: permutations[name] for name in names}
        _permute(tensors, symmetry, chosen)
        after = subject.run(example)
        _permute(tensors, symmetry, inverse(chosen))
        if max(map(_relative_error, before, after)) <= tolerance:
            return []
        half = len(names) // 2
        # two that only break it together are both named
        return names if half == 0 else breaking(names[:half]) + breaking(names[half:]) or names

    culprits = tuple(breaking(list(permutations)))
    message = f"the outputs change by {found:.1e} of their size, more than {tolerance:.0e}, because of "
    raise SymmetryRefutedError(message + _shown(culprits), culprits, found)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more permutations" if len(names) > 10 else "")


def _generator(name: str) -> torch.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _check_names(tensors: dict[str, torch.Tensor], symmetry: Symmetry) -> None:
    symmetry.apply(tensors, {})  # names and shapes
    lacking = [name for name in symmetry.axes if name not in tensors]
    if lacking:
        raise ValueError(f"the symmetry has tensors that the network lacks: {lacking[:3]}")
    first = _first_names(tensors)
    for name, tensor in tensors.items():
        if names_of(*symmetry.axes[name]) and not tensor.is_floating_point():
            raise ValueError(f"{name!r} holds integers, which must stay; its axes are {symmetry.axes[name]}")
        other = first[id(tensor)]
        if symmetry.axes[other] != symmetry.axes[name]:
            raise ValueError(f"{other!r} and {name!r} are tied, but have different axes in the symmetry")


def _first_names(tensors: dict[str, torch.Tensor]) -> dict[int, str]:
    """Of tied tensors, which are one object, the first name."""
    return {id(tensor): name for name, tensor in reversed(tensors.items())}


def _check_outputs(outputs: tuple[torch.Tensor, ...]) -> None:
    if not all(bool(x.isfinite().all()) for x in outputs):
        raise ValueError("the outputs are not finite with weights drawn at random, so that nothing can be compared")
    if not any(bool(x.any()) for x in outputs):
        raise ValueError("the outputs are 0 with weights drawn at random, so that nothing can be compared")


def _draw(tensors: dict[str, torch.Tensor], seed: int | str) -> None:
    """Draw everything that is no integer at the scale of a new network."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            _draw_tensor(tensor.detach(), _generator(f"symmetry/{seed}/{name}"))


def _draw_tensor(tensor: torch.Tensor, stream: torch.Generator) -> None:
    """Random numbers of the sign, and about the size, that the tensor has."""
    least, most = (float(value) for value in tensor.aminmax())
    if not (math.isfinite(least) and math.isfinite(most)):
        return  # a mask
    if least < 0 < most or (least == most == 0 and tensor.ndim > 1):
        if tensor.ndim > 1:
            scale = (2 * tensor.shape[0] / tensor.numel()) ** 0.5  # keeps the size of activations (He et al. 2015)
        else:
            scale = max(float(tensor.square().mean().sqrt()), 0.1)
        tensor.uniform_(-(3**0.5) * scale, 3**0.5 * scale, generator=stream)
    else:
        # variances and scales keep their sign; those near 0, as of fresh layer scales, would switch a layer off
        scale = max(abs(float(tensor.mean())), 0.1)
        tensor.uniform_(0.5 * scale, 1.5 * scale, generator=stream)
        if most <= 0 and least < 0:
            tensor.neg_()


def _moving_permutations(symmetry: Symmetry, seed: int | str) -> Permutations:
    """All permutations at random, none of which leaves everything in place."""
    permutations = symmetry.random_permutations(_generator(f"symmetry/{seed}/permutations"))
    for name, perm in permutations.items():
        if torch.equal(perm, torch.arange(len(perm))):
            permutations[name] = perm.roll(1)
    return permutations


def _permute(tensors: dict[str, torch.Tensor], symmetry: Symmetry, permutations: Permutations) -> None:
    """Permute one tensor at a time: a large network is held only once."""
    for name, tensor in tensors.items():
        tensor.data = symmetry.permute_tensor(name, tensor.data, permutations)


def _relative_error(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.numel() == 0:
        return 0.0
    before, after = before.double(), after.double()
    largest = float(before.abs().max())
    difference = float((after - before).abs().max())
    return difference / largest if largest else difference
