"""Figures and the page of a run, drawn from data sets alone, never from weights."""

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote

import jinja2
import xarray as xr
from matplotlib.figure import Figure

from ...files import only_writer, project_root, write_atomically
from .. import records
from ..figures import registry as figures
from ..figures.alt_text import alt_text, curve_values
from ..figures.style import svg
from ..groups import Results
from ..questions import answers
from ..records import checksums as manifest
from ..stages import EXTRA, NOTEBOOKS
from .ledger_text import MARKS, answer, ledger_table, reported, rows, tally


def write_page(
    path: Path | str,
    results: Results,
    claims: xr.Dataset,
    drawn: Mapping[str, Figure],
    *,
    data: Path | str = "results",
    notebooks: Path | str = "notebooks",
    files: Path | str = "figures",
    asked: xr.Dataset | None = None,
    benchmarks: xr.Dataset | None = None,
) -> None:
    """One HTML file with the answer, figures, ledger and provenance; it loads nothing, and links to what is near.

    Args:
        path: of the page.
        results: data sets by stage.
        claims: the ledger.
        drawn: figures by name, as `figures.registry.draw_all` returns them; the first one is the main figure.
        data, notebooks, files: folders of data sets, notebooks and figures, from the page's folder.
        asked: the answers to open questions, where the page should show them too.
        benchmarks: their data set, where the page should show them too.
    """
    folder, pictures = Path(path).parent, []
    for name, figure in drawn.items():
        links = []
        for stage in figures.FIGURES[name][1]:
            links.append((f"data {stage}.nc", Path(data, f"{stage}.nc")))
            pattern = f"{(NOTEBOOKS | EXTRA)[stage]}*.ipynb"  # executed ones are a shard each
            made_by = sorted((folder / notebooks).glob(pattern))
            links += [(f"notebook {found.stem}", Path(notebooks, found.name)) for found in made_by[:1]]
        shown = _picture(name, figure, figures.caption(name, results), links, files)
        seen = figures.headline(name, results)
        heading = f"{title(name).partition(':')[0]}: {seen}" if seen else title(name)
        pictures.append(shown | {"numbers": curve_values(figure), "title": heading})
    speed = []
    if benchmarks is not None:
        links = [("data benchmarks.nc", Path(data).parent / "benchmarks.nc")]
        for name, (draw, _) in figures.BENCHMARKS.items():
            text = figures.benchmark_caption(name, benchmarks)
            speed.append(_picture(name, draw(benchmarks), text, links, files))
    attrs = results["merge"].attrs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrebasin.study.publishing", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html").render(
        answer=answer(claims, results),
        tally=[(verdict, MARKS[verdict], len(names)) for verdict, names in tally(claims).items()],
        claims=rows(claims),
        beside=reported(claims),
        questions=[] if asked is None else answers.sentences(asked),
        figures=pictures,
        tables=[(name, title(name), table) for name, table in figures.tabulate_all(results).items()],
        benchmarks=speed,
        origin=[_origin(stage, dataset) for stage, dataset in results.items()],
        setting=attrs["setting"],
        source=attrs["data_source"],
        versions=json.loads(attrs["versions"]),
    )
    write_atomically(Path(path), html)


def title(name: str) -> str:
    """A heading for a figure.

    >>> title("fig2_robust_accuracy")
    'Figure 2: robust accuracy'
    """
    kind, number, words = re.fullmatch("(fig|bench|table)([0-9]+)_(.*)", name).groups()
    kinds = {"fig": "Figure", "bench": "Benchmark", "table": "Table"}
    return f"{kinds[kind]} {number}: {words.replace('_', ' ')}"


def _picture(name: str, figure: Figure, caption: str, links: list, files: Path | str) -> dict:
    """What the page shows of a figure; links as (text, path)."""
    links = [*links, *((ending.upper(), Path(files, f"{name}.{ending}")) for ending in ("pdf", "png"))]
    return {
        "name": name,
        "title": title(name),
        "svg": quote(svg(figure), safe=" !$&'()*+,-./:;=?@_~<>"),
        "alt": alt_text(figure),
        "caption": caption,
        "links": [(text, quote(target.as_posix())) for text, target in links],
    }


def _origin(stage: str, dataset: xr.Dataset) -> dict:
    """Where a data set comes from, a row of the page's table."""
    attrs, digests = dataset.attrs, json.loads(dataset.attrs.get("data_digest", "{}"))
    return {
        "stage": stage,
        "seconds": attrs.get("wall_seconds", float("nan")),
        "n": dataset.sizes.get("model", dataset.sizes.get("pair")),
        **{key: str(attrs.get(key, "")) for key in ("code_commit", "device", "created")},
        "digests": ", ".join(f"{split} {digest[:8]}" for split, digest in digests.items()),
        "changed": bool(attrs.get("code_changed", 0)),
    }


def redraw(
    published: Path | str,
    folder: Path | str,
    *,
    names: Collection[str] | None = None,
    benchmarks: Path | None = None,
) -> None:
    """Redraw figures, the tables of ledger and answers and the page in ``folder`` from published data sets.

    Args:
        published: folder of a setting's data sets.
        folder: where all goes.
        names: of the figures, by default all.
        benchmarks: their data set, which the page then shows.
    """
    published, folder = Path(published), Path(folder)
    with only_writer(folder):
        _redraw(published, folder, names, benchmarks)


def _redraw(published: Path, folder: Path, names: Collection[str] | None, benchmarks: Path | None) -> None:
    results = records.read_results(published)
    figures.tabulate_all(results, folder)
    claims = records.read(published / "ledger.nc", stage="ledger")
    drawn, also = figures.draw_all(results, folder, names), {}
    tables = {"ledger.md": ledger_table(claims)}
    if (path := published / "answers.nc").is_file():
        also["asked"] = records.read(path, stage="answers")
        tables["answers.md"] = answers.table(also["asked"])
    for name, text in tables.items():
        write_atomically(folder / name, text)
    if benchmarks is not None and benchmarks.is_file():
        also["benchmarks"] = records.read(benchmarks, stage="benchmarks")
        figures.draw_benchmarks(also["benchmarks"], folder)
    nearby = {"data": published, "notebooks": project_root() / "notebooks"}
    nearby = {name: os.path.relpath(place, folder) for name, place in nearby.items()}
    write_page(folder / "index.html", results, claims, drawn, **nearby, files=".", **also)
    manifest.enter([*(folder / name for name in tables), folder / "index.html"])
