"""The page of a run or of all that is published, and its figures: from data sets alone, never from weights."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import xarray as xr

from ...files import only_writer, project_root, write_atomically
from .. import records
from ..figures import registry as figures
from ..groups import count_groups
from ..questions import OPEN, answers
from ..records import checksums as manifest
from ..stages import EXTRA, NOTEBOOKS
from . import early_stopping, notebook_pages
from .across_settings import paragraphs
from .answers_text import by_question
from .first_screen import findings, key, recipe
from .ledger_text import MARKS, by_setting, counted, ledger_table, reported, rows, tally
from .live_figure import live_figure
from .pictures import CLAIM_FIGURES, picture, title
from .places import Place, Published, Settings, read_published
from .short_answer import in_short

FAMILIES = OPEN["controls"].figure  # the figure that comes first, and reacts
NUMBERS = ("Effect", "95 % interval", "n trees", "p", "p, Holm", "p, signs")  # heads of the table of parts


def write_page(
    path: Path | str,
    settings: Settings,
    *,
    data: Path | str = "results",
    notebooks: Path | str = "notebooks",
    files: Path | str = "figures",
    benchmarks: xr.Dataset | None = None,
) -> None:
    """One HTML file with answer, claims and provenance; figures, and all that it links to, are files of its folder.

    Notebooks become pages beside it.

    Args:
        path: of the page.
        settings: by name, the main one first.
        data, notebooks, files: folders of the main setting's data sets and figures, and of notebooks, from the page's.
        benchmarks: their data set, where the page should show them too.
    """
    folder = Path(path).parent
    found = notebook_pages.found(folder / notebooks, of_a_run=Path(notebooks) == Path(notebook_pages.FOLDER))
    notebook_pages.write(found.values(), folder / notebook_pages.FOLDER)
    pages = {name: f"{notebook_pages.FOLDER}/{place.stem}.html" for name, place in found.items()}
    main = next(iter(settings))
    claims, asked, results, drawn = settings[main]
    pages |= _executed(folder, main)
    order = sorted(drawn, key=lambda name: name != FAMILIES)
    pictures = [_picture(settings[main], name, pages, Path(data), Path(files)) for name in order]
    speed = []
    for name, (draw, _) in figures.BENCHMARKS.items() if benchmarks is not None else ():
        shown = picture(name, draw(benchmarks), figures.benchmark_caption(name, benchmarks), files=Path(files))
        speed.append(shown | {"links": _files(name, Path(files), [Path(data).parent / "benchmarks.nc"])})
    see = dict.fromkeys(claims.claim.values.tolist(), [])
    see |= {claim: _see(names, drawn, pages) for claim, names in CLAIM_FIGURES.items()}
    heads, came_out = findings(settings)
    html = (
        notebook_pages.templates()
        .get_template("page.html")
        .render(
            short=in_short(settings),
            stopped=early_stopping.STOPPED,
            first=early_stopping.early_stopped(settings) if asked is not None else None,
            beside=(early_stopping.HEADS, early_stopping.table(settings), _see([FAMILIES], drawn, pages)),
            note=early_stopping.NOTE,
            others=early_stopping.beside_the_table(settings),
            key=key(settings),
            recipes=[recipe(each.results) for each in settings.values()],
            heads=heads,
            findings=[(row, [(row.claim, f"#{row.claim}"), *see[row.claim]]) for row in came_out],
            counted=counted(claims, results),
            tally=[(verdict, MARKS[verdict], len(names)) for verdict, names in tally(claims).items()],
            settings=[
                _told(name, setting, None if name == main else _executed(folder, name))
                for name, setting in settings.items()
            ],
            claims=[
                {"id": claim, "statement": statement, "cells": cells, "links": see[claim]}
                for claim, statement, cells in by_setting(settings)
            ],
            together=paragraphs(settings),
            numbers=NUMBERS,
            questions=_questions(settings, pages, folder),
            figures=pictures,
            live=live_figure(drawn[FAMILIES]) if FAMILIES in drawn else None,
            tables=[
                (name if setting == main else f"{setting}-{name}", f"{title(name)} ({setting})", table)
                for setting, each in settings.items()
                for name, table in figures.tabulate_all(each.results).items()
            ],
            benchmarks=speed,
            origin=[_origin(stage, dataset) for stage, dataset in results.items()],
            source=results["merge"].attrs["data_source"],
            versions=json.loads(results["merge"].attrs["versions"]),
        )
    )
    write_atomically(Path(path), html)


def _picture(
    setting: Published, name: str, pages: Mapping[str, str], data: Path, files: Path, *, where: str = ""
) -> dict:
    """A figure of a setting, with links to what is near."""
    results, stages = setting.results, figures.FIGURES[name][1]
    seen, caption = figures.headline(name, results), figures.caption(name, results)
    shown = picture(name, setting.drawn[name], caption, files=files, seen=seen, where=where)
    made_by = [(NOTEBOOKS | EXTRA)[stage] for stage in stages]
    notebooks = [(f"notebook {each}", quote(pages[each])) for each in made_by if each in pages]
    return shown | {"links": [*notebooks, *_files(name, files, [data / f"{stage}.nc" for stage in stages])]}


def _files(name: str, files: Path, data: Sequence[Path]) -> list[tuple[str, str]]:
    """Links, as (text, path), to a figure's files and data sets; without a path to what lies outside the folder."""
    found = [(f"data {each.name}", each) for each in data]
    found += [(ending.upper(), files / f"{name}.{ending}") for ending in ("pdf", "png")]
    return [(text, "" if ".." in path.parts else quote(path.as_posix())) for text, path in found]


