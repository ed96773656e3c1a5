"""The page of a run or of all that is published, and its figures: from data sets alone, never from weights."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import xarray as xr
from matplotlib.figure import Figure

from ...files import only_writer, project_root, write_atomically
from .. import records
from ..figures import registry as figures
from ..groups import Results, count_groups
from ..questions import OPEN, answers
from ..records import checksums as manifest
from ..stages import EXTRA, NOTEBOOKS
from . import notebook_pages
from .across_settings import STOPPED, early_stopped, in_short, paragraphs
from .answers_text import by_question
from .first_screen import KEY, Published, findings, recipe
from .ledger_text import MARKS, by_setting, counted, ledger_table, reported, rows, tally
from .live_figure import live_figure
from .pictures import CLAIM_FIGURES, picture, title
from .places import Place

FAMILIES = OPEN["controls"].figure  # the figure that comes first, and reacts
NUMBERS = ("Effect", "95 % interval", "n trees", "p", "p, Holm", "p, signs")  # heads of the table of parts


class Setting(NamedTuple):
    """What the page shows of a setting: data sets by stage, ledger, figures by name, its name, answers if asked."""

    results: Results
    claims: xr.Dataset
    drawn: Mapping[str, Figure]
    name: str
    answers: xr.Dataset | None = None


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
    others: Sequence[Setting] = (),
) -> None:
    """One HTML file with answer, claims, figures and provenance; it loads nothing, and links to files of its folder.

    Notebooks become pages beside it.

    Args:
        path: of the page.
        results: data sets by stage.
        claims: the ledger.
        drawn: figures by name, as `figures.registry.draw_all` returns them.
        data, notebooks, files: folders of data sets, notebooks and figures, from the page's folder.
        asked: the answers to open questions, where the page should show them too.
        benchmarks: their data set, where the page should show them too.
        others: further settings, whose claims stand beside.
    """
    folder = Path(path).parent
    found = notebook_pages.found(folder / notebooks, of_a_run=Path(notebooks) == Path(notebook_pages.FOLDER))
    notebook_pages.write(found.values(), folder / notebook_pages.FOLDER)
    pages = {name: f"{notebook_pages.FOLDER}/{place.stem}.html" for name, place in found.items()}
    main = Setting(results, claims, drawn, results["merge"].attrs["setting"], asked)
    pages |= _executed(folder, main.name)
    order = sorted(drawn, key=lambda name: name != FAMILIES)
    pictures = [_picture(main, name, pages, Path(data), Path(files)) for name in order]
    speed = []
    for name, (draw, _) in figures.BENCHMARKS.items() if benchmarks is not None else ():
        shown = picture(name, draw(benchmarks), figures.benchmark_caption(name, benchmarks))
        speed.append(shown | {"links": _files(name, Path(files), [Path(data).parent / "benchmarks.nc"])})
    settings = [main, *others]
    told = {each.name: Published(each.claims, each.answers, each.results) for each in settings}
    ledgers = {each.name: each.claims for each in settings}
    see = dict.fromkeys(claims.claim.values.tolist(), [])
    see |= {claim: _see(names, drawn, pages) for claim, names in CLAIM_FIGURES.items()}
    heads, came_out = findings(told)
    html = (
        notebook_pages.templates()
        .get_template("page.html")
        .render(
            short=in_short(told),
            first=(STOPPED, *early_stopped(told), _see([FAMILIES], drawn, pages)) if asked is not None else None,
            key=KEY,
            recipes=[recipe(each.results) for each in settings],
            heads=heads,
            findings=[(row, [(row.claim, f"#{row.claim}"), *see[row.claim]]) for row in came_out],
            counted=counted(claims, results),
            tally=[(verdict, MARKS[verdict], len(names)) for verdict, names in tally(claims).items()],
            settings=[
                _told(setting, _executed(folder, setting.name) if place else None)
                for place, setting in enumerate(settings)
            ],
            claims=[
                {"id": claim, "statement": statement, "cells": cells, "links": see[claim]}
                for claim, statement, cells in by_setting(ledgers)
            ],
            together=paragraphs(told),
            numbers=NUMBERS,
            questions=_questions(settings, pages, folder),
            figures=pictures,
            live=live_figure(drawn[FAMILIES]) if FAMILIES in drawn else None,
            tables=[
                (f"{each.name}-{name}" if place else name, f"{title(name)} ({each.name})", table)
                for place, each in enumerate(settings)
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
    setting: Setting, name: str, pages: Mapping[str, str], data: Path, files: Path, *, where: str = ""
) -> dict:
    """A figure of a setting, with links to what is near."""
    results, stages = setting.results, figures.FIGURES[name][1]
    seen, caption = figures.headline(name, results), figures.caption(name, results)
    shown = picture(name, setting.drawn[name], caption, seen=seen, where=where)
    made_by = [(NOTEBOOKS | EXTRA)[stage] for stage in stages]
    notebooks = [(f"notebook {each}", quote(pages[each])) for each in made_by if each in pages]
    return shown | {"links": [*notebooks, *_files(name, files, [data / f"{stage}.nc" for stage in stages])]}


def _files(name: str, files: Path, data: Sequence[Path]) -> list[tuple[str, str]]:
    """Links, as (text, path), to a figure's files and data sets; without a path to what lies outside the folder."""
    found = [(f"data {each.name}", each) for each in data]
    found += [(ending.upper(), files / f"{name}.{ending}") for ending in ("pdf", "png")]
    return [(text, "" if ".." in path.parts else quote(path.as_posix())) for text, path in found]


