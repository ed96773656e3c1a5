"""The page for everyone: from a file, by keyboard, with a screen reader, and for eyes that need contrast."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from finished_runs import ATTRS
from matplotlib.colors import to_rgb

import synthetic
from colour_vision import contrast
from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import page
from hrebasin.study.stages import EXTRA, NOTEBOOKS, STAGES

PUBLISHED = project_root() / "figures" / "index.html"
VOID = {"meta", "img", "br", "link"}
TEXT_CONTRAST, PART_CONTRAST = 4.5, 3  # WCAG 2.2: text, and outlines of what has the focus


class Element:
    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children, self.text = tag, dict(attrs), parent, [], ""

    def all(self, *tags):
        for child in self.children:
            if not tags or child.tag in tags:
                yield child
            yield from child.all(*tags)

    def words(self) -> str:
        return " ".join([self.text, *(child.words() for child in self.children)]).strip()


class Tree(HTMLParser):
    """A page as elements; a tag that is never closed, or closed in the wrong order, is an error."""

    def __init__(self, html):
        super().__init__()
        self.root = self.here = Element("document", {}, None)
        self.feed(html)
        assert self.here is self.root, f"<{self.here.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        element = Element(tag, attrs, self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag, attrs):
        self.here.children.append(Element(tag, attrs, self.here))

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.text += data


@pytest.fixture(scope="module", params=["run", "published"])
def path(request, tmp_path_factory) -> Path:
    """The page of a made-up run, and the published one."""
    if request.param == "published":
        return PUBLISHED
    folder = tmp_path_factory.mktemp("run")
    results = {stage: data.assign_attrs(ATTRS) for stage, data in synthetic.results(groups=2).items()}
    (folder / "notebooks").mkdir()
    for stage, data in results.items():
        records.write(data, folder / "results" / f"{stage}.nc", stage=stage)
        (folder / "notebooks" / f"{(NOTEBOOKS | EXTRA)[stage]}-000.ipynb").touch()
    drawn = figures.draw_all(results, folder / "figures")
    page.write_page(folder / "index.html", results, ledger(results), drawn)
    return folder / "index.html"


@pytest.fixture(scope="module")
def document(path) -> Element:
    return Tree(path.read_text()).root


@pytest.fixture(scope="module")
def rules(path) -> list[tuple[str, dict[str, str]]]:
    """Selector and declarations of every CSS rule, those inside media queries too."""
    [style] = re.findall(r"<style>(.*?)</style>", path.read_text(), flags=re.DOTALL)
    found = re.findall(r"([^{};]+)\{([^{}]*)\}", style)
    assert len(found) > 30
    return [
        (selector.strip(), dict(part.split(":", 1) for part in body.replace(" ", "").split(";") if ":" in part))
        for selector, body in found
    ]


def test_nothing_is_loaded_and_every_link_leads_somewhere(path, document):
    assert not list(document.all("script", "link", "iframe", "object"))
    assert all(image.attrs["src"].startswith("data:") for image in document.all("img"))
    assert "@import" not in path.read_text()
    assert set(re.findall(r"url\((.)", unquote(path.read_text()))) <= {"#"}
    ids = [element.attrs["id"] for element in document.all() if "id" in element.attrs]
    assert len(ids) == len(set(ids))
    targets = [link.attrs["href"] for link in document.all("a")]
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith("https://arxiv.org/"):
            assert (path.parent / unquote(target)).is_file(), target


def test_every_figure_has_its_data_set_its_notebook_and_its_files(document):
    shown = {figure.attrs["id"]: figure for figure in document.all("figure")}
    names = [name for name in shown if name in figures.FIGURES]
    assert names == [name for name in figures.FIGURES if name in names]
    assert set(names) >= {name for name, (_, stages) in figures.FIGURES.items() if set(stages) <= set(STAGES)}
    for name in names:
        targets = [link.attrs["href"] for link in shown[name].all("a")]
        for stage in figures.FIGURES[name][1]:
            assert any(target.endswith(f"{stage}.nc") for target in targets), name
            assert any(re.search(rf"/{(NOTEBOOKS | EXTRA)[stage]}(-000)?\.ipynb$", target) for target in targets), name
        assert [target for target in targets if target.endswith((f"{name}.pdf", f"{name}.png"))]


def test_language_title_width_and_landmarks_are_given(document):
    [html] = document.all("html")
    assert html.attrs["lang"] == "en"
    assert next(document.all("title")).words()
    assert any(meta.attrs.get("name") == "viewport" for meta in document.all("meta"))
    for tag in ("header", "nav", "main", "footer"):
        assert len(list(document.all(tag))) == 1, tag


def test_headings_are_in_order(document):
    levels = [int(heading.tag[1]) for heading in document.all("h1", "h2", "h3", "h4", "h5", "h6")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels[:-1], levels[1:], strict=True)), levels
    assert all(heading.words() for heading in document.all("h1", "h2", "h3"))


def test_every_picture_is_told_in_words_of_its_own(document):
    texts = [image.attrs["alt"] for image in document.all("img")]
    assert len(texts) == len(list(document.all("figure"))) > 5
    assert len(set(texts)) == len(texts)
    assert all(40 < len(text) < 400 for text in texts)
    for figure in document.all("figure"):
        [caption] = figure.all("figcaption")
        assert "n = " in caption.words()


def test_pictures_are_whole_drawings(document):
    for image in document.all("img"):
        picture = ElementTree.fromstring(unquote(image.attrs["src"].partition(",")[2]))
        assert picture.tag.endswith("svg")
        assert len(list(picture.iter())) > 100


def test_tables_have_headers_that_say_what_they_head(document):
    for table in document.all("table"):
        heads = list(table.all("th"))
        assert heads
        assert all(head.attrs.get("scope") in ("col", "row") and head.words() for head in heads)
        width = len([head for head in heads if head.attrs["scope"] == "col"])
        [body] = table.all("tbody")
        assert all(len(list(row.all("th", "td"))) == width for row in body.all("tr"))
        assert all(len(list(row.all("th"))) == 1 for row in body.all("tr"))


def test_verdicts_are_words_and_not_colours_alone(document):
    [table] = (table for table in document.all("table") if table.attrs.get("class") == "claims")
    [body] = table.all("tbody")
    for row in body.all("tr"):
        [verdict] = (cell for cell in row.all("span") if "verdict" in cell.attrs.get("class", ""))
        assert re.search("reproduced|contradicted|not resolved|no verdict|not measured", verdict.words())


def test_the_keyboard_reaches_everything_and_shows_where_it_is(document, rules):
    first = next(document.all("a"))
    assert first.attrs["class"] == "skip"
    assert any(selector == ":focus-visible" and "3pxsolid" in style["outline"] for selector, style in rules)
    assert not any("none" in style.get("outline", "") for _, style in rules)
    scrolling = [element for element in document.all("div") if "scroll" in element.attrs.get("class", "")]
    assert scrolling
    for element in scrolling:
        assert element.attrs["tabindex"] == "0"
        assert element.attrs["role"] == "region"
        assert element.attrs["aria-label"]


def test_text_and_focus_have_enough_contrast(rules):
    white, measured = to_rgb("#ffffff"), 0
    for selector, style in rules:
        background = to_rgb(style["background"]) if "background" in style else white
        if "color" in style:
            ratio = contrast(to_rgb(style["color"]), background)
            assert ratio >= TEXT_CONTRAST, f"{selector}: {ratio:.2f}"
            measured += 1
    assert measured > 8
    [outline] = (style["outline"] for selector, style in rules if selector == ":focus-visible")
    assert contrast(to_rgb(outline.removeprefix("3pxsolid")), white) >= PART_CONTRAST
