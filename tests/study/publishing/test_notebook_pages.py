"""Notebooks as pages: readable alone, linked among themselves, of a run's first shard."""

import nbformat
import pytest

from hrebasin.files import project_root
from hrebasin.study.publishing import notebook_pages
from hrebasin.study.records import checksums as manifest

PAGES = project_root() / "figures" / notebook_pages.FOLDER


@pytest.fixture
def notebooks(tmp_path):
    names = {"01_one": "[next](02_two.ipynb), [elsewhere](03_three.ipynb)", "02_two": "`code`"}
    for name, text in names.items():
        cells = [nbformat.v4.new_markdown_cell(text, id="a"), nbformat.v4.new_code_cell("x = 1  # one", id="b")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return tmp_path


def test_pages_link_pages_and_nothing_that_is_not_there(notebooks, tmp_path):
    folder = tmp_path / "pages"
    notebook_pages.write(notebook_pages.found(notebooks, of_a_run=False).values(), folder)
    html = (folder / "01_one.html").read_text()
    assert '<a href="02_two.html">next</a>, elsewhere' in html
    assert "ipynb" not in html
    assert "# one" in html
    assert manifest.compare(folder, "*.html", "*.css") == (sorted(folder.glob("*.[hc]*")), [])


def test_a_run_shows_the_first_shard_of_each_notebook_that_has_ended(tmp_path):
    for name in ("01_train-000", "01_train-001", "02_merge-003", "02_merge-004", "24_repair-000.failed", "29_answers"):
        (tmp_path / f"{name}.ipynb").touch()
    found = notebook_pages.found(tmp_path, of_a_run=True)
    assert {name: path.stem for name, path in found.items()} == {
        "01_train": "01_train-000", "02_merge": "02_merge-003"
    }  # fmt: skip


def test_published_pages_are_those_of_the_notebooks(tmp_path):
    found = notebook_pages.found(project_root() / "notebooks", of_a_run=False)
    notebook_pages.write(found.values(), tmp_path)
    again, kept = ({path.name: path.read_text() for path in sorted(place.iterdir())} for place in (tmp_path, PAGES))
    assert again == kept, "run: make figures"


def test_executed_notebooks_of_a_run_become_pages_that_name_no_folder_of_the_machine(tmp_path):
    pages = tmp_path / "pages"
    for run, images in (("first", "/home/me/pictures.tar"), ("second", "/home/me/others.tar")):
        cell = nbformat.v4.new_code_cell(f"dataset = '{images}'", id="a")
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"parameters": {"dataset": images}}})
        for name in ("01_train-000", "01_train-001", *(["02_merge-000"] if run == "second" else [])):
            (tmp_path / run / "notebooks").mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, tmp_path / run / "notebooks" / f"{name}.ipynb")
        notebook_pages.keep(tmp_path / run, pages, add=True)
    found = notebook_pages.executed(pages)
    assert {name: path.name for name, path in found.items()} == {
        "01_train": "01_train-000.html", "02_merge": "02_merge-000.html"
    }  # fmt: skip
    assert "pictures.tar" in found["01_train"].read_text()  # what was published first stays
    assert not any("/home" in path.read_text() for path in found.values())
    assert 'href="../../index.html"' in found["02_merge"].read_text()
    assert manifest.compare(pages, "*.html", "*.css")[1] == []
