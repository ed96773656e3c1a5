"""Figures: a data set in, a Figure out; one colour a method everywhere, and spread and n on every one."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogFormatter, MaxNLocator, NullLocator

from ...merging.distances import CONVERGENCE
from ..groups import PERCENT, SAME_CHOICE, by_group, count_groups, has_numbers, tree, tree_stages
from .style import (
    COLOURS,
    COLUMN,
    FAINT,
    MARKERS,
    NAMES,
    STAGE_COLOURS,
    SWEEP_COLOURS,
    added_methods,
    captioned,
    draw_curve,
    draw_legend,
    draw_points,
    draw_stage_curves,
    draw_stages,
    fewer,
    label_stages,
    looks,
    shape,
    stacked,
    stage_look,
)


@captioned(
    "Test accuracy by the number of merged networks, for the tree (the paper's method), MergeMany stopped after a "
    "number of sweeps, and the naive average, all merged from the same leaves. Faint points: a group each, the mean "
    "over its networks."
)
def accuracy_by_merged(merge: xr.Dataset) -> Figure:
    """Test accuracy by the number of merged networks: tree, MergeMany by its limit of sweeps, naive average."""
    figure = Figure((COLUMN, 82 / 25.4))
    axes, n_max = figure.subplots(), count_groups(merge)
    limits = sorted({int(s) for s in merge.sweeps.values} - {0})
    rows = [("tree", 0, COLOURS["tree"], "-")]
    shades = SWEEP_COLOURS[-len(limits) :] if limits else ()
    rows += [("merge-many", limit, shade, "--") for limit, shade in zip(limits, shades, strict=True)]
    rows += [("naive", 0, COLOURS["naive"], ":")] if "naive" in merge.method.values else []
    rows += [(name, 0, look["color"], look["linestyle"]) for name, look in added_methods(merge).items()]
    for position, (method, limit, colour, dash) in enumerate(rows):
        mask = (merge.method.values == method) & (merge.sweeps.values == limit)
        chosen = merge.test_accuracy[mask & _leaves_of_merge_many(merge) if method == "tree" else mask]
        shift = 2 ** (0.045 * (position - (len(rows) - 1) / 2))  # side by side, in octaves
        xs, parts = [], []
        for n in np.unique(chosen.n_merged.values):
            xs.append(n * shift)
            parts.append(by_group(chosen, n_merged=n).values * PERCENT)
        look = {"color": colour, "linestyle": dash, "marker": MARKERS[position]}
        label = _method_label(looks(merge)[method][0], limit, bool(merge.converged[mask].all()))
        draw_points(axes, xs, parts, label, **look)
    single = by_group(merge.test_accuracy, method="unmerged").values * PERCENT
    draw_points(
        axes, [1], [single], NAMES["unmerged"], color=COLOURS["unmerged"], linestyle="none", marker="*", markersize=5
    )
    sizes = np.unique(merge.n_merged.values)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(size) for size in sizes])
    axes.set(xlabel="merged networks (number)", ylabel="test accuracy (%)")
    return draw_legend(figure, n_max, columns=2)


def _leaves_of_merge_many(merge: xr.Dataset) -> np.ndarray:
    """Which networks are merged from leaves that MergeMany merged too, (model,); all where it was not run."""
    places = list(zip(*(merge[name].values.tolist() for name in ("group", "n_merged", "node")), strict=True))
    many = {place for place, method in zip(places, merge.method.values, strict=True) if method == "merge-many"}
    return np.array([not many or place in many for place in places])


def _method_label(title: str, limit: int, converged: bool = True) -> str:
    if not limit:
        return title
    return f"{title}, converged" if limit >= CONVERGENCE and converged else f"{title}, {limit} sweep{'s' * (limit > 1)}"


@captioned(
    "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]). DeepFool, minimal norm: an image "
    "withstands sizes below the norm of the perturbation found; clipped: Foolbox's rule, the perturbation clipped to "
    "the size and tested again. Of L1 and L2 the strength with the highest mean over sizes and attacks is shown, of "
    "MergeMany the most networks."
)
def robust_accuracy(attack: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack: stages of the tree, the best MergeMany, L1 and L2; a panel an attack."""
    kinds = attack.attack.values
    (figure, panels), n_max = stacked(len(kinds), sharey=True), count_groups(attack)
    robust = attack.robust_accuracy
    curves = [
        (tree(robust, stage), f"stage {stage}" if stage else "stage 0 (unmerged)", stage_look(stage))
        for stage in tree_stages(attack)
    ]
    for method, dash, marker in (("merge-many", "--", "s"), ("l1", "-.", "^"), ("l2", "-", "o")):
        if method in attack.method.values:
            curve, label = _representative(robust, method)
            look = {"color": COLOURS[method], "linestyle": dash, "marker": marker, "markevery": 4, "markersize": 2.5}
            curves.append((curve, label, look))
    for name, look in added_methods(attack).items():
        curve, label = _representative(robust, name)
        curves.append((curve, label, look | {"markevery": 4, "markersize": 2.5}))
    for axes, kind in zip(panels, kinds, strict=True):
        for curve, label, look in curves:
            text = label + fewer(curve, n_max)
            draw_curve(axes, attack.epsilon.values, curve.sel(attack=kind) * PERCENT, text, **look)
        axes.set(title=NAMES.get(kind, kind), ylabel="robust accuracy (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    panels[-1].xaxis.set_major_locator(MaxNLocator(5))
    return draw_legend(figure, n_max, columns=2)


def _representative(robust: xr.DataArray, method: str) -> tuple[xr.DataArray, str]:
    """One kind of network of a method, and its name: the penalty with the highest robust accuracy on average; of a way
    to merge that of most networks, which stands beside the top of the tree."""
    chosen = robust[robust.method.values == method]
    merges = method not in ("l1", "l2")
    keys = ("n_merged", "sweeps") if merges else ("strength",)
    kinds = dict.fromkeys(zip(*(chosen[key].values.tolist() for key in keys), strict=True))
    curves = {kind: by_group(chosen, **dict(zip(keys, kind, strict=True))) for kind in kinds}
    if merges:
        best = max(curves)
        return curves[best], _method_label(f"{looks(robust)[method][0]} of {best[0]}", best[1])
    best = max(curves, key=lambda kind: curves[kind].mean().item())
    return curves[best], f"{NAMES[method]}, strength {best[0]:g}"


MOST_LAYERS = 8  # that a panel and its legend can tell apart
FEW_LAYERS = f"Of the layers the {MOST_LAYERS - 1} with the largest norms, and the sum over the others."


@captioned(
    "Norm of weights plus norm of biases by stage of the tree: above the sum over layers, below each layer. Faint "
    "points: a network each.",
    about=lambda regularity: [FEW_LAYERS] if regularity.sizes["layer"] > MOST_LAYERS else [],
)
def weight_norm(regularity: xr.Dataset) -> Figure:
    """Weight norm by stage: the sum over layers of the tree and of converged MergeMany, and the tree's layers."""
    (figure, (above, below)), stages = stacked(2), tree_stages(regularity)
    norm = regularity.weight_norm
    total = norm.sum("layer").rename("weight norm")
    draw_stages(above, total, stages, "tree", color=COLOURS["tree"], marker="o")
    many = total[(total.method.values == "merge-many") & (total.sweeps.values == CONVERGENCE)]
    if many.size:
        label, look = (
            _method_label(NAMES["merge-many"], CONVERGENCE),
            {"color": COLOURS["merge-many"], "linestyle": "--"},
        )
        _draw_merged(above, many, "merge-many", label, shift=0.12, marker="s", **look)
    for place, (name, look) in enumerate(added_methods(total).items(), start=2):
        _draw_merged(above, total, name, looks(total)[name][0], shift=0.12 * place, **look)
    for position, (name, values) in enumerate(_layers(norm).items()):
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        draw_stages(below, values, stages, f"tree, {name}", **look)
    label_stages(above, stages, "weight norm, all layers (1)")
    label_stages(below, stages, "weight norm of a layer (1)")
    above.set_xlabel("")
    return draw_legend(figure, count_groups(regularity), columns=2)


def _layers(norm: xr.DataArray) -> dict[str, xr.DataArray]:
    """Norms (model,) by layer; of more than `MOST_LAYERS` those of the largest norms, and the sum of the others."""
    order = norm.mean("model").argsort().values[::-1]
    shown = np.sort(order if norm.sizes["layer"] <= MOST_LAYERS else order[: MOST_LAYERS - 1])
    found = {f"layer {norm.layer.values[k]}": norm.isel(layer=k, drop=True) for k in shown}
    others = np.setdiff1d(order, shown)
    if len(others):
        found[f"{len(others)} other layers"] = norm.isel(layer=others).sum("layer")
    return found


def _draw_merged(axes, values: xr.DataArray, method: str, label: str, *, shift: float, **look) -> None:
    """Values of the networks of one method by stage."""
    chosen = values[values.method.values == method]
    found = np.unique(chosen.stage.values)
    draw_points(axes, found + shift, [by_group(chosen, stage=stage).values for stage in found], label, **look)


@captioned(
    "Upper bounds on the Lipschitz constant (L2, pixels in [0, 1]) by stage of the tree: everywhere, and the largest "
    "local one around test images; and the largest input-gradient norm on the same images, which every bound must "
    "exceed. Faint points: a network each.",
    about=lambda regularity: [f"{_bounded_images(regularity).sum()} test images.", *_not_applicable(regularity)],
)
def lipschitz(regularity: xr.Dataset) -> Figure:
    """Lipschitz bounds of the tree by stage, log scale, above the largest gradient norm found on images."""
    figure = Figure((COLUMN, 92 / 25.4))
    axes, n_max, stages = figure.subplots(), count_groups(regularity), tree_stages(regularity)
    series = {NAMES.get(str(b), str(b)): regularity.lipschitz.sel(bound=b) for b in regularity.bound.values}
    shown = regularity.isel(image=_bounded_images(regularity))
    local, gradient = shown.local_lipschitz.max("image"), shown.gradient_norm.max("image")
    for radius in regularity.radius.values:
        series[f"local, radius {radius:g}, largest"] = local.sel(radius=radius)
    series = {label: values for label, values in series.items() if has_numbers(values)}
    series["largest gradient norm (lower bound)"] = gradient
    for position, (label, values) in enumerate(series.items()):
        lower = position == len(series) - 1
        look = {"color": COLOURS["unmerged"] if lower else STAGE_COLOURS[1 + position % 4]}
        shift = 0.08 * (position - (len(series) - 1) / 2)
        draw_stages(axes, values, stages, label, shift=shift, **look, **shape(position))
    first, values = next(iter(series.items()))
    for place, (name, look) in enumerate(added_methods(regularity).items(), start=len(series)):
        _draw_merged(axes, values, name, f"{looks(regularity)[name][0]}, {first}", shift=0.08 * place, **look)
    axes.set_yscale("log")
    for axis_part in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_part(LogFormatter(minor_thresholds=(2, 0.5)))  # 20 instead of 2 x 10^1
    label_stages(axes, stages, "Lipschitz constant, L2\n(logits per pixel range)")
    return draw_legend(figure, n_max, columns=1)


def _bounded_images(regularity: xr.Dataset) -> np.ndarray:
    """Which images have local bounds, (image,); all where none has."""
    bounded = regularity.local_lipschitz.notnull().all(["model", "radius"]).values
    return bounded | (not bounded.any())


def _not_applicable(regularity: xr.Dataset) -> list[str]:
    """Why there are no upper bounds, as a sentence, where there are none."""
    reason = regularity.lipschitz.attrs.get("comment", "")
    return [] if has_numbers(regularity.lipschitz) else [f"{reason[:1].upper()}{reason[1:]}."]


@captioned(
    "Loss and accuracy on the line between two unmerged networks, before and after the second is matched to the first."
)
def barriers(ablations: xr.Dataset) -> Figure:
    """Loss and accuracy on the line between two networks, before and after matching, training and test images."""
    (figure, panels), n_max = stacked(2), count_groups(ablations)
    looks = {
        "before": {"color": COLOURS["naive"], "marker": "o", "markevery": 2, "markersize": 2.5},
        "after": {"color": COLOURS["tree"]},
    }
    for axes, name, factor in ((panels[0], "loss", 1), (panels[1], "accuracy", PERCENT)):
        for alignment, look in looks.items():
            for split, dash in (("train", "--"), ("test", "-")):
                values = by_group(ablations[name].sel(alignment=alignment, split=split)) * factor
                label = f"{alignment} matching, {split}"
                draw_curve(axes, ablations["lambda"].values, values, label, linestyle=dash, **look)
    panels[1].set_xlabel("weight of the second network, lambda (1)")
    panels[0].set_ylabel("mean cross-entropy (nat)")
    panels[1].set_ylabel("accuracy (%)")
    return draw_legend(figure, n_max, columns=2)


@captioned(
    "Accuracy of a merged pair when its first network is permuted minus when its second is. Faint points: a group "
    f"each, and left of them a pair each; grey: within {SAME_CHOICE:g} percentage points, which counts as equal."
)
def permutation_choice(ablations: xr.Dataset) -> Figure:
    """Accuracy with the first minus the second network permuted, by layer order; the band counts as equal."""
    figure = Figure((COLUMN, 68 / 25.4))
    axes, n_max, choice = figure.subplots(), count_groups(ablations), ablations.choice_accuracy
    axes.axhspan(
        -SAME_CHOICE, SAME_CHOICE, color="#E9E9E9", zorder=0, label=f"within {SAME_CHOICE:g} percentage points"
    )
    difference = (choice.sel(permuted="first") - choice.sel(permuted="second")).rename("difference") * PERCENT
    parts = [by_group(difference.sel(order=order)).values for order in choice.order.values]
    for place, order in enumerate(choice.order.values):
        pairs = difference.sel(order=order).values
        axes.plot(np.full(len(pairs), place - 0.05), pairs, color=COLOURS["tree"], **FAINT)
    draw_points(axes, np.arange(len(parts)), parts, "mean", color=COLOURS["tree"], linestyle="none", marker="o")
    names = {"same": "same layer order", "other": "independent layer orders"}
    axes.set_xticks(range(len(parts)), [names.get(str(order), str(order)) for order in choice.order.values])
    axes.set(xlim=(-0.5, len(parts) - 0.5), xlabel="matching of the two choices")
    axes.set_ylabel("first minus second permuted\n(percentage points of accuracy)")
    axes.set_ylim(min(axes.get_ylim()[0], -1.2 * SAME_CHOICE), max(axes.get_ylim()[1], 1.2 * SAME_CHOICE))
    return draw_legend(figure, n_max, columns=2)


@captioned(
    "Accuracy under random perturbation by its size (pixels in [0, 1]), and as a share of the accuracy without "
    "perturbation, by stage of the tree."
)
def noise(attack: xr.Dataset) -> Figure:
    """Accuracy under random perturbation by its size, and the share retained, for each stage of the tree."""
    kinds = attack.noise.values
    figure = Figure((COLUMN, 100 / 25.4))
    panels, n_max = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False), count_groups(attack)
    accuracy = attack.noise_accuracy.mean("draw")
    retained = (accuracy / accuracy.sel(magnitude=0)).rename("retained")
    size = {"gaussian": "standard deviation (pixel range)", "uniform": "half width (pixel range)"}
    for column, kind in enumerate(kinds):
        for row, values in enumerate((accuracy, retained)):
            draw_stage_curves(panels[row, column], attack.magnitude.values, values.sel(noise=kind))
            for name, look in added_methods(attack).items():
                curve, label = _representative(values.sel(noise=kind), name)
                draw_curve(panels[row, column], attack.magnitude.values, curve * PERCENT, label, **look)
        panels[0, column].set_title(f"{str(kind).capitalize()} noise")
        panels[1, column].set_xlabel(size.get(str(kind), "size (pixel range)"))
        panels[1, column].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5]))
    panels[0, 0].set_ylabel("accuracy (%)")
    panels[1, 0].set_ylabel("accuracy retained (%)")
    return draw_legend(figure, n_max, columns=3)
