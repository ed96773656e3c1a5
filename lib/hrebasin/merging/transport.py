"""Optimal transport fusion of MLPs of different widths (Singh & Jaggi 2020, algorithm 1), through the package POT."""

from collections.abc import Sequence

import torch

from ..bank import Bank, average, check_finite
from ..checks import check_relu_mlp


def fuse(networks: Sequence[Bank]) -> Bank:
    """Merge MLPs into one with the widths of the first.

    Layer by layer from the input, units carry equal masses and go to those of the first network at the least cost, the
    squared distance of incoming weights and biases. A unit there becomes the mean of what arrives, and so does a column
    of the next layer's weights. Where widths agree this is the method ``ot-fusion``.

    Args:
        networks: banks of one MLP each, of one depth, image shape and number of classes.

    Returns:
        A bank of one network, method ``ot-fusion``.

    Raises:
        ModuleNotFoundError: POT is not installed.
        ValueError: fewer than two networks, no MLPs, or of other depths, images or classes.
    """
    networks = list(networks)
    if len(networks) < 2 or any(len(bank) != 1 for bank in networks):
        raise ValueError(f"fusing needs two or more banks of one network, got {networks}")
    first = networks[0].architecture
    for bank in networks:
        check_relu_mlp(bank.architecture, "transports between layers")
        check_finite(bank, "optimal transport fusion")
        own = bank.architecture
        if (len(own.widths), own.image_shape, own.n_classes) != (len(first.widths), first.image_shape, first.n_classes):
            raise ValueError(f"networks of one depth, image shape and number of classes can be fused, got {own}")
    carried = [networks[0].tensors, *(_carried(networks[0], bank) for bank in networks[1:])]
    tensors = {name: average(torch.cat([each[name] for each in carried])) for name in first.shapes}
    labels = {name: values[:1] for name, values in networks[0].labels.items()}
    return Bank(first, tensors, labels | {"method": "ot-fusion", "n_merged": len(networks)})


def _carried(target: Bank, bank: Bank) -> dict[str, torch.Tensor]:
    """A network's parameters with the units of the target, (1, ...)."""
    transport, found = None, {}
    layers = list(target.architecture.layers.values())
    for number, (weight, bias) in enumerate(layers):
        own, shift = bank.tensors[weight][0].double(), bank.tensors[bias][0].double()
        if transport is not None:
            own = own @ transport.T
        if number + 1 < len(layers):
            theirs = torch.column_stack([target.tensors[weight][0].double(), target.tensors[bias][0].double()])
            transport = _transport(theirs, torch.column_stack([own, shift]))
            own, shift = transport @ own, transport @ shift
        found |= {weight: own.float()[None], bias: shift.float()[None]}
    return found


def _transport(units: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Shares of the other units that arrive at each unit, (unit, other), rows of sum 1."""
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "networks of different widths are fused by the package POT: pip install 'hrebasin[ot]'"
        ) from error
    cost = torch.cdist(units, others).square().cpu().numpy()
    masses = [torch.full((len(some),), 1 / len(some), dtype=torch.float64).numpy() for some in (units, others)]
    plan = torch.from_numpy(ot.emd(*masses, cost)).to(units.device)
    return plan * len(units)
