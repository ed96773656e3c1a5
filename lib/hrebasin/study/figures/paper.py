"""Figures of accuracy and robustness: a data set in, a Figure out; spread and n on every one."""

from contextlib import suppress

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from ..groups import (
    PERCENT,
    NotMeasuredError,
    by_group,
    count_groups,
    minus,
    on_same_leaves,
    tree,
    tree_and_many,
    tree_stages,
)
from . import headlines
from .captions import captioned, numbers_behind
from .style import (
    COLOURS,
    COLUMN,
    MARKERS,
    NAMES,
    SWEEP_COLOURS,
    added_methods,
    draw_curve,
    draw_legend,
    draw_points,
    draw_stage_curves,
    fewer,
    looks,
    method_label,
    spread,
    stacked,
    stage_look,
    stage_name,
)


@captioned(
    "Test accuracy by the number of merged networks, all merged from the same leaves: above the tree (the paper's "
    "method) and MergeMany stopped after a number of sweeps; in the middle the average of networks that were not "
    "matched; bottom: tree minus MergeMany. Faint points: a tree each, the mean over its networks.",
    seen=headlines.accuracy,
)
def accuracy_by_merged(merge: xr.Dataset) -> Figure:
    """Test accuracy by the number of merged networks, the naive average apart, and the tree minus MergeMany."""
    limits, naive = sorted({int(s) for s in merge.sweeps.values} - {0}), "naive" in merge.method.values
    heights = {"accuracy": 3.0} | ({"naive": 1.2} if naive else {}) | ({"ahead": 2.2} if limits else {})
    figure = Figure((COLUMN, (34 + 18 * sum(heights.values())) / 25.4))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=[*heights.values()])[:, 0]
    panel = dict(zip(heights, panels, strict=True))
    _draw_methods(panel, merge, limits)
    single = by_group(merge.test_accuracy, method="unmerged").values * PERCENT
    look = {"color": COLOURS["unmerged"], "linestyle": "none", "marker": "*", "markersize": 5}
    draw_points(panel["accuracy"], [1], [single], NAMES["unmerged"], **look)
    panel["accuracy"].set_ylabel("test accuracy (%)")
    if naive:
        look = {"color": COLOURS["naive"], "linestyle": ":", "marker": "P"}
        _draw_by_size(panel["naive"], merge.test_accuracy[merge.method.values == "naive"], NAMES["naive"], **look)
        panel["naive"].set_ylabel("naive average\n(%)")
    if limits:
        panel["ahead"].axhline(0, color="#888888", linewidth=0.6)
        panel["ahead"].set_ylabel("tree minus MergeMany\n(percentage points)")
    sizes = np.unique(merge.n_merged.values)
    panels[-1].set_xscale("log", base=2)
    panels[-1].xaxis.set_major_locator(FixedLocator(sizes))
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].set_xticks(sizes, [str(size) for size in sizes])
    panels[-1].set_xlabel("merged networks (number)")
    return draw_legend(figure, count_groups(merge), columns=2)


def _draw_methods(panel: dict, merge: xr.Dataset, limits: list[int]) -> None:
    """The tree, MergeMany by its limit of sweeps, and methods that were added."""
    rows = [("tree", 0, {"color": COLOURS["tree"], "linestyle": "-"})]
    shades = SWEEP_COLOURS[-len(limits) :] if limits else ()
    rows += [("merge-many", m, {"color": shade, "linestyle": "--"}) for m, shade in zip(limits, shades, strict=True)]
    rows += [(name, 0, look) for name, look in added_methods(merge).items()]
    for position, (method, limit, look) in enumerate(rows):
        mask = (merge.method.values == method) & (merge.sweeps.values == limit)
        look = {"marker": MARKERS[position % len(MARKERS)]} | look
        label = method_label(looks(merge)[method][0], limit, bool(merge.converged[mask].all()))
        chosen = merge.test_accuracy[mask & _leaves_of_merge_many(merge) if method == "tree" else mask]
        shift = 2 ** (0.045 * (position - (len(rows) - 1) / 2))  # side by side, in octaves
        _draw_by_size(panel["accuracy"], chosen, label, shift=shift, **look)
        if limit:
            _draw_ahead(panel["ahead"], merge, limit, label, shift=shift, **look)


