"""Activation matching (Li et al. 2016; Ainsworth et al. 2023, section 3.1): units belong together that act alike.

For each permutation by itself P = argmax <P, Z_A Z_B^T>, a linear assignment, where Z (unit, sample) are the
activations that layers take, over images and over space. REPAIR's variant (Jordan et al. 2023) takes their correlations
in place of their products, so that units that are always large do not decide.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from ..bank import Bank, check_finite, check_same_architecture
from ..checks import check_inputs
from ..resources import side_by_side
from ..symmetry import Axis, Symmetry
from ..symmetry.axes import segment_size
from .assignment import assign
from .scale import overflow_named
from .weights import Alignment

IMAGES_AT_ONCE = 100
# kind of layer -> axis of what it takes and gives that holds the units
UNIT_AXIS = {nn.Linear: -1, nn.Conv1d: 1, nn.Conv2d: 1, nn.Conv3d: 1}


class Site(NamedTuple):
    """Where units that a permutation moves can be seen: a layer's inputs or outputs, and the part of their axis."""

    layer: str
    taken: bool
    unit_axis: int
    axis: Axis
    segment: int
    factor: int

    def read(self, values: torch.Tensor) -> torch.Tensor:
        """The activations of the units, (unit, sample), out of all that the layer takes or gives."""
        values = values.movedim(self.unit_axis, 0)
        sizes = [segment_size(segment) for segment in self.axis]
        part = values.narrow(0, sum(sizes[: self.segment]), sizes[self.segment])
        part = part.unflatten(0, [factor.size for factor in self.axis[self.segment]]).movedim(self.factor, 0)
        return part.reshape(len(part), -1)


def sites_of(symmetry: Symmetry, network: nn.Module, inputs: torch.Tensor) -> dict[str, list[Site]]:
    """By permutation, what its layers take of its units, behind the activation function; else what its layers give.

    Args:
        symmetry: of the network.
        network: of any kind.
        inputs: (image, ...), few; layers that are not called on them, only their weights used, show nothing.

    Raises:
        ValueError: units that no linear or convolution layer takes or gives by itself; their permutation is named.
    """
    called = _called(network, inputs)
    seen: dict[bool, dict[str, list[Site]]] = {True: {}, False: {}}
    for layer, module in network.named_modules():
        axes = symmetry.axes.get(f"{layer}.weight")
        kind = next((kind for kind in UNIT_AXIS if isinstance(module, kind)), None)
        if kind is None or axes is None or module not in called:
            continue
        for taken in (True, False):
            if taken and getattr(module, "groups", 1) > 1:
                continue  # its weights hold the inputs of one group only
            axis = axes[1 if taken else 0]
            for number, segment in enumerate(axis):
                named = [place for place, factor in enumerate(segment) if factor.name is not None]
                if len(named) == 1:
                    site = Site(layer, taken, UNIT_AXIS[kind], axis, number, named[0])
                    seen[taken].setdefault(segment[named[0]].name, []).append(site)
    found = {name: seen[True].get(name) or seen[False].get(name, []) for name in symmetry.permutations}
    if missing := [name for name, sites in found.items() if not sites]:
        raise ValueError(
            f"activations of {', '.join(missing)} of {type(network).__name__} cannot be seen: no linear or convolution "
            "layer that is called takes or gives these units by itself"
        )
    return found


