"""Optimal transport fusion of MLPs of different widths (Singh & Jaggi 2020, algorithm 1), through the package POT."""

from collections.abc import Sequence

import torch

from ..bank import Bank, average, check_finite
from ..checks import check_relu_mlp
from .repair import Moments, moments, repair


def fuse(networks: Sequence[Bank], *, repaired_on: torch.Tensor | None = None) -> Bank:
    """Merge MLPs into one with the widths of the first.

    Layer by layer from the input, units carry equal masses and go to those of the first network at the least cost, the
    squared distance of incoming weights and biases. A unit there becomes the mean of what arrives, and so does a column
    of the next layer's weights. The more units a network has, the smaller its columns are, and so a mean with them
    answers too weakly: REPAIR gives back what that takes. Where widths agree this is the method ``ot-fusion``, and
    `hrebasin.merge` with that method comes here where they do not.

    Args:
        networks: banks of one MLP each, of one depth, image shape and number of classes.
        repaired_on: training images (image, channel, y, x): units get the mean and spread that those which arrive at
            them have on these (REPAIR). By default they are left as they are.

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
    parts = [_carried(networks[0], bank) for bank in networks[1:]]
    carried = [networks[0].tensors, *(tensors for tensors, _ in parts)]
    tensors = {name: average(torch.cat([each[name] for each in carried])) for name in first.shapes}
    labels = {name: values[:1] for name, values in networks[0].labels.items()}
    fused = Bank(first, tensors, labels | {"method": "ot-fusion", "n_merged": len(networks)})
    if repaired_on is None:
        return fused
    own = [moments(bank, repaired_on) for bank in networks]
    means, stds = (
        [
            torch.stack([values, *(each @ plans[k].T for each, (_, plans) in zip(others, parts, strict=True))]).mean(0)
            for k, (values, *others) in enumerate(zip(*layers, strict=True))
        ]
        for layers in ([each.mean for each in own], [each.std for each in own])
    )
    return repair(fused, Moments(means, stds), repaired_on)


def _carried(target: Bank, bank: Bank) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """A network's parameters with the units of the target, (1, ...), and for each layer the shares of its own units
    (unit, own unit)."""
    found, plans = {}, []
    layers = list(target.architecture.layers.values())
    for number, (weight, bias) in enumerate(layers):
        own, shift = bank.tensors[weight][0].double(), bank.tensors[bias][0].double()
        if plans:
            own = own @ plans[-1].T
        if number + 1 < len(layers):
            theirs = torch.column_stack([target.tensors[weight][0].double(), target.tensors[bias][0].double()])
            plans.append(_transport(theirs, torch.column_stack([own, shift])))
        else:
            plans.append(torch.eye(len(own), dtype=own.dtype, device=own.device))  # classes stay where they are
        own, shift = plans[-1] @ own, plans[-1] @ shift
        found |= {weight: own.float()[None], bias: shift.float()[None]}
    return found, plans


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