def _draw_by_size(axes, accuracy: xr.DataArray, label: str, *, shift: float = 1, **look) -> None:
    sizes = np.unique(accuracy.n_merged.values)
    draw_points(axes, sizes * shift, [by_group(accuracy, n_merged=n).values * PERCENT for n in sizes], label, **look)


def _draw_ahead(axes, merge: xr.Dataset, limit: int, label: str, *, shift: float, **look) -> None:
    """The tree minus MergeMany on the same leaves, by size; of two networks both are the pair merge."""
    places, parts = [], []
    for n in np.unique(merge.n_merged.values[merge.sweeps.values == limit]):
        with suppress(NotMeasuredError):  # of 3 networks there is no tree
            if n > 2:
                parts.append(minus(*on_same_leaves(merge.test_accuracy, *tree_and_many(n, limit))) * PERCENT)
                places.append(n * shift)
    if parts:
        draw_points(axes, places, parts, label, **look)


def _leaves_of_merge_many(merge: xr.Dataset) -> np.ndarray:
    """Which networks are merged from leaves that MergeMany merged too, (model,); all where it was not run."""
    places = list(zip(*(merge[name].values.tolist() for name in ("group", "n_merged", "node")), strict=True))
    many = {place for place, method in zip(places, merge.method.values, strict=True) if method == "merge-many"}
    return np.array([not many or place in many for place in places])