def match_activations(reference: Bank, moving: Bank, pixels: torch.Tensor, *, correlated: bool = False) -> Alignment:
    """Align network k of ``moving`` to network k of ``reference`` by what their units do on images.

    Args:
        reference, moving: banks of one architecture and length; neither is changed.
        pixels: training images (image, ...) as the networks take them.
        correlated: centre and scale activations.

    Returns:
        An alignment, one sweep each; its objective is the sum over permutations of <P, C>.

    Raises:
        ValueError: different architectures or lengths, weights that are not finite, images that do not fit, or what
            `sites_of` refuses.
    """
    check_same_architecture(reference, moving)
    if len(reference) != len(moving):
        raise ValueError(f"{len(reference)} reference networks cannot be paired with {len(moving)} moving ones")
    check_inputs(moving.architecture, pixels)
    for role, bank in (("reference", reference), ("moving", moving)):
        check_finite(bank, f"{role} networks")
    sites = sites_of(moving.architecture.symmetry, moving[0].float(), _inputs(pixels[:2].cpu()))

    def align(pair: int) -> tuple[dict[str, torch.Tensor], float]:
        a, b = reference.select([pair]), moving.select([pair])
        similar = _similarities(a, b, pixels, sites, correlated)
        with overflow_named(a, b, what="activations"):
            perms = {name: torch.from_numpy(assign(m.cpu().numpy()[None])[0][0]) for name, m in similar.items()}
        return perms, sum(float(similar[name].cpu().gather(1, perm[:, None]).sum()) for name, perm in perms.items())

    found, objectives = zip(*side_by_side(align, range(len(moving))), strict=True)
    stacked = {name: torch.stack([perms[name] for perms in found]) for name in sites}
    return Alignment(stacked, torch.tensor(objectives, dtype=torch.float64), torch.ones(len(moving), dtype=torch.int64))


def _similarities(a: Bank, b: Bank, pixels: torch.Tensor, sites, correlated: bool) -> dict[str, torch.Tensor]:
    """C of each permutation, (unit of A, unit of B) float64, summed over its sites."""
    every = [site for some in sites.values() for site in some]
    networks = [bank[0].to(bank.device, torch.float32) for bank in (a, b)]
    sums: dict[Site, list[torch.Tensor]] = {}
    for part in pixels.split(IMAGES_AT_ONCE):
        ours, theirs = (_activations(network, _inputs(part.to(a.device)), every) for network in networks)
        for site in every:
            x, y = ours[site], theirs[site]
            moments = [x @ y.T, *(f(z) for z in (x, y) for f in (_sum, _squares)), torch.tensor(x.shape[1])]
            known = sums.get(site)
            sums[site] = (
                [m.double() for m in moments] if known is None else [k + m for k, m in zip(known, moments, strict=True)]
            )
    likeness = _correlation if correlated else lambda products, *_: products
    return {name: sum(likeness(*sums[site]) for site in some) for name, some in sites.items()}


def _inputs(pixels: torch.Tensor) -> torch.Tensor:
    """What a module takes, an MLP too: its first layer normalises."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


def _correlation(products, sum_x, squares_x, sum_y, squares_y, n) -> torch.Tensor:
    """Correlations (unit, unit); 0 for units that never change."""
    covariance = products / n - torch.outer(sum_x / n, sum_y / n)
    spreads = [(squares / n - (total / n).square()).clamp(min=0).sqrt()
               for total, squares in ((sum_x, squares_x), (sum_y, squares_y))]  # fmt: skip
    scale = torch.outer(*spreads)
    return torch.where(scale > 1e-12, covariance / scale.clamp(min=1e-12), 0.0)


def _sum(z: torch.Tensor) -> torch.Tensor:
    return z.sum(1, dtype=torch.float64)


def _squares(z: torch.Tensor) -> torch.Tensor:
    return z.square().sum(1, dtype=torch.float64)


def _called(network: nn.Module, inputs: torch.Tensor) -> set[nn.Module]:
    """The linear and convolution layers that a network calls."""
    found, layers = set(), [module for module in network.modules() if isinstance(module, tuple(UNIT_AXIS))]
    with torch.no_grad(), hooked(layers, lambda module, *_: found.add(module)):
        network(inputs)
    return found


def _activations(network: nn.Module, inputs: torch.Tensor, sites: list[Site]) -> dict[Site, torch.Tensor]:
    names = {network.get_submodule(layer): layer for layer in dict.fromkeys(site.layer for site in sites)}
    found: dict[Site, list[torch.Tensor]] = {}

    def see(module, given, output):
        for site in sites:
            if site.layer == names[module]:
                found.setdefault(site, []).append(site.read(given[0] if site.taken else output))

    with torch.no_grad(), hooked(names, see):
        network(inputs)
    return {site: torch.cat(parts, dim=1) for site, parts in found.items()}  # a layer may be called several times


@contextmanager
def hooked(modules, hook: Callable) -> Iterator[None]:
    """``hook(module, inputs, output)`` is called after each of the modules."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