def _questions(settings: Settings, pages: Mapping[str, str], folder: Path) -> list[list[dict]]:
    """For each open question what every setting answers, with links."""
    main, found = next(iter(settings)), []
    for stage, answered in by_question(settings).items():
        found.append([])
        for name, one in answered.items():
            where = "" if name == main else name
            links = _see([OPEN[stage].figure], settings[name].drawn, pages | _executed(folder, name), where=where)
            found[-1].append(one | {"links": links, "setting": name * (len(settings) > 1)})
    return found


def _see(
    names: Collection[str], drawn: Collection[str], pages: Mapping[str, str], *, where: str = ""
) -> list[tuple[str, str]]:
    """Links, as (text, address), to figures of the page and to the notebooks that measured what they show."""
    where += "-" * bool(where)
    links = [(title(name).partition(":")[0], f"#{where}{name}") for name in names if name in drawn]
    made_by = dict.fromkeys((NOTEBOOKS | EXTRA)[stage] for name in names for stage in figures.FIGURES[name][1])
    return links + [(f"notebook {each[:2]}", quote(pages[each])) for each in made_by if each in pages]


def _executed(folder: Path, setting: str) -> dict[str, str]:
    """From the page's folder, the pages of a setting's executed notebooks by name."""
    there = notebook_pages.executed(folder / setting / notebook_pages.FOLDER)
    return {name: path.relative_to(folder).as_posix() for name, path in there.items()}


def _told(name: str, setting: Published, pages: Mapping[str, str] | None) -> dict:
    """What the page tells of a setting, with pages of its notebooks; None: of the main one, shown elsewhere."""
    drawn, folder = setting.drawn if pages is not None else (), Path(name)
    return {
        "name": name,
        "n": count_groups(setting.results["merge"]),
        "answer": counted(setting.ledger, setting.results),
        "parts": rows(setting.ledger),
        "beside": reported(setting.ledger),
        "pictures": [_picture(setting, each, pages, Path(".."), folder, where=name) for each in drawn],
    }


def _origin(stage: str, dataset: xr.Dataset) -> dict:
    """Where a data set comes from, a row of the page's table."""
    attrs, digests = dataset.attrs, json.loads(dataset.attrs.get("data_digest", "{}"))
    return {
        "stage": stage,
        "seconds": records.seconds(dataset),
        "n": dataset.sizes.get("model", dataset.sizes.get("pair")),
        **{key: str(attrs.get(key, "")) for key in ("code_commit", "device", "created")},
        "digests": ", ".join(f"{split} {digest[:8]}" for split, digest in digests.items()),
        "changed": bool(attrs.get("code_changed", 0)),
    }


def redraw(published: Sequence[Place], *, benchmarks: Path | None = None) -> dict[str, Published]:
    """Redraw figures and tables of what is published, and the page beside those of the main setting, which comes first.

    All settings are read before anything is drawn. The page shows benchmarks where their data set is there.

    Returns:
        What was read and drawn, by setting.
    """
    folder, read = published[0].figures, [read_published(place.data) for place in published]
    measured = records.read(benchmarks, stage="benchmarks") if benchmarks and benchmarks.is_file() else None
    with only_writer(folder):
        if measured is not None:
            figures.draw_benchmarks(measured, folder)
        settings = {place.setting: redraw_setting(place, each) for place, each in zip(published, read, strict=True)}
        nearby = {"data": published[0].data, "notebooks": project_root() / "notebooks"}
        nearby = {name: os.path.relpath(place, folder) for name, place in nearby.items()}
        write_page(folder / "index.html", settings, **nearby, files=".", benchmarks=measured)
        manifest.enter([folder / "index.html"])
    return settings


def redraw_setting(place: Place, read: Published) -> Published:
    """Redraw the figures and tables of a setting where its figures lie; those that it no longer has are removed."""
    folder, results = place.figures, read.results
    drawn, tabulated = figures.draw_all(results, folder, place.names), figures.tabulate_all(results, folder)
    for path in folder.iterdir():
        if path.stem in {*figures.FIGURES, *figures.TABLES} - {*drawn, *tabulated}:
            path.unlink()
    tables = {"ledger.md": ledger_table(read.ledger)}
    if read.answers is not None:
        tables["answers.md"] = answers.table(read.answers)
    for name, text in tables.items():
        write_atomically(folder / name, text)
    manifest.enter(folder / name for name in tables)
    return read._replace(drawn=drawn)
