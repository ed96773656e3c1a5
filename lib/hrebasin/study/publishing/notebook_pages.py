"""Notebooks as pages that a browser shows: HTML beside the page, with one style sheet for all."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

import jinja2

from ...files import write_atomically
from ..records import checksums as manifest
from ..stages import ANSWERS, PAPER

FOLDER = "notebooks"  # beside the page
STYLE = "style.css"
LINK = re.compile(r'<a href="(\w+)\.ipynb">(.*?)</a>')


def templates() -> jinja2.Environment:
    """What pages are made from."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hrebasin.study.publishing", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def found(folder: Path, *, of_a_run: bool) -> dict[str, Path]:
    """The notebooks of a folder by the name of the committed ones; of a run's executed ones the first shard's.

    Args:
        folder: that holds them.
        of_a_run: whether they were executed there; those that conclude are then still running.
    """
    there = {re.sub(r"-\d+$", "", path.stem): path for path in sorted(folder.glob("[!.]*.ipynb"), reverse=True)}
    return {name: there[name] for name in sorted(there) if not (of_a_run and name in (PAPER, ANSWERS))}


def write(notebooks: Collection[Path], folder: Path) -> None:
    """Write each notebook as a page of its name, with links among them, and their style sheet.

    Args:
        notebooks: paths.
        folder: where the pages go, which are entered into its list of sums.
    """
    from nbconvert import HTMLExporter  # takes seconds

    exporter, environment = HTMLExporter(template_name="basic", anchor_link_text=""), templates()
    exporter.log.setLevel("ERROR")  # pictures that have no text for blind readers are told in the notebooks' words
    names = [path.stem for path in notebooks]
    for path in notebooks:
        body, _ = exporter.from_filename(str(path))
        html = environment.get_template("notebook.html").render(name=path.stem, body=_linked(body, names))
        write_atomically(folder / f"{path.stem}.html", html + "\n")
    write_atomically(folder / STYLE, environment.get_template("notebook.css").render())
    manifest.enter(folder / name for name in [*(f"{name}.html" for name in names), STYLE])


def _linked(body: str, names: Iterable[str]) -> str:
    """The page with links to pages in place of those to notebooks, or their text alone where there is no page."""
    return LINK.sub(lambda link: f'<a href="{link[1]}.html">{link[2]}</a>' if link[1] in names else link[2], body)