def _questions(settings: Sequence[Setting], pages: Mapping[str, str], folder: Path) -> list[list[dict]]:
    """For each open question what every setting answers, with links."""
    told = by_question({each.name: each.answers for each in settings if each.answers is not None})
    found = []
    for stage, answered in told.items():
        found.append([])
        for place, setting in enumerate(settings):
            if one := answered.get(setting.name):
                near, where = (pages | _executed(folder, setting.name), setting.name) if place else (pages, "")
                links = _see([OPEN[stage].figure], setting.drawn, near, where=where)
                found[-1].append(one | {"links": links, "setting": setting.name * (len(settings) > 1)})
    return found


def _see(
    names: Collection[str], drawn: Collection[str], pages: Mapping[str, str], *, where: str = ""
) -> list[tuple[str, str]]:
    """Links, as (text, address), to figures of the page and to the notebooks that measured what they show."""
    where += "-" * bool(where)
    links = [(title(name).partition(":")[0], f"#{where}{name}") for name in names if name in drawn]
    made_by = dict.fromkeys((NOTEBOOKS | EXTRA)[stage] for name in names for stage in figures.FIGURES[name][1])
    return links + [("notebook", quote(pages[each])) for each in made_by if each in pages]


def _executed(folder: Path, setting: str) -> dict[str, str]:
    """From the page's folder, the pages of a setting's executed notebooks by name."""
    there = notebook_pages.executed(folder / setting / notebook_pages.FOLDER)
    return {name: path.relative_to(folder).as_posix() for name, path in there.items()}


def _told(setting: Setting, pages: Mapping[str, str] | None) -> dict:
    """What the page tells of a setting, with pages of its notebooks; None: of the main one, shown elsewhere."""
    results, claims, drawn, name, _ = setting
    folder = Path(name)
    return {
        "name": name,
        "n": count_groups(results["merge"]),
        "answer": counted(claims, results),
        "parts": rows(claims),
        "beside": reported(claims),
        "pictures": [
            _picture(setting, each, pages, Path(".."), folder, where=name) for each in drawn if pages is not None
        ],
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


def redraw(
    published: Path | str, folder: Path | str, *, others: Sequence[Place] = (), benchmarks: Path | None = None
) -> None:
    """Redraw figures, the tables of ledger and answers and the page in ``folder`` from published data sets.

    Args:
        published: folder of the main setting's data sets.
        folder: where all goes.
        others: further settings, whose figures go into folders of their own inside ``folder``.
        benchmarks: their data set, which the page then shows.
    """
    published, folder = Path(published), Path(folder)
    with only_writer(folder):
        main = redraw_setting(Place("", published, folder, None))
        also = {"asked": main.answers}
        if benchmarks is not None and benchmarks.is_file():
            also["benchmarks"] = records.read(benchmarks, stage="benchmarks")
            figures.draw_benchmarks(also["benchmarks"], folder)
        also["others"] = [redraw_setting(place) for place in others]
        nearby = {"data": published, "notebooks": project_root() / "notebooks"}
        nearby = {name: os.path.relpath(place, folder) for name, place in nearby.items()}
        write_page(folder / "index.html", *main[:3], **nearby, files=".", **also)
        manifest.enter([folder / "index.html"])


def redraw_setting(place: Place) -> Setting:
    """Redraw the figures and tables of a setting where its figures lie; those that it no longer has are removed."""
    results, folder = records.read_results(place.data), place.figures
    claims = records.read(place.data / "ledger.nc", stage="ledger")
    drawn, tabulated = figures.draw_all(results, folder, place.names), figures.tabulate_all(results, folder)
    for path in folder.iterdir():
        if path.stem in {*figures.FIGURES, *figures.TABLES} - {*drawn, *tabulated}:
            path.unlink()
    tables, asked = {"ledger.md": ledger_table(claims)}, None
    if (path := place.data / "answers.nc").is_file():
        asked = records.read(path, stage="answers")
        tables["answers.md"] = answers.table(asked)
    for name, text in tables.items():
        write_atomically(folder / name, text)
    manifest.enter(folder / name for name in tables)
    return Setting(results, claims, drawn, place.setting, asked)
