"""Redrawing figures and page from what is published."""

import re

import pytest

from hrebasin.study.claims.ledger import CLAIMS
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import page
from hrebasin.study.publishing.places import Place
from hrebasin.study.records import checksums as manifest

pytestmark = pytest.mark.usefixtures("few_resamples")
SOME = ("fig1_accuracy", "fig9_controls")  # test_results redraws all


@pytest.fixture(scope="module", autouse=True)
def _some_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "drawable", lambda results: SOME)
        yield


@pytest.fixture(scope="module")
def redrawn(published, few_resamples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("redrawn") / "one"
    page.redraw(published, folder, others=[Place("other", published, folder / "other", ("fig1_accuracy",))])
    return folder


def test_redrawing_from_published_results_gives_the_same_files_twice(published, redrawn):
    names = sorted(path.name for path in redrawn.glob("[!.]*"))
    drawn = [f"{name}.{ending}" for name in SOME for ending in ("pdf", "png", "md")]
    texts = ["index.html", "ledger.md", "answers.md", *(f"{name}.md" for name in figures.TABLES)]
    assert names == sorted([*drawn, *texts, "SHA256SUMS", "notebooks", "other"])
    assert {path.name for path in manifest.compare(redrawn)[0]} == {*drawn, *texts}
    again = redrawn.with_name("two")
    again.mkdir()
    (again / "fig14_recipes.pdf").write_text("of another setting, before")
    page.redraw_setting(Place("", published, again, None))
    assert not (again / "fig14_recipes.pdf").exists()
    for name in names:
        if name.split(".")[0] in (*SOME, "ledger", "answers"):
            assert (redrawn / name).read_bytes() == (again / name).read_bytes(), name


def test_the_page_shows_every_figure_claim_and_source(redrawn):
    html = (redrawn / "index.html").read_text()
    assert html.count("<img ") == len(SOME) + 1 == html.count("<figcaption>")
    assert all(f'<tr id="{claim}">' in html for claim in CLAIMS)
    assert all(f'<section id="{name}">' in html for name in figures.TABLES)
    assert "synthetic images" in html


def test_settings_stand_side_by_side(redrawn):
    html = (redrawn / "index.html").read_text()
    heads, *rows = re.findall("<tr.*?</tr>", html[html.index('class="stack claims"') :], flags=re.DOTALL)[
        : 1 + len(CLAIMS)
    ]
    assert re.findall('<a href="#(.*?)">', heads) == ["test", "other"]
    assert all(row.count('<span class="verdict') == 2 for row in rows)
    assert html.count('<figure id="other-fig1_accuracy">') == html.count('<section id="other">') == 1
    assert 'href="other/fig1_accuracy.pdf"' in html
    assert (redrawn / "other" / "fig1_accuracy.pdf").is_file()


def test_a_missing_stage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set at"):
        page.redraw(tmp_path / "nowhere", tmp_path)
