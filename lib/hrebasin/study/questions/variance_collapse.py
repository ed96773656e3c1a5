"""Is it variance collapse? Trees with and without REPAIR, and what merging does to activations."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank, check_same_architecture
from ...checks import check_relu_mlp
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.repair import moments, pre_activations, repaired_tree
from ...merging.tree import align_tree
from ...random_streams import Seed
from ...robustness.attacks import robust_accuracies
from ..figures.captions import captioned
from ..figures.style import COLOURS, STAGE_COLOURS, draw_legend, draw_points, label_stages, shape, spoken, stacked
from ..groups import PERCENT, POINTS, by_group, count_groups, differences, large, tree, tree_stages
from ..statistics import Test, defined
from .wording import amount, signed, within

TITLE = "Do merged networks lose accuracy because their activations shrink?"
SCHEMA = {
    "model": "test_accuracy test_loss",
    "model attack epsilon": "robust_accuracy",
    "model layer": "variance_ratio feature_distance",
}
REPAIRED = {  # method -> name, colour
    "repair-leaves": ("REPAIR towards the leaves", COLOURS["l2"]),
    "repair-children": ("REPAIR towards the children", COLOURS["merge-many"]),
    "repair-along": ("REPAIR before merging further", COLOURS["naive"]),
}


def measure(
    bank: Bank, pixels: torch.Tensor, images: Images, *, attacked: int, epsilons: Sequence[float], seed: Seed = 0
) -> xr.Dataset:
    """Accuracy, robustness and activations of trees with and without REPAIR: a data set of stage ``repair``.

    Args:
        bank: unmerged networks of some groups.
        pixels: training images to measure activations on, (image, channel, y, x).
        images: test images; the first ``attacked`` are attacked.
        epsilons: of FGSM and L-infinity DeepFool.
        seed: of the layer orders.

    Raises:
        ValueError: networks that are no ReLU MLPs.
    """
    check_relu_mlp(bank.architecture, "ratios of variances and distances of features")
    parts = []
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = bank.where(group=group)
        everything, stages = repaired_tree(members, pixels, seed=seed), align_tree(members, seed=seed)
        few = images.first(attacked)
        robust = robust_accuracies(everything, few.pixels, few.labels, epsilons=epsilons)
        activations = []
        kinds = zip(*(everything.labels[name].tolist() for name in ("stage", "method")), strict=True)
        for stage, method in dict.fromkeys(kinds):
            some = everything.where(stage=stage, method=method)
            under = [range(k * 2**stage, (k + 1) * 2**stage) for k in range(len(some))]
            given = (some, stages[stage], under, pixels)
            activations.append(xr.merge([variance_ratio(*given), feature_distance(*given)], compat="identical"))
        scores = evaluate(everything, images).rename(accuracy="test_accuracy", loss="test_loss")
        layers = xr.concat(activations, dim="model").sel(model=scores.model)
        parts.append(xr.merge([scores, robust, layers], compat="identical", combine_attrs="override"))
    return xr.concat(parts, dim="model", combine_attrs="override").drop_attrs(deep=False)


def variance_ratio(bank: Bank, parents: Bank, members: Sequence[Sequence[int]], pixels: torch.Tensor) -> xr.DataArray:
    """Variance of pre-activations, summed over units, over the mean of that of the parents, (model, layer).

    Below 1 where variance has collapsed.

    Args:
        bank: merged networks.
        parents: networks that they were merged from; need not be aligned, because units are summed over.
        members: positions in ``parents`` for each network of ``bank``.
        pixels: images (image, channel, y, x).
    """
    check_relu_mlp(bank.architecture, "ratios of variances")
    own, theirs = (moments(each, pixels).std for each in (bank, parents))
    ratios = [
        a.square().sum(1) / torch.stack([b[list(some)].square().sum(1).mean() for some in members])
        for a, b in zip(own, theirs, strict=True)
    ]
    return _by_layer(bank, ratios, "variance_ratio", "variance of pre-activations over that of the parents")


def feature_distance(bank: Bank, parents: Bank, members: Sequence[Sequence[int]], pixels: torch.Tensor) -> xr.DataArray:
    """1 - cosine between a merged network's features and the mean of its parents' (Zhou et al. 2023), (model, layer).

    Features are post-activations, of the last layer logits; the mean is over images. Zero where the layerwise linear
    feature connectivity holds.

    Args:
        bank, members, pixels: as in `variance_ratio`.
        parents: aligned with the merged networks.
    """
    check_same_architecture(bank, parents)
    layers, total = len(bank.architecture.layers), 0
    for own, theirs in zip(pre_activations(bank, pixels), pre_activations(parents, pixels), strict=True):
        columns = []
        for number in range(layers):
            a, b = (v[number] if number == layers - 1 else v[number].relu() for v in (own, theirs))
            mean = torch.stack([b[list(some)].mean(0) for some in members])
            columns.append((1 - torch.nn.functional.cosine_similarity(a, mean, dim=-1)).double().sum(1))
        total = total + torch.stack(columns)
    return _by_layer(bank, list(total / len(pixels)), "feature_distance", "1 - cosine of features to the parents' mean")


def _by_layer(bank: Bank, columns: list[torch.Tensor], name: str, long_name: str) -> xr.DataArray:
    axis = xr.Variable("layer", list(bank.architecture.layers), {"long_name": "affine layer", "units": "1"})
    values = torch.stack(columns, 1)
    return bank.array(values, ("model", "layer"), name=name, long_name=long_name, units="1", layer=axis)


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """What REPAIR recovers of the accuracy lost and what it does to robustness, by stage; which moments are best."""
    stages, accuracy, tests = tree_stages(data), data.test_accuracy, []
    robust = large(data.robust_accuracy)
    methods = [name for name in dict.fromkeys(data.method.values) if name in REPAIRED]
    top, share, change = stages[-1], {}, {}  # of the last stage, by method
    for stage in stages[1:]:
        lost = differences(tree(accuracy, 0), tree(accuracy, stage))
        for method in methods:
            back = differences(by_group(accuracy, method=method, stage=stage), tree(accuracy, stage))
            title = f"{method}: share of the loss recovered at stage {stage}"
            share[method], change[method] = defined(title, back / lost * PERCENT, "%"), {}
            for kind in data.attack.values:
                kept, title = robust.sel(attack=kind), f"{method}: {spoken(kind)}, strong, change at stage {stage}"
                values = differences(by_group(kept, method=method, stage=stage), tree(kept, stage)) * PERCENT
                change[method][kind] = defined(title, values, POINTS)
            gained = defined(f"{method}: accuracy gained at stage {stage}", back * PERCENT, POINTS)
            tests += [gained, share[method], *change[method].values()]
        for layer in data.layer.values:
            ratio, distance = (tree(data[n].sel(layer=layer), stage) for n in ("variance_ratio", "feature_distance"))
            tests.append(defined(f"variance of {layer} over that of the leaves, stage {stage}", ratio.values, "1"))
            tests.append(defined(f"1 - cosine of features, {layer}, stage {stage}", distance.values, "1"))
    return tests, _told(share, change, top)


def _told(share: Mapping[str, Test], change: Mapping[str, Mapping[str, Test]], top: int) -> str:
    """Whether REPAIR gives back all, part or nothing of the accuracy lost, and what it does to robustness."""
    first, *others = [method for method in REPAIRED if method in share]
    low, high = share[first].interval()
    verdict = "Not resolved" if np.isnan(low) else "Yes" if high >= 100 else "Partly" if low > 0 else "No"
    lost = f"of the accuracy lost at stage {top}"
    said = [f"{verdict}. {REPAIRED[first][0]} gives back {amount(share[first])} {lost} {within(share[first])}."]
    for kind, test in change[first].items():
        robust = f"robust accuracy under strong {spoken(kind)}"
        if test.sign:
            moved, spread = "raises" if test.sign > 0 else "lowers", within(test, mirrored=test.sign < 0)
            said.append(f"It {moved} {robust} by {amount(test)} {spread}.")
        else:
            said.append(f"The change in {robust} is not resolved: {signed(test)}.")
    said += [f"{REPAIRED[name][0]} gives back {signed(share[name])}." for name in others]
    return " ".join(said)


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    top, accuracy = tree_stages(data)[-1], data.test_accuracy
    lost = differences(tree(accuracy, 0), tree(accuracy, top))
    back = differences(by_group(accuracy, method="repair-leaves", stage=top), tree(accuracy, top))
    gained = defined("gained", back, "1")
    if gained.sign < 1:
        return "It is not resolved whether REPAIR gives accuracy back." if not gained.sign else "REPAIR costs accuracy."
    return f"REPAIR towards the leaves gives back {PERCENT * back.mean() / lost.mean():.0f} % of the accuracy lost."


@captioned(
    "The tree with and without REPAIR, towards the moments of all leaves, of the two children, or before merging "
    "further. From above: test accuracy; test loss; robust accuracy under strong FGSM; variance of activations of the "
    "tree over that of its leaves.",
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """Accuracy, loss and robustness of the tree by stage with and without REPAIR, and the variance that is left."""
    figure, (*above, below) = stacked(4)
    stages = tree_stages(data)
    robust = large(data.robust_accuracy.sel(attack="fgsm"))
    shown = [
        (data.test_accuracy * PERCENT, "test accuracy (%)"),
        (data.test_loss, "test loss (nat)"),
        (robust * PERCENT, "correct under strong\nFGSM (%)"),
    ]
    for axes, (values, label) in zip(above, shown, strict=True):
        parts = [tree(values, s).values for s in stages]
        draw_points(axes, stages, parts, "tree", color=COLOURS["tree"], marker="o")
        for position, (method, (name, colour)) in enumerate(REPAIRED.items()):
            parts = [by_group(values, method=method, stage=s).values for s in stages[1:]]
            where = np.array(stages[1:]) + 0.08 * (position + 1)
            draw_points(axes, where, parts, name, color=colour, **shape(position + 1))
        axes.set_ylabel(label)
    for position, layer in enumerate(data.layer.values):
        parts = [tree(data.variance_ratio.sel(layer=layer), s).values for s in stages]
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        draw_points(below, stages, parts, f"layer {layer}", **look)
    below.set_ylim(bottom=0)
    label_stages(below, stages, "variance of activations\nover that of the leaves (1)")
    return draw_legend(figure, count_groups(data), columns=2)
