"""Figures and tables of the benchmarks: ratios to the alternatives, and cost against the number of networks."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..figures.style import COLOURS, COLUMN, shape, styled
from .cycle_consistent import exponents
from .growth import line

SERIES = tuple(COLOURS[name] for name in ("unmerged", "tree", "merge-many", "naive", "l2"))


@styled
def speed(benchmarks: xr.Dataset) -> Figure:
    """How many times as fast as the alternative: ratio of medians, range over repeats, and the goal."""
    figure = Figure((COLUMN, (22 + 13 * benchmarks.sizes["row"]) / 25.4))
    axes = figure.subplots()
    places = np.arange(benchmarks.sizes["row"])[::-1]
    ratio, low, high = (benchmarks[name].values for name in ("ratio", "ratio_low", "ratio_high"))
    axes.barh(places, ratio - 1, left=1, height=0.36, color=COLOURS["tree"], label="ratio of medians")
    axes.hlines(places, low, high, color="black", linewidth=1.2, label="range over repeats")
    axes.plot(benchmarks.goal, places, linestyle="none", marker="|", markersize=12, markeredgewidth=1.6,
              color=COLOURS["merge-many"], label="goal")  # fmt: skip
    for place, value in zip(places, np.maximum(ratio, high), strict=True):
        axes.annotate(f"{ratio[places.tolist().index(place)]:.3g}", (value, place), xytext=(5, 0),
                      textcoords="offset points", va="center")  # fmt: skip
    for place, title, other in zip(places, benchmarks.title.values, benchmarks.alternative.values, strict=True):
        axes.annotate(f"{title}\nagainst: {other}", (1, place + 0.22), xytext=(2, 0), textcoords="offset points",
                      va="bottom", fontsize=6)  # fmt: skip
    axes.set_yticks(places, benchmarks.title.values.tolist())  # for whoever cannot see the figure
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.set(ylim=(-0.5, len(places) - 0.2))
    axes.spines.left.set_visible(False)
    axes.set(xscale="log", xlim=(min(0.8, 0.9 * low.min()), 1.6 * max(high.max(), float(benchmarks.goal.max()))))
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_xlabel("times as fast as the alternative (1)")
    axes.grid(axis="y", visible=False)
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    handles, labels = axes.get_legend_handles_labels()
    title = f"median of {benchmarks.sizes['repeat']} repeats in turns"
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=title)
    return figure


@styled
def scaling(benchmarks: xr.Dataset) -> Figure:
    """Time and peak memory of stages against the number of networks, with the straight line through each."""
    sizes = benchmarks["size"].values
    figure = Figure((COLUMN, (18 + 42 * len(sizes)) / 25.4))
    panels = figure.subplots(len(sizes), 2, squeeze=False)
    for size, row in zip(sizes, panels, strict=True):
        measured = benchmarks.sel(size=size)
        there = measured.scaling_seconds.notnull().any("stage").values
        n = measured.n_models.values[there]
        for position, stage in enumerate(measured.stage.values):
            look = shape(position) | {"color": SERIES[position % len(SERIES)]}
            for axes, name in zip(row, ("scaling_seconds", "scaling_memory"), strict=True):
                values = measured[name].sel(stage=stage).values[there]
                slope, start = line(n, values)
                axes.plot(n, values, **look | {"linestyle": "none"})
                axes.plot(n, start + slope * n, **look | {"marker": None})
                axes.plot([], [], **look, label=stage)
        for axes, label in zip(row, ("time (s)", "memory (MB)"), strict=True):
            axes.set(title=f"{size} networks", xlabel="networks (number)", ylabel=label, xticks=n)
            axes.set_ylim(0, 1.02 * axes.get_ylim()[1])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    title = "points: n = 1 run each; lines: least squares"
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title=title)
    return figure


def speed_table(benchmarks: xr.Dataset) -> str:
    """Each row's ratio with its range and goal, what both sides found, and the share of the machine, as Markdown."""
    lines = [
        "| what | against | times as fast (range) | goal | difference of the results | share of the product rate |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for name in benchmarks.row.values:
        row = benchmarks.sel(row=name)
        ratio = f"{float(row.ratio):.3g} ({float(row.ratio_low):.3g} to {float(row.ratio_high):.3g})"
        difference = f"{float(row.difference):.2g} {row.difference_of.item()}"
        share = "" if np.isnan(row.share) else f"{float(row.share):.0%} of {float(row.rate / row.share):.0f} GFLOP/s"
        title, other = row.title.item(), row.alternative.item()
        lines.append(f"| {title} | {other} | {ratio} | {float(row.goal):.3g} | {difference} | {share} |")
    return "\n".join(lines) + "\n"


def goals(benchmarks: xr.Dataset) -> str:
    """How many goals were met, and which were not, in a sentence; and how both sides of C2M3 grow with n."""
    missed = benchmarks.isel(row=(benchmarks.ratio < benchmarks.goal).values)
    met = f"{benchmarks.sizes['row'] - missed.sizes['row']} of {benchmarks.sizes['row']} goals of speed were met"
    rows = zip(missed.title.values, missed.ratio.values, missed.goal.values, strict=True)
    words = "; ".join(f"{title} ({ratio:.3g} times instead of {goal:.3g})" for title, ratio, goal in rows)
    told = [f"{met}; missed: {words}." if words else f"{met}."]
    if powers := exponents(benchmarks):
        told.append(f"With n networks, C2M3's time grows as n^{powers[0]:.2g}.")
        told.append(f"That of its published procedure grows as n^{powers[1]:.2g}.")
    return " ".join(told) + "\n"


def lines_table(benchmarks: xr.Dataset) -> str:
    """Time and memory a network by stage and size, and how far times lie from a line, as Markdown."""
    lines = ["| networks | stage | seconds per network | largest deviation from the line | MB per network |"]
    lines += ["|---|---|---|---|---|"]
    for size in benchmarks["size"].values:
        for stage in benchmarks.stage.values:
            row = benchmarks.sel(size=size, stage=stage)
            slope, memory = float(row.slope_seconds), float(row.slope_memory)
            lines.append(f"| {size} | {stage} | {slope:.2g} | {float(row.bend):.0%} | {memory:.2g} |")
    return "\n".join(lines) + "\n"
