"""Published data sets to play with: an attack, its size, methods, stages and a bound; figures and a table follow."""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import numpy as np
import xarray as xr
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from ...merging.distances import CONVERGENCE
from ...progress import in_batch
from ..figures.style import (
    FAINT,
    NAMES,
    SCREEN,
    draw_curve,
    draw_legend,
    looks,
    shape,
    spread,
    stage_look,
    styled,
)
from ..groups import PERCENT, Results, by_group, count_groups, has_numbers

Kind = tuple[str, int, int, int, float]  # networks alike in these labels are one row and one curve
FIRST = ("unmerged", "tree", "l2")  # what is shown first: the paper's main comparison
VERDICTS = {"reproduced": "#CDEBDF", "contradicted": "#F9D9C4"}  # behind black words; grey where nothing is decided
LABELS = ("method", "stage", "n_merged", "sweeps", "strength")


def measures(results: Results) -> xr.Dataset:
    """What is explored, of the networks that were both attacked and measured.

    Returns:
        ``robust_accuracy`` (model, attack, epsilon), ``accuracy`` (model,) on the same images without attack, and
        ``bound`` (model, measure) with the units of each measure in the coordinate ``measure_units``.
    """
    attack, regularity = xr.align(results["attack"], results["regularity"], join="inner", exclude={"image"})
    local = regularity.local_lipschitz.mean("image")
    parts = {NAMES.get(str(b), str(b)): regularity.lipschitz.sel(bound=b, drop=True) for b in regularity.bound.values}
    parts |= {f"local bound, radius {r:g}, mean": local.sel(radius=r, drop=True) for r in regularity.radius.values}
    parts = {name: values for name, values in parts.items() if has_numbers(values)}
    parts["gradient norm, largest (from below)"] = regularity.gradient_norm.max("image")
    units = [regularity.lipschitz.attrs.get("units", "1")] * len(parts) + ["1"]
    parts["weight norm, sum over layers"] = regularity.weight_norm.sum("layer")
    axis = xr.Variable("measure", np.array(list(parts), dtype=object))
    bound = xr.concat(list(parts.values()), dim=axis, coords="minimal", compat="override").rename("bound")
    return xr.Dataset(
        {
            "robust_accuracy": attack.robust_accuracy,
            "accuracy": attack.correct.mean("image"),
            "bound": bound.assign_coords(measure_units=("measure", np.array(units, dtype=object))),
        }
    )


def kinds(data: xr.Dataset, methods: Sequence[str], stages: Sequence[int]) -> dict[Kind, str]:
    """Kinds of networks of the given methods and stages, each with its name; an unmerged one has stage 0."""
    rows = zip(*(data[label].values.tolist() for label in LABELS), strict=True)
    titles = {method: title for method, (title, _) in looks(data).items()}
    found = {
        kind: _name(titles[kind[0]], *kind[1:])
        for kind in dict.fromkeys(rows)
        if kind[0] in methods and kind[1] in stages
    }
    return dict(sorted(found.items(), key=lambda item: (list(methods).index(item[0][0]), item[0][1:])))


def _name(name: str, stage: int, n_merged: int, sweeps: int, strength: float) -> str:
    if strength:
        return f"{name}, strength {strength:g}"
    limit = f", {sweeps} sweeps" if 0 < sweeps < CONVERGENCE else ""
    return f"{name} of {n_merged}{limit}" if stage else name


def _look(colour: str, kind: Kind, position: int) -> dict:
    """Colour, dash and marker; stages of the tree have the colours that they have in every figure."""
    method, stage, _, _, strength = kind
    look = {"color": colour} | shape(position if strength else stage)
    return look | stage_look(stage) if method in ("unmerged", "tree") else look


@styled
def draw(data: xr.Dataset, chosen: Mapping[Kind, str], *, attack: str, epsilon: float, measure: str) -> Figure:
    """Robust accuracy of `kinds` by the size of an attack, and at one size against a measure of regularity."""
    figure = Figure((SCREEN, (72 + 4 * np.ceil(len(chosen) / 4)) / 25.4))
    (left, right), n = figure.subplots(1, 2, sharey=True), count_groups(data)
    robust = data.robust_accuracy.sel(attack=attack) * PERCENT
    here, bound = robust.sel(epsilon=epsilon), data.bound.sel(measure=measure)
    for position, (kind, label) in enumerate(chosen.items()):
        labels, look = dict(zip(LABELS, kind, strict=True)), _look(looks(data)[kind[0]][1], kind, position)
        draw_curve(left, data.epsilon.values, by_group(robust, **labels), label, **look | {"markevery": 4})
        mask = np.logical_and.reduce([data[name].values == value for name, value in labels.items()])
        right.plot(bound.values[mask], here.values[mask], color=look["color"], **FAINT)
        x, y = (by_group(values.rename("value"), **labels).values for values in (bound, here))
        if len(x) > 1:
            right.hlines(y.mean(), *spread(x), color=look["color"])
            right.vlines(x.mean(), *spread(y), color=look["color"])
        right.plot(x.mean(), y.mean(), **look | {"linestyle": "none", "markersize": 5})
    left.axvline(epsilon, color="#8A8A8A", linewidth=1, zorder=0)
    left.set(xlabel="size of the attack (pixel range)", ylabel="robust accuracy (%)", title=NAMES.get(attack, attack))
    left.set_ylim(bottom=0)
    units = str(bound.measure_units.values)
    right.set(xscale="log", xlabel=f"{measure} ({units})", title=f"at size {epsilon:g}")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.xaxis.set_minor_locator(NullLocator())
    right.tick_params(labelleft=True)
    return draw_legend(figure, n, columns=4)


