"""The page and its parts: redrawn from what is published, with a figure that reacts and notebooks to read."""

import json
import re

import nbformat
import pytest
from matplotlib.figure import Figure
from pages import check_links

from hrebasin.files import project_root
from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import notebook_pages, page
from hrebasin.study.publishing.live_figure import live_figure
from hrebasin.study.publishing.places import Place, read_published
from hrebasin.study.records import checksums as manifest

SOME = ("fig1_accuracy", "fig9_controls")  # test_results redraws all


def touch(folder, notebook):
    """An empty page of a notebook: to write them takes long, and has tests below."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{notebook.stem}.html").touch()


@pytest.mark.usefixtures("few_resamples", "unsaved")
def test_redrawing_from_published_results_gives_the_same_files_twice(published, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "drawable", lambda results: SOME)
    monkeypatch.setattr(notebook_pages, "write", lambda found, folder: [touch(folder, path) for path in found])
    one, two = tmp_path / "one", tmp_path / "two"
    page.redraw([Place("test", published, one, None), Place("other", published, one / "other", ("fig1_accuracy",))])
    names = sorted(path.name for path in one.glob("[!.]*"))
    drawn = [f"{name}.{ending}" for name in SOME for ending in ("pdf", "png", "md")]
    texts = ["index.html", "ledger.md", "answers.md", *(f"{name}.md" for name in figures.TABLES)]
    assert names == sorted([*drawn, *texts, "SHA256SUMS", "notebooks", "other"])
    assert {path.name for path in manifest.compare(one)[0]} == {*drawn, *texts}
    two.mkdir()
    (two / "fig14_recipes.pdf").write_text("of another setting, before")
    page.redraw_setting(Place("", published, two, None), read_published(published))
    assert not (two / "fig14_recipes.pdf").exists()
    for name in names:
        if name.split(".")[0] in (*SOME, "ledger", "answers"):
            assert (one / name).read_bytes() == (two / name).read_bytes(), name

    html = (one / "index.html").read_text()
    assert html.count("<img ") == len(SOME) + 1 == html.count("<figcaption>")
    assert all(f'<section id="{name}">' in html for name in figures.TABLES)
    assert "synthetic images" in html
    table = html[html.index('class="stack claims"') :]
    heads, *rows = re.findall("<tr.*?</tr>", table, flags=re.DOTALL)[: 1 + len(CLAIMS)]
    assert re.findall('<a href="#(.*?)">', heads) == ["test", "other"]
    assert re.findall('<tr id="(.*?)">', "".join(rows)) == list(CLAIMS)
    assert all(row.count('<span class="verdict') == 2 for row in rows)
    assert html.count('<figure id="other-fig1_accuracy">') == html.count('<section id="other">') == 1
    assert "other/fig1_accuracy.pdf" in check_links(one / "index.html")


def chart() -> Figure:
    figure = Figure()
    for axes in figure.subplots(2, 1, sharex=True):
        axes.plot([1, 2], [40, 30], color="#0072B2", label="tree")
        axes.vlines([1, 2], [38, 29], [42, 31.5], color="#0072B2")
        axes.plot([1, 2], [20, 10], color="#D55E00", label="</script>")
    axes.set(xlabel="test accuracy (%)", ylabel="right (%)")
    return figure


def test_it_shows_the_drawn_curves_alike_each_time_and_ends_no_script_early():
    live = live_figure(chart())
    assert live["names"] == [{"name": "tree", "colour": "#0072b2"}, {"name": "</script>", "colour": "#d55e00"}]
    text = json.dumps(json.loads(live["figure"]))
    assert '"told", ["40.0 (38.0 to 42.0)", "30.0 (29.0 to 31.5)"]' in text
    assert '"x", [1.0, 2.0]' in text
    assert text.count('"tags": [1]') == 2 * 3  # line, points and intervals of a curve in both panels
    assert live == live_figure(chart())
    assert "</script" not in live["figure"] + live["script"]


def test_pages_link_pages_and_nothing_that_is_not_there(tmp_path):
    names = {"01_one": "[next](02_two.ipynb), [elsewhere](03_three.ipynb)", "02_two": "`code`"}
    for name, text in names.items():
        cells = [nbformat.v4.new_markdown_cell(text, id="a"), nbformat.v4.new_code_cell("x = 1  # one", id="b")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    folder = tmp_path / "pages"
    notebook_pages.write(notebook_pages.found(tmp_path, of_a_run=False).values(), folder)
    html = (folder / "01_one.html").read_text()
    assert '<a href="02_two.html">next</a>, elsewhere' in html
    assert "ipynb" not in html
    assert "# one" in html
    assert manifest.compare(folder, "*.html", "*.css") == (sorted(folder.glob("*.[hc]*")), [])


def test_published_pages_are_those_of_the_notebooks(tmp_path):
    found = notebook_pages.found(project_root() / "notebooks", of_a_run=False)
    notebook_pages.write(found.values(), tmp_path)
    pages = project_root() / "figures" / notebook_pages.FOLDER
    again, kept = ({path.name: path.read_text() for path in place.iterdir()} for place in (tmp_path, pages))
    assert again == kept, "run: make figures"


def test_executed_notebooks_of_a_run_become_pages_that_name_no_folder_of_the_machine(tmp_path):
    pages = tmp_path / "pages"
    for run, images in (("first", "/home/me/pictures.tar"), ("second", "/home/me/others.tar")):
        cell = nbformat.v4.new_code_cell(f"dataset = '{images}'", id="a")
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"parameters": {"dataset": images}}})
        (tmp_path / run / "notebooks").mkdir(parents=True)
        more = ["02_merge-003", "06_paper"] if run == "second" else []
        for name in ("01_train-000", "01_train-001", "03_attack-000.failed", *more):
            nbformat.write(notebook, tmp_path / run / "notebooks" / f"{name}.ipynb")
        notebook_pages.keep(tmp_path / run, pages, add=True)
    found = notebook_pages.executed(pages)  # the first shard that has ended
    assert [path.name for path in found.values()] == ["01_train-000.html", "02_merge-003.html"]
    assert "pictures.tar" in found["01_train"].read_text()  # what was published first stays
    assert not any("/home" in path.read_text() for path in found.values())
    assert 'href="../../index.html"' in found["02_merge"].read_text()
    assert manifest.compare(pages, "*.html", "*.css")[1] == []
