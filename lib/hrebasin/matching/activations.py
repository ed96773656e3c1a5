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

from ..architectures import as_floats
from ..bank import Bank
from ..checks import check_inputs
from ..symmetry import Axis, Symmetry
from ..symmetry.blocks import units
from .assignment import assign
from .weights import Alignment, Found, check_pairs, pair_by_pair

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
        return units(values.movedim(self.unit_axis, 0), 0, self.axis, self.segment, self.factor)


def layers_of(network: nn.Module) -> dict[str, int]:
    """Name -> axis of the units, for all linear and convolution layers."""
    return {
        name: axis
        for name, module in network.named_modules()
        for kind, axis in UNIT_AXIS.items()
        if isinstance(module, kind)
    }


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
    for layer, unit_axis in layers_of(network).items():
        module, axes = network.get_submodule(layer), symmetry.axes.get(f"{layer}.weight")
        if axes is None or module not in called:
            continue
        for taken in (True, False):
            if taken and getattr(module, "groups", 1) > 1:
                continue  # its weights hold the inputs of one group only
            axis = axes[1 if taken else 0]
            for number, segment in enumerate(axis):
                named = [place for place, factor in enumerate(segment) if factor.name is not None]
                if len(named) == 1:
                    site = Site(layer, taken, unit_axis, axis, number, named[0])
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
    check_pairs(reference, moving)
    check_inputs(moving.architecture, pixels)
    sites = sites_of(moving.architecture.symmetry, moving[0].float(), as_floats(pixels[:2].cpu()))

    def align(a: Bank, b: Bank, _pair: int) -> Found:
        similar = {name: gains.cpu() for name, gains in _similarities(a, b, pixels, sites, correlated).items()}
        perms = {name: torch.from_numpy(assign(gains.numpy()[None])[0][0]) for name, gains in similar.items()}
        return perms, sum(float(similar[name].gather(1, perm[:, None]).sum()) for name, perm in perms.items()), 1

    return pair_by_pair(align, reference, moving, what="activations")


def _similarities(a: Bank, b: Bank, pixels: torch.Tensor, sites, correlated: bool) -> dict[str, torch.Tensor]:
    """C of each permutation, (unit of A, unit of B) float64, summed over its sites."""
    every = [site for some in sites.values() for site in some]
    networks = [bank[0].to(bank.device, torch.float32) for bank in (a, b)]
    sums: dict[Site, list[torch.Tensor]] = {}
    for part in pixels.split(IMAGES_AT_ONCE):
        ours, theirs = (_activations(network, as_floats(part.to(a.device)), every) for network in networks)
        for site in every:
            x, y = ours[site], theirs[site]
            moments = [each.sum(1, dtype=torch.float64) for z in (x, y) for each in (z, z.square())]
            found = [(x @ y.T).double(), *moments, x.shape[1]]
            sums[site] = [known + new for known, new in zip(sums.get(site, [0.0] * 6), found, strict=True)]
    likeness = _correlation if correlated else lambda products, *_: products
    return {name: sum(likeness(*sums[site]) for site in some) for name, some in sites.items()}


def _correlation(products, sum_x, squares_x, sum_y, squares_y, n) -> torch.Tensor:
    """Correlations (unit, unit); 0 for units that never change."""
    covariance = products / n - torch.outer(sum_x / n, sum_y / n)
    spreads = [(squares / n - (total / n).square()).clamp(min=0).sqrt()
               for total, squares in ((sum_x, squares_x), (sum_y, squares_y))]  # fmt: skip
    scale = torch.outer(*spreads)
    return torch.where(scale > 1e-12, covariance / scale.clamp(min=1e-12), 0.0)


def _called(network: nn.Module, inputs: torch.Tensor) -> set[nn.Module]:
    """The linear and convolution layers that a network calls."""
    found, layers = set(), map(network.get_submodule, layers_of(network))
    with torch.no_grad(), hooked(layers, lambda module, *_: found.add(module)):
        network(inputs)
    return found


def _activations(network: nn.Module, inputs: torch.Tensor, sites: list[Site]) -> dict[Site, torch.Tensor]:
    names = {network.get_submodule(site.layer): site.layer for site in sites}
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
