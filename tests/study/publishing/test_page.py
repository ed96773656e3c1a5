"""Redrawing figures and page from what is published."""

import pytest

from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import page
from hrebasin.study.records import checksums as manifest


@pytest.fixture(scope="module")
def redrawn(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("redrawn") / "one"
    page.redraw(published, folder)
    return folder


def test_redrawing_from_published_results_gives_the_same_files_twice(published, redrawn, monkeypatch):
    names = sorted(path.name for path in redrawn.glob("[!.]*"))
    drawn = [f"{name}.{ending}" for name in figures.FIGURES for ending in ("pdf", "png", "md")]
    texts = ["index.html", "ledger.md", "answers.md", *(f"{name}.md" for name in figures.TABLES)]
    assert names == sorted([*drawn, *texts, "SHA256SUMS", "notebooks"])
    assert {path.name for path in manifest.compare(redrawn)[0]} == {*drawn, *texts}
    some = list(figures.FIGURES)[::4]  # all would take long
    monkeypatch.setattr(figures, "drawable", lambda results: some)
    again = redrawn.with_name("two")
    page.redraw(published, again)
    for name in names:
        if name.split(".")[0] in (*some, "ledger", "answers"):
            assert (redrawn / name).read_bytes() == (again / name).read_bytes(), name


def test_the_page_shows_every_figure_claim_and_source(redrawn):
    html = (redrawn / "index.html").read_text()
    assert html.count("<img ") == len(figures.FIGURES) == html.count("<figcaption>")
    assert all(f'<tr id="{claim}">' in html for claim in CLAIMS)
    assert all(f'<section id="{name}">' in html for name in figures.TABLES)
    assert "synthetic images" in html


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set at"):
        page.redraw(tmp_path / "nowhere", tmp_path)
