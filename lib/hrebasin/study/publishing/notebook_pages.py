"""Notebooks as pages that a browser shows: HTML beside the page, with one style sheet for all."""

import html
import re
import sys
from collections.abc import Collection
from pathlib import Path

import jinja2

from ...files import write_atomically
from ..records import checksums as manifest
from ..stages import ANSWERS, PAPER

FOLDER = "notebooks"  # beside the page
STYLE = "style.css"
LINK = re.compile(r'<a href="(\w+)\.ipynb">(.*?)</a>')


def templates() -> jinja2.Environment:
    """What pages are made from; their filter ``marked`` gives HTML with code for what stands between backticks."""
    loader = jinja2.PackageLoader("hrebasin.study.publishing", ".")
    made = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["marked"] = lambda text: re.sub("`(.*?)`", r"<code>\1</code>", html.escape(text))
    return made


def found(folder: Path, *, of_a_run: bool) -> dict[str, Path]:
    """The notebooks of a folder by the name of the committed ones.

    Of a run's executed ones the first shard's, without those that conclude, which are still running.
    """
    whole = (path for path in folder.glob("[!.]*.ipynb") if not path.match("*.failed.ipynb"))
    there = {_committed(path): path for path in sorted(whole, reverse=True)}
    return {name: there[name] for name in sorted(there) if not (of_a_run and name in (PAPER, ANSWERS))}


def executed(folder: Path) -> dict[str, Path]:
    """The pages of a setting's executed notebooks, by the name of the committed ones."""
    return {_committed(path): path for path in sorted(folder.glob("*.html"))}


def _committed(path: Path) -> str:
    return re.sub(r"-\d+$", "", path.stem)


def keep(run: Path, folder: Path, *, add: bool) -> None:
    """Write the executed notebooks in a run's folder, of its first shard, as pages in the folder of published ones.

    With ``add``, pages that are there stay, of groups that were published before.
    """
    there = executed(folder)
    new = [path for name, path in found(run / FOLDER, of_a_run=True).items() if not (add and name in there)]
    if not new:
        return
    for page in () if add else there.values():
        page.unlink()
    write(new, folder, up="../../")


def write(notebooks: Collection[Path], folder: Path, *, up: str = "../") -> None:
    """Write each notebook as a page of its name, with links among them, and their style sheet, and enter their sums.

    ``up`` is the way from their folder to that of the page that shows all.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # as in `hrebasin.study.running.notebook_runner`
    import nbformat  # these two take seconds
    from nbconvert import HTMLExporter

    exporter, environment = HTMLExporter(template_name="basic", anchor_link_text=""), templates()
    exporter.log.setLevel("ERROR")  # pictures that have no text for blind readers are told in the notebooks' words
    names = [path.stem for path in notebooks]
    for path in notebooks:
        body, _ = exporter.from_notebook_node(notebook := nbformat.read(path, as_version=4))
        images = notebook.metadata.get("papermill", {}).get("parameters", {}).get("dataset", "")
        if Path(images).is_absolute():  # somewhere on the machine that ran it
            body = body.replace(images, Path(images).name)
        # links to pages in place of those to notebooks, or their text alone where there is no page
        body = LINK.sub(lambda link: f'<a href="{link[1]}.html">{link[2]}</a>' if link[1] in names else link[2], body)
        whole = environment.get_template("notebook.html").render(name=path.stem, body=body, up=up)
        write_atomically(folder / f"{path.stem}.html", whole + "\n")
    write_atomically(folder / STYLE, environment.get_template("notebook.css").render())
    manifest.enter(folder / name for name in [*(f"{name}.html" for name in names), STYLE])
