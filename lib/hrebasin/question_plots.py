"""Figures of the open questions: a data set in, a Figure out."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .comparisons import PERCENT, by_group, tree, tree_stages
from .drawing import (
    COLOURS,
    COLUMN,
    MARKERS,
    NAMES,
    STAGE_COLOURS,
    count_groups,
    draw_curve,
    draw_legend,
    draw_points,
    label_stages,
    shape,
    stacked,
    stage_look,
    styled,
)
from .merging import CONVERGENCE

SHOWN_ATTACKS = ("fgsm", "pgd-cross-entropy", "pgd-margin", "worst")
ATTACK_NAMES = {
    "pgd-cross-entropy": "PGD, cross-entropy",
    "pgd-margin": "PGD, margin",
    "worst": "every attack together",
}
STRONGEST = 0.05  # epsilons above it only show that attacks work; they would squeeze the curves


@styled
def strong(data: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack, a panel an attack, a curve a stage."""
    kinds = [kind for kind in SHOWN_ATTACKS if kind in data.attack.values]
    figure, panels = stacked(len(kinds), sharey=True)
    few = data.robust_accuracy.isel(epsilon=(data.epsilon <= STRONGEST).values)
    for axes, kind in zip(panels, kinds, strict=True):
        for stage in tree_stages(data):
            curve = tree(few.sel(attack=kind), stage) * PERCENT
            label = f"stage {stage}" if stage else "stage 0 (unmerged)"
            draw_curve(axes, few.epsilon.values, curve, label, **stage_look(stage) | shape(stage))
        axes.set(title=ATTACK_NAMES.get(kind, NAMES.get(kind, kind)), ylabel="robust accuracy (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    return draw_legend(figure, count_groups(data), columns=2)


@styled
def mergers(data: xr.Dataset) -> Figure:
    """Test accuracy against the mean squared distance of aligned networks, a panel a number of merged networks."""
    sizes = np.unique(data.n_merged.values)
    figure = Figure((COLUMN, (30 + 42 * len(sizes)) / 25.4))
    panels = np.atleast_1d(figure.subplots(len(sizes), 1))
    kept = data.isel(model=(data.method != "naive").values)
    names = {"tree": "tree, neighbours", "tree-random": "tree, random pairs", "tree-nearest": "tree, nearest pairs"}
    names |= {"merge-many-from-tree": "MergeMany from the tree"}
    for axes, size in zip(panels, sizes, strict=True):
        pairs = size * (size - 1) / 2
        kinds = dict.fromkeys(zip(kept.method.values.tolist(), kept.sweeps.values.tolist(), strict=True))
        many = sorted(limit for method, limit in kinds if method == "merge-many")
        curve = [
            [by_group(kept[name], method="merge-many", n_merged=size, sweeps=limit).mean() for limit in many]
            for name in ("pairwise_distance", "test_accuracy")
        ]
        look = {"color": COLOURS["merge-many"], "marker": "o", "markersize": 3}
        axes.plot(np.array(curve[0]) / pairs, np.array(curve[1]) * PERCENT, label="MergeMany, by sweeps", **look)
        for place, limit in ((0, many[0]), (-1, many[-1])):
            text = "converged" if limit == CONVERGENCE else f"{limit} sweep{'s' * (limit > 1)}"
            where = curve[0][place] / pairs, curve[1][place] * PERCENT
            axes.annotate(text, where, xytext=(4, -7), textcoords="offset points", fontsize=6)
        others = sorted({method for method, _ in kinds} - {"merge-many"})
        for position, method in enumerate(others):
            distance, accuracy = (
                by_group(kept[n], method=method, n_merged=size).mean() for n in ("pairwise_distance", "test_accuracy")
            )
            colour = COLOURS["tree"] if method.startswith("tree") else COLOURS["l2"] if "many" in method else "#000000"
            look = {"color": colour, "marker": MARKERS[1 + position % 6], "linestyle": "none", "markersize": 4}
            axes.plot(distance / pairs, accuracy * PERCENT, label=names.get(method, method), **look)
        axes.set(title=f"{size} models", ylabel="test accuracy (%)")
    panels[-1].set_xlabel("mean squared distance of aligned networks (1)")
    return draw_legend(figure, count_groups(data), columns=2)


@styled
def scale(data: xr.Dataset) -> Figure:
    """Global bound of each stage, that of unmerged networks at the same norms, and certified radii."""
    figure, (above, below) = stacked(2)
    stages, bound = tree_stages(data), data.lipschitz.sel(bound="global").rename("lipschitz")
    rescaled = [by_group(bound, method="rescaled", stage=s) if s else tree(bound, 0) for s in stages]
    draw_points(above, stages, [tree(bound, s).values for s in stages], "tree", color=COLOURS["tree"], marker="o")
    look = {"color": COLOURS["unmerged"], "marker": "s", "linestyle": "--"}
    parts = [values.values for values in rescaled]
    draw_points(above, np.array(stages) + 0.1, parts, "unmerged at the norms of the stage", **look)
    above.set_yscale("log")
    above.set_ylabel("global bound\n(logits per pixel range)")
    for position, name in enumerate(data.certificate.values):
        radius = data.certified_radius.sel(certificate=name).rename("certified_radius")
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        parts = [tree(radius, s).values for s in stages]
        draw_points(
            below, np.array(stages) + 0.08 * (position - 1), parts, f"certified: {NAMES.get(name, name)}", **look
        )
    below.set_ylim(bottom=0)
    label_stages(below, stages, "mean certified radius, L2\n(pixel range)")
    return draw_legend(figure, count_groups(data), columns=1)


@styled
def repair(data: xr.Dataset) -> Figure:
    """Accuracy of the tree by stage with and without REPAIR, and the variance of activations that is left."""
    figure, (above, below) = stacked(2)
    stages = tree_stages(data)
    draw_points(
        above,
        stages,
        [tree(data.test_accuracy, s).values * PERCENT for s in stages],
        "tree",
        color=COLOURS["tree"],
        marker="o",
    )
    names = {
        "repair-children": "REPAIR towards the children",
        "repair-leaves": "REPAIR towards the leaves",
        "repair-along": "REPAIR before merging further",
    }
    colours = (COLOURS["merge-many"], COLOURS["l2"], COLOURS["naive"])
    for position, ((method, label), colour) in enumerate(zip(names.items(), colours, strict=True)):
        parts = [by_group(data.test_accuracy, method=method, stage=s).values * PERCENT for s in stages[1:]]
        where = np.array(stages[1:]) + 0.08 * (position + 1)
        draw_points(above, where, parts, label, color=colour, **shape(position + 1))
    above.set_ylabel("test accuracy (%)")
    for position, layer in enumerate(data.layer.values):
        parts = [tree(data.variance_ratio.sel(layer=layer), s).values for s in stages]
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        draw_points(below, stages, parts, f"layer {layer}", **look)
    below.set_ylim(bottom=0)
    label_stages(below, stages, "variance of activations\nover that of the leaves (1)")
    return draw_legend(figure, count_groups(data), columns=2)