@captioned(
    "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]), and below it the same minus that of "
    "stage 0, paired by tree: a curve that rises through zero crosses there. DeepFool: an image withstands sizes "
    "below the norm of the perturbation found, which includes an overshoot of 2 %. For L1 and L2 we show the strength "
    "with the highest mean over sizes and attacks; for MergeMany, the network of most leaves. Bands leave out the "
    "sampling error of the images, which all trees share; the ledger has it where it is known.",
    seen=headlines.attacks,
)
def robust_accuracy(attack: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack, and its difference to stage 0: stages, the best MergeMany, L1 and L2."""
    kinds = [kind for kind in attack.attack.values if not str(kind).endswith("-clipped")]  # nearly the minimal norm's
    heights = [1, 0.75] * len(kinds)
    figure, n_max = Figure((COLUMN, (42 + 38 * sum(heights)) / 25.4)), count_groups(attack)
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for kind, above, below in zip(kinds, panels[::2], panels[1::2], strict=True):
        below.axhline(0, color="#888888", linewidth=0.6)
        for curve, label, look in _robust_curves(attack):
            text, one = label + fewer(curve, n_max), curve.sel(attack=kind) * PERCENT
            base = tree(attack.robust_accuracy, 0).sel(attack=kind) * PERCENT
            draw_curve(above, attack.epsilon.values, one, text, **look)
            if label != stage_name(0):
                draw_curve(below, attack.epsilon.values, one - base, text, **look)
        above.set(title=NAMES.get(kind, kind), ylabel="robust accuracy (%)")
        above.set_ylim(bottom=0)
        below.set_ylabel("minus stage 0\n(percentage points)")
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    panels[-1].xaxis.set_major_locator(MaxNLocator(5))
    return draw_legend(figure, n_max, columns=2)


def _robust_curves(attack: xr.Dataset) -> list[tuple[xr.DataArray, str, dict]]:
    """Robust accuracy (group, attack, epsilon), label and look of every curve."""
    robust = attack.robust_accuracy
    curves = [(tree(robust, stage), stage_name(stage), stage_look(stage)) for stage in tree_stages(attack)]
    for method, dash, marker in (("merge-many", "--", "s"), ("l1", "-.", "^"), ("l2", "-", "o")):
        if method in attack.method.values:
            curve, label = _representative(robust, method)
            look = {"color": COLOURS[method], "linestyle": dash, "marker": marker, "markevery": 4, "markersize": 2.5}
            curves.append((curve, label, look))
    for name, look in added_methods(attack).items():
        curve, label = _representative(robust, name)
        curves.append((curve, label, look | {"markevery": 4, "markersize": 2.5}))
    return curves


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
        return curves[best], method_label(f"{looks(robust)[method][0]} of {best[0]}", best[1])
    best = max(curves, key=lambda kind: curves[kind].mean().item())
    return curves[best], f"{NAMES[method]}, strength {best[0]:g}"


@captioned(
    "Loss and accuracy on the line between two unmerged networks, before and after the second is matched to the first.",
    about=lambda ablations: [*_test_loss(ablations), *_choice(ablations), *numbers_behind(ablations)],
    seen=headlines.lines,
)
def barriers(ablations: xr.Dataset) -> Figure:
    """Loss and accuracy on the line between two networks, before and after matching, training and test images."""
    (figure, panels), n_max = stacked(2), count_groups(ablations)
    alignments = {
        "before": {"color": COLOURS["naive"], "marker": "o", "markevery": 2, "markersize": 2.5},
        "after": {"color": COLOURS["tree"]},
    }
    for axes, name, factor in ((panels[0], "loss", 1), (panels[1], "accuracy", PERCENT)):
        for alignment, look in alignments.items():
            for split, dash in (("train", "--"), ("test", "-")):
                values = by_group(ablations[name].sel(alignment=alignment, split=split)) * factor
                label = f"{alignment} matching, {split}"
                draw_curve(axes, ablations["lambda"].values, values, label, linestyle=dash, **look)
    panels[1].set_xlabel("weight of the second network, lambda (1)")
    panels[0].set_ylabel("mean cross-entropy (nat)")
    panels[1].set_ylabel("accuracy (%)")
    return draw_legend(figure, n_max, columns=2)


def _test_loss(ablations: xr.Dataset) -> list[str]:
    """That a test loss without a barrier shows nothing, where it has none before matching either."""
    half_way = ablations.loss.sel(split="test").interp({"lambda": 0.5}).mean("pair")
    ends = ablations.loss.sel(split="test").isel({"lambda": [0, -1]}).mean(["pair", "lambda"])
    if not (half_way < ends).all():
        return []
    return [
        "The test loss has no barrier after matching, but none before either: any mean of overfitted networks is less "
        "sure of itself than they are."
    ]


def _choice(ablations: xr.Dataset) -> list[str]:
    """Which of the two networks is permuted, in a sentence."""
    choice = ablations.choice_accuracy.sel(order="other")
    difference = choice.sel(permuted="first") - choice.sel(permuted="second")
    values = by_group(difference.rename("accuracy")).values * PERCENT
    low, high = spread(values)
    told = f"{values.mean():+.2f} points" + (f" ({low:.2f} to {high:.2f})" if len(values) > 1 else "")
    return [f"Permuting the first network in place of the second changes the accuracy half-way by {told}."]


@captioned(
    "Accuracy under random perturbation by its size (pixels in [0, 1]), and as a share of the accuracy without "
    "perturbation, by stage of the tree. What lies above 100 % is not drawn, and the sampling error of the images, "
    "which all trees share, is not shown.",
    about=numbers_behind,
    seen=headlines.noise,
)
def noise(attack: xr.Dataset) -> Figure:
    """Accuracy under random perturbation by its size, and the share retained, for each stage of the tree."""
    kinds = attack.noise.values
    figure = Figure((COLUMN, 108 / 25.4))
    panels, n_max = figure.subplots(2, len(kinds), sharex=True, sharey="row", squeeze=False), count_groups(attack)
    accuracy = attack.noise_accuracy.mean("draw")
    retained = (accuracy / accuracy.sel(magnitude=0)).rename("retained")
    size = {"gaussian": "standard deviation (pixel range)", "uniform": "half width (pixel range)"}
    for column, kind in enumerate(kinds):
        for row, values in enumerate((accuracy, retained)):
            most = PERCENT if row else None
            draw_stage_curves(panels[row, column], attack.magnitude.values, values.sel(noise=kind), most=most)
            for name, look in added_methods(attack).items():
                curve, label = _representative(values.sel(noise=kind), name)
                draw_curve(panels[row, column], attack.magnitude.values, curve * PERCENT, label, most=most, **look)
        panels[0, column].set_title(f"{str(kind).capitalize()} noise")
        panels[1, column].set_xlabel(size.get(str(kind), "size (pixel range)"))
        panels[1, column].xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5]))
    panels[0, 0].set_ylabel("accuracy (%)")
    panels[1, 0].set_ylabel("accuracy retained (%)")
    return draw_legend(figure, n_max, columns=3)
