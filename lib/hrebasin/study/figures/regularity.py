"""Figures of weight norms and Lipschitz bounds: a data set in, a Figure out; spread and n on every one."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ...merging.distances import CONVERGENCE
from ..groups import by_group, count_groups, has_numbers, tree, tree_stages
from . import headlines
from .captions import captioned
from .style import (
    COLOURS,
    COLUMN,
    NAMES,
    STAGE_COLOURS,
    added_methods,
    draw_legend,
    draw_points,
    draw_stages,
    label_stages,
    looks,
    method_label,
    shape,
    stacked,
)

MOST_LAYERS = 8  # that a panel and its legend can tell apart
FEW_LAYERS = f"Of the layers the {MOST_LAYERS - 1} with the largest norms, and the sum over the others."


@captioned(
    "Norm of weights plus norm of biases by stage of the tree: above the sum over layers, with the straight line that "
    "fits the tree's means best (least squares), below each layer. Faint points: a network each.",
    about=lambda regularity: [FEW_LAYERS] if regularity.sizes["layer"] > MOST_LAYERS else [],
    seen=headlines.norms,
)
def weight_norm(regularity: xr.Dataset) -> Figure:
    """Weight norm by stage: the sum over layers of the tree and of converged MergeMany, and the tree's layers."""
    (figure, (above, below)), stages = stacked(2), tree_stages(regularity)
    norm = regularity.weight_norm
    total = norm.sum("layer").rename("weight norm")
    draw_stages(above, total, stages, "tree", color=COLOURS["tree"], marker="o")
    line = np.polyfit(stages, [tree(total, stage).mean().item() for stage in stages], 1)
    look = {"color": "#767676", "linestyle": ":", "label": "straight line fitted to the tree"}
    above.plot(stages, np.polyval(line, stages), **look)
    many = total[(total.method.values == "merge-many") & (total.sweeps.values == CONVERGENCE)]
    if many.size:
        label, look = method_label(NAMES["merge-many"], CONVERGENCE), {"linestyle": "--", "marker": "s"}
        _draw_merged(above, many, "merge-many", label, shift=0.12, color=COLOURS["merge-many"], **look)
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
    seen=headlines.bounds,
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
        colour = COLOURS["unmerged"] if lower else BOUND_COLOURS[position % len(BOUND_COLOURS)]
        draw_stages(axes, values, stages, label, color=colour, **shape(position))
    first, values = next(iter(series.items()))
    for name, look in added_methods(regularity).items():
        _draw_merged(axes, values, name, f"{looks(regularity)[name][0]}, {first}", shift=0.08, **look)
    axes.set_yscale("log")
    for axis_part in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_part(LogFormatter(minor_thresholds=(2, 0.5)))  # 20 instead of 2 x 10^1
    label_stages(axes, stages, "Lipschitz constant, L2\n(logits per pixel range)")
    return draw_legend(figure, n_max, columns=1)


BOUND_COLOURS = [COLOURS[method] for method in ("tree", "merge-many", "l2", "naive", "l1")]


def _bounded_images(regularity: xr.Dataset) -> np.ndarray:
    """Which images have local bounds, (image,); all where none has."""
    bounded = regularity.local_lipschitz.notnull().all(["model", "radius"]).values
    return bounded | (not bounded.any())


def _not_applicable(regularity: xr.Dataset) -> list[str]:
    """Why there are no upper bounds, as a sentence, where there are none."""
    reason = regularity.lipschitz.attrs.get("comment", "")
    return [] if has_numbers(regularity.lipschitz) else [f"{reason[:1].upper()}{reason[1:]}."]
