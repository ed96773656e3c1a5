"""What averaging two networks does to the norm of their weights."""

from functools import partial

import torch
import xarray as xr

from ..bank import Bank
from ..checks import check_bank


def children(bank: Bank) -> xr.Dataset:
    """How the two children of each node of the tree lie to one another once aligned, layer by layer.

    A node M is the mean of its first child A and of its second, B, permuted. So the inner product of both is
    2 <A, M> - |A|^2; permutations leave |B| as it is; and |M|^2 = (|A|^2 + |B|^2 + 2 <A, B>) / 4.

    Args:
        bank: with the labels of `hrebasin.bank.LABELS`; nodes whose children it holds too are compared.

    Returns:
        ``children_cosine`` (model, layer) of all parameters of a layer together, and ``predicted_norm`` (model, layer),
        the `weight_norm` that follows from the children's norms and inner product; not a number for other networks.
    """
    check_bank(bank)
    layers = bank.architecture.layers
    cosine, predicted = torch.full((2, len(bank), len(layers)), torch.nan, dtype=torch.float64)
    node, first, second = _families(bank)
    for position, layer in enumerate(layers if node else ()):
        norm = torch.zeros(len(node), dtype=torch.float64, device=bank.device)
        totals = torch.zeros(3, len(node), dtype=torch.float64, device=bank.device)  # A A, B B, A B over the layer
        for key in layers[layer]:
            m, a, b = (bank.tensors[key][chosen].double().view(len(node), -1) for chosen in (node, first, second))
            aa, bb = (a * a).sum(1), (b * b).sum(1)
            ab = 2 * (a * m).sum(1) - aa
            totals += torch.stack([aa, bb, ab])
            norm += ((aa + bb + 2 * ab) / 4).clamp(min=0).sqrt()
        predicted[node, position] = norm.cpu()
        cosine[node, position] = (totals[2] / (totals[0] * totals[1]).sqrt()).cpu()
    axis = xr.Variable("layer", list(layers), {"long_name": "layer", "units": "1"})
    over_layers = partial(bank.array, dims=("model", "layer"), units="1", layer=axis)
    return xr.Dataset(
        {
            "children_cosine": over_layers(cosine, long_name="cosine of the aligned children's parameters"),
            "predicted_norm": over_layers(
                predicted, long_name="weight norm from the children's norms and inner product"
            ),
        }
    )


def _families(bank: Bank) -> tuple[list[int], list[int], list[int]]:
    """Positions of the nodes of the tree, of their first and of their second children, where the bank holds all."""
    columns = (bank.labels[name].tolist() for name in ("method", "group", "stage", "node"))
    places = {
        tuple(place): position
        for position, (method, *place) in enumerate(zip(*columns, strict=True))
        if method in ("unmerged", "tree")
    }
    families = [
        (position, places.get((group, stage - 1, 2 * node)), places.get((group, stage - 1, 2 * node + 1)))
        for (group, stage, node), position in places.items()
    ]
    whole = [family for family in families if None not in family]
    return tuple(list(column) for column in zip(*whole, strict=True)) if whole else ([], [], [])


def weight_norm(bank: Bank) -> xr.DataArray:
    """Norms of the parameters of each layer, unsquared, added up, (model, layer); the paper sums over layers.

    The Frobenius norm of a weight plus the 2-norm of a bias; running statistics are no parameters.
    """
    check_bank(bank)
    norms = [
        sum(torch.linalg.vector_norm(bank.tensors[name].double().reshape(len(bank), -1), dim=1) for name in names)
        for names in bank.architecture.layers.values()
    ]
    layers = xr.Variable("layer", list(bank.architecture.layers), {"long_name": "layer", "units": "1"})
    return bank.array(
        torch.stack(norms, 1),
        ("model", "layer"),
        name="weight_norm",
        long_name="norm of weight plus norm of bias",
        units="1",
        layer=layers,
    )
