"""Figures drawn, captioned from their data, and written; `hrebasin.study.figures` lists them."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import xarray as xr
from matplotlib.figure import Figure

from ...files import write_atomically
from .. import records
from ..benchmarks import plots as benchmark_plots
from ..groups import count_groups
from ..records import checksums as manifest
from . import FIGURES, TABLES, drawable
from .captions import images_of_parameters
from .legibility import outside
from .style import FEWEST, describe_spread, save

BENCHMARKS: dict[str, tuple[Callable[[xr.Dataset], Figure], str]] = {
    "bench1_speed": (
        benchmark_plots.speed,
        "Median time of the alternative divided by ours, both run in turns in one process on the same trained "
        "networks; lines: range over n = {repeats} repeats.",
    ),
    "bench2_scaling": (
        benchmark_plots.scaling,
        "Time of stages, and their peak memory beside the networks that go in and come out, against the number of "
        "networks; small ones have hidden layers of 128, 128 and 64 units, full ones of 512, 512 and 256. Each point "
        "is n = 1 run in a process of its own: no interval can be given. Lines: least squares.",
    ),
}


class Table(NamedTuple):
    """A table: its caption, the heads of its columns, and its rows, as texts."""

    caption: str
    heads: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table, and its caption below."""
        lines = [f"| {' | '.join(cells)} |" for cells in (self.heads, ["---"] * len(self.heads), *self.rows)]
        return "\n".join([*lines, "", self.caption, ""])


def draw_all(
    results: Mapping[str, xr.Dataset], folder: Path | str, names: Collection[str] | None = None
) -> dict[str, Figure]:
    """Draw every figure whose data sets are there and write it as PDF and PNG, its caption beside it as Markdown.

    The files are entered into the folder's list of sums.

    Args:
        results: data sets by stage.
        folder: where the files go.
        names: of the figures to draw, by default all.

    Returns:
        The figures by name.
    """
    wanted = [name for name in drawable(results) if names is None or name in names]
    folder, drawn = Path(folder), {name: draw(name, results) for name in wanted}
    for name, figure in drawn.items():
        about = source(results, FIGURES[name][1])
        _write(figure, folder / name, source=about, caption=caption(name, results))
    return drawn


def tabulate_all(results: Mapping[str, xr.Dataset], folder: Path | str | None = None) -> dict[str, Table]:
    """Every table whose data sets are there, by name; with a folder, they are written there as Markdown.

    Args:
        results: data sets by stage.
        folder: where the files go, which are entered into its list of sums.
    """
    made = {}
    for name, (_, stages) in TABLES.items():
        if set(stages) <= set(results):
            heads, rows = _function(name)(*(results[stage] for stage in stages))
            made[name] = Table(caption(name, results), heads, rows)
    for name, table in made.items() if folder else ():
        write_atomically(Path(folder) / f"{name}.md", table.markdown())
        manifest.enter([Path(folder) / f"{name}.md"])
    return made


def draw(name: str, results: Mapping[str, xr.Dataset]) -> Figure:
    """One figure from data sets by stage."""
    return _function(name)(*(results[stage] for stage in FIGURES[name][1]))


def _function(name: str) -> Callable[..., Figure]:
    if name not in (known := FIGURES | TABLES):
        raise ValueError(f"no figure {name!r}; known are {list(known)}")
    return resolve_name(f"hrebasin.study.{known[name][0]}")


def _write(figure: Figure, stem: Path, *, source: str, caption: str) -> None:
    if left := outside(figure):
        warnings.warn(f"{stem.name}: {', '.join(map(repr, left))} leave the figure", stacklevel=2)
    files = save(figure, stem, source=source)
    text = stem.with_name(f"{stem.name}.md")
    write_atomically(text, caption + "\n")
    manifest.enter([*files, text])


def source(results: Mapping[str, xr.Dataset], stages: Iterable[str]) -> str:
    """The data sets behind a figure, in words for its files' metadata."""
    return "; ".join(records.describe(results[stage]) for stage in stages)


def caption(name: str, results: Mapping[str, xr.Dataset]) -> str:
    """The caption of a figure: what it shows, the data, how many groups and images, and what the intervals are."""
    function = _function(name)
    dataset = results[(FIGURES | TABLES)[name][1][0]]
    n = count_groups(dataset)
    shown = describe_spread(n) + (" (studentised bootstrap over trees)" if n >= FEWEST else " over trees")
    spread = (
        f"{'Mean' if name in TABLES else 'Lines or large markers: mean'} over n = {n} trees; "
        f"{'in brackets' if name in TABLES else 'bands or bars'}: {shown}."
        if n > 1
        else "n = 1 tree: no interval can be given."
    )
    data = f"Data: {dataset.attrs.get('data_source', 'unknown')}."
    about = function.about(dataset)
    if getattr(function, "seen", None) and n > 1:
        about.append("The title follows from 95 % intervals that are not corrected for the number of comparisons.")
    if "image" not in dataset.dims:  # nor do all figures' own sentences say it
        about += [sentence for sentence in images_of_parameters(dataset) if sentence not in about]
    return " ".join([function.caption, spread, *about, data])


def headline(name: str, results: Mapping[str, xr.Dataset]) -> str:
    """What a figure shows, in a sentence; empty where nothing was written to say so."""
    function = _function(name)
    return function.seen(*(results[stage] for stage in FIGURES[name][1])) if function.seen else ""


def draw_benchmarks(benchmarks: xr.Dataset, folder: Path | str) -> dict[str, Figure]:
    """Draw the figures of the benchmarks, from the data set of that stage; files as in `draw_all`."""
    folder, drawn = Path(folder), {}
    for name, (draw, _) in BENCHMARKS.items():
        drawn[name], told = draw(benchmarks), benchmark_caption(name, benchmarks)
        _write(drawn[name], folder / name, source=records.describe(benchmarks), caption=told)
    for name, table in (("bench1_table", benchmark_plots.speed_table), ("bench2_table", benchmark_plots.lines_table)):
        write_atomically(folder / f"{name}.md", table(benchmarks))
        manifest.enter([folder / f"{name}.md"])
    return drawn


def benchmark_caption(name: str, benchmarks: xr.Dataset) -> str:
    """The caption of a figure of the benchmarks: what it shows, how many repeats, images and device."""
    images, device = (benchmarks.attrs.get(name, "unknown") for name in ("data_source", "device"))
    return f"{BENCHMARKS[name][1].format(repeats=benchmarks.sizes['repeat'])} Data: {images}; {device}."