def table(data: xr.Dataset, chosen: Mapping[Kind, str], *, attack: str, epsilon: float, measure: str):
    """The numbers behind `draw` as a pandas DataFrame, a row a kind: means over groups, with ends of their spread."""
    robust = data.robust_accuracy.sel(attack=attack, epsilon=epsilon) * PERCENT
    columns = {
        "accuracy (%)": data.accuracy * PERCENT,
        f"robust at {epsilon:g} (%)": robust,
        f"{measure} ({data.measure_units.sel(measure=measure).item()})": data.bound.sel(measure=measure),
    }
    rows = [dict(zip(LABELS, kind, strict=True)) for kind in chosen]
    parts = {
        name: [by_group(values.rename("value"), **labels).values for labels in rows] for name, values in columns.items()
    }
    numbers = {"groups": [len(part) for part in next(iter(parts.values()))]}
    for name, values in parts.items():
        numbers[name] = [part.mean() for part in values]
        ends = [spread(part) for part in values]
        if max(numbers["groups"]) > 1:
            numbers |= {f"{name}, {end}": [pair[place] for pair in ends] for place, end in enumerate(("low", "high"))}
    axis = {"networks": list(chosen.values())}
    return xr.Dataset({name: ("networks", values) for name, values in numbers.items()}, coords=axis).to_dataframe()


def show(data: xr.Dataset, *, attack: str, epsilon: float, methods: tuple, stages: tuple, measure: str) -> None:
    """Display figure and table of one choice."""
    chosen = kinds(data, methods, stages)
    if not chosen:
        print("No network has these methods and stages: choose others. Unmerged, L1 and L2 networks have stage 0.")
        return
    choice = {"attack": attack, "epsilon": epsilon, "measure": measure}
    display(draw(data, chosen, **choice))
    display(table(data, chosen, **choice).style.format(precision=2))


def explorer(results: Results, *, epsilon: float = 0.01) -> widgets.Widget | None:
    """Controls for `show`, and what they show; in a notebook that papermill runs, the first choice and no controls.

    Args:
        results: data sets by stage, of which ``attack`` and ``regularity`` are needed.
        epsilon: size of the attack at the start; the nearest that was measured.
    """
    data = measures(results)
    sizes = data.epsilon.values.tolist()
    methods = list(dict.fromkeys(data.method.values.tolist()))
    stages = sorted(set(data.stage.values.tolist()))
    wide = {"style": {"description_width": "initial"}, "layout": widgets.Layout(width="auto")}
    several = {"rows": max(len(methods), len(stages))}
    attacks = [(NAMES.get(attack, attack), attack) for attack in data.attack.values.tolist()]
    start = min(sizes, key=lambda size: abs(size - epsilon))
    sized = {"options": [(f"{size:g}", size) for size in sizes], "value": start, "continuous_update": False}
    named = [(looks(data)[method][0], method) for method in methods]
    first = [method for method in methods if method in FIRST] or methods
    controls = {
        "attack": widgets.Dropdown(options=attacks, description="attack", **wide),
        "epsilon": widgets.SelectionSlider(description="size", **sized, **wide),
        "measure": widgets.Dropdown(options=data.measure.values.tolist(), description="bound", **wide),
        "methods": widgets.SelectMultiple(options=named, value=first, description="methods", **several),
        "stages": widgets.SelectMultiple(options=stages, value=stages, description="stages", **several),
    }
    if in_batch():
        return show(data, **{name: control.value for name, control in controls.items()})
    shown = widgets.interactive_output(lambda **choice: show(data, **choice), controls)
    single = widgets.VBox([controls[name] for name in ("attack", "epsilon", "measure")], layout={"width": "42%"})
    return widgets.VBox([widgets.HBox([single, controls["methods"], controls["stages"]]), shown])


def verdicts(claims: xr.Dataset):
    """The ledger as a pandas Styler: every part of a claim with what was measured, and its verdict on a colour."""
    columns = {"title": "what is said", "comparison": "measured"}
    shown = claims.isel(part=(claims.title != "").values).rename(columns)
    columns = [*columns.values(), "effect", "low", "high", "units", "n", "p_holm", "verdict"]
    styler = shown[columns].drop_vars("claim").to_dataframe().style.format(precision=3, na_rep="–")
    styler = styler.set_properties(subset=[*columns[:2], "units", "verdict"], **{"text-align": "left"})
    colour = "background-color: {}; color: black"
    return styler.map(lambda verdict: colour.format(VERDICTS.get(verdict, "#ECECEC")), ["verdict"])
