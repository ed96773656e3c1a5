"""The page for everyone: from a file, without scripts, by keyboard, with a screen reader, and in light and dark."""

import re
from urllib.parse import unquote

import pytest
from matplotlib.colors import to_rgb
from pages import Element, Tree, check_links
from PIL import Image

from colour_vision import contrast
from hrebasin.files import project_root
from hrebasin.study.figures import registry as figures
from hrebasin.study.stages import EXTRA, NOTEBOOKS, STAGES

PAGE = project_root() / "figures" / "index.html"  # which test_results compares with what is written now
TEXT_CONTRAST, PART_CONTRAST = 4.5, 3  # WCAG 2.2: text, and outlines of what has the focus


@pytest.fixture(scope="module")
def document() -> Element:
    return Tree(PAGE.read_text()).root


def rows_of(document, *names) -> list[Element]:
    """The rows of the bodies of tables of some classes."""
    tables = [table for table in document.all("table") if set(names) & set(table.attrs["class"].split())]
    return [row for table in tables for row in next(table.all("tbody")).all("tr")]


def test_nothing_is_loaded_and_what_reacts_has_a_picture_in_its_place(document):
    assert len(check_links(PAGE)) > 40
    [element] = [element for element in document.all("div") if element.attrs.get("class") == "live"]
    assert "hidden" in element.attrs
    assert [child.tag for child in element.parent.children].index("img") == 0
    assert len(list(element.all("label"))) == len(list(element.all("input"))) > 1
    assert ".replaced" in PAGE.read_text()
    assert PAGE.stat().st_size < 3e6


def test_notebook_pages_stand_alone_too():
    pages = sorted((PAGE.parent / "notebooks").glob("*.html"))
    assert len(pages) >= len(STAGES)
    for each in pages:
        here = Tree(each.read_text()).root
        assert not list(here.all("script", "iframe", "object"))
        targets = [element.attrs["href"] for element in here.all("a", "link")]
        local = [target for target in targets if not target.startswith(("https://", "#"))]
        assert "style.css" in local
        for target in local:
            assert (each.parent / unquote(target)).is_file(), f"{each.name}: {target}"


def test_every_claim_and_figure_leads_to_figure_and_notebook(document):
    for row in rows_of(document, "claims"):
        targets = " ".join(link.attrs["href"] for link in row.all("a"))
        assert re.search(r"#fig.*\bnotebooks/0\d_\w+(-000)?\.html", targets), row.attrs["id"]
    shown = {figure.attrs["id"]: figure for figure in document.all("figure")}
    names = [name for name in shown if name in figures.FIGURES]
    assert set(names) >= {name for name, (_, stages) in figures.FIGURES.items() if set(stages) <= set(STAGES)}
    for name in names:
        targets = [link.attrs["href"] for link in shown[name].all("a")]
        for stage in figures.FIGURES[name][1]:
            assert f"data {stage}.nc" in shown[name].words(), name
            assert any(re.search(rf"/{(NOTEBOOKS | EXTRA)[stage]}(-000)?\.html$", target) for target in targets), name
        assert [target for target in targets if target.endswith((f"{name}.pdf", f"{name}.png"))]


def test_language_title_width_landmarks_and_headings_are_given(document):
    assert next(document.all("html")).attrs["lang"] == "en"
    assert next(document.all("title")).words()
    assert any(meta.attrs.get("name") == "viewport" for meta in document.all("meta"))
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert len(list(document.all(tag))) == 1, tag
    headings = list(document.all("h1", "h2", "h3", "h4", "h5", "h6"))
    levels = [int(heading.tag[1]) for heading in headings]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels[:-1], levels[1:], strict=True)), levels
    assert all(heading.words() for heading in headings)


def test_every_picture_is_a_whole_drawing_told_in_words_of_its_own(document):
    texts = [image.attrs["alt"] for image in document.all("img")]
    assert len(set(texts)) == len(texts) == len(list(document.all("figure"))) > 5
    assert all(40 < len(text) < 400 for text in texts)
    assert all("n = " in next(figure.all("figcaption")).words() for figure in document.all("figure"))
    for image in document.all("img"):
        with Image.open(PAGE.parent / unquote(image.attrs["src"])) as picture:
            width, height = (int(image.attrs[side]) for side in ("width", "height"))
            assert abs(picture.height / picture.width - height / width) < 0.01
            assert len(picture.convert("L").getcolors()) > 10


def test_tables_have_headers_that_say_what_they_head_and_verdicts_are_words(document):
    for table in document.all("table"):
        heads = list(table.all("th"))
        assert heads
        assert all(head.attrs.get("scope") in ("col", "row") and head.words() for head in heads)
        width = len([head for head in heads if head.attrs["scope"] == "col"])
        [body] = table.all("tbody")
        assert all(len(list(row.all("th", "td"))) == width for row in body.all("tr"))
        assert all(len(list(row.all("th"))) == 1 for row in body.all("tr"))
    for row in rows_of(document, "claims", "parts"):
        verdicts = [cell.words() for cell in row.all("span") if "verdict" in cell.attrs.get("class", "")]
        assert verdicts
        assert all(re.search("reproduced|contradicted|not resolved|no verdict|not measured", v) for v in verdicts)


def test_keyboard_and_eyes_find_their_way_in_light_and_dark(document):
    assert next(document.all("a")).attrs["class"] == "skip"
    [style] = re.findall(r"<style>(.*?)</style>", PAGE.read_text(), flags=re.DOTALL)
    rules = [  # selector and declarations of every CSS rule, those inside media queries too
        (selector.strip(), dict(part.strip().split(":", 1) for part in body.replace(" ", "").split(";") if ":" in part))
        for selector, body in re.findall(r"([^{};]+)\{([^{}]*)\}", style)
    ]
    [outline] = (style["outline"] for selector, style in rules if selector == ":focus-visible")
    assert not any("none" in style.get("outline", "") for _, style in rules)
    light, dark = (style for selector, style in rules if selector == ":root" and "--text" in style)
    for scheme in (light, light | dark):

        def colour(value, scheme=scheme):
            name = re.fullmatch(r"var\((--.*)\)", value)
            return to_rgb(scheme[name[1]] if name else value)

        coloured = [(selector, style) for selector, style in rules if "color" in style]
        assert len(coloured) > 8
        for selector, style in coloured:
            background = colour(style.get("background", "var(--page)"))
            ratio = contrast(colour(style["color"]), background)
            assert ratio >= TEXT_CONTRAST, f"{selector}: {ratio:.2f}"
        assert contrast(colour(outline.removeprefix("3pxsolid")), colour("var(--page)")) >= PART_CONTRAST
