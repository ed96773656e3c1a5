"""The page for everyone: from a file, without scripts, by keyboard, with a screen reader, and in light and dark."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import nbformat
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
VOID = {"meta", "img", "br", "link", "input"}
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
def path(request, tmp_path_factory, few_resamples) -> Path:
    """The page of a made-up run, and the published one."""
    if request.param == "published":
        return PUBLISHED
    folder = tmp_path_factory.mktemp("run")
    found = synthetic.results(groups=2, stages=[*STAGES, "versions", "controls"])
    results = {stage: data.assign_attrs(ATTRS) for stage, data in found.items()}
    (folder / "notebooks").mkdir()
    for stage, data in results.items():
        records.write(data, folder / "results" / f"{stage}.nc", stage=stage)
        executed = folder / "notebooks" / f"{(NOTEBOOKS | EXTRA)[stage]}-000.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A notebook")]), executed)
    drawn = {name: figures.draw(name, results) for name in figures.drawable(results)}
    (folder / "figures").mkdir()
    for name in drawn:  # files that the page links to
        for ending in ("pdf", "png"):
            (folder / "figures" / f"{name}.{ending}").touch()
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
        (selector.strip(), dict(part.strip().split(":", 1) for part in body.replace(" ", "").split(";") if ":" in part))
        for selector, body in found
    ]


def schemes(rules) -> list[dict[str, str]]:
    """The values of CSS variables, in a light room and in a dark one."""
    light, dark = (style for selector, style in rules if selector == ":root" and "--text" in style)
    return [light, light | dark]


def colour(value: str, scheme: dict[str, str]) -> tuple[float, float, float]:
    name = re.fullmatch(r"var\((--.*)\)", value)
    return to_rgb(scheme[name[1]] if name else value)


def test_nothing_is_loaded_and_every_link_leads_somewhere(path, document):
    assert not list(document.all("link", "iframe", "object"))
    assert all("src" not in script.attrs for script in document.all("script"))
    assert all(image.attrs["src"].startswith("data:") for image in document.all("img"))
    text = without_scripts(path)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", unquote(text))) <= {"#"}
    ids = [element.attrs["id"] for element in document.all() if "id" in element.attrs]
    assert len(ids) == len(set(ids))
    targets = [link.attrs["href"] for link in document.all("a")]
    assert len(targets) > 40
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith("https://arxiv.org/"):
            assert ".." not in Path(target).parts, f"{target} lies outside the page's folder"
            assert not target.endswith(".ipynb"), f"a browser only downloads {target}"
            assert (path.parent / unquote(target)).is_file(), target


def without_scripts(path: Path) -> str:
    return re.sub("<script.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_what_reacts_has_a_picture_in_its_place_where_scripts_do_not_run(path, document):
    reacting = [element for element in document.all("div") if element.attrs.get("class") == "live"]
    assert len(reacting) == bool(list(document.all("script")))
    for element in reacting:
        assert "hidden" in element.attrs
        assert [child.tag for child in element.parent.children].index("img") == 0
        assert len(list(element.all("label"))) == len(list(element.all("input"))) > 1
    assert ".replaced" in path.read_text()
    assert path.stat().st_size < 6e6


def test_notebook_pages_stand_alone_too(path):
    pages = sorted((path.parent / "notebooks").glob("*.html"))
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
    [table] = (table for table in document.all("table") if "claims" in table.attrs["class"])
    for row in next(table.all("tbody")).all("tr"):
        targets = [link.attrs["href"] for link in row.all("a")]
        assert [target for target in targets if target.startswith("#fig")], row.attrs["id"]
        assert [target for target in targets if re.fullmatch(r"(\w+/)?notebooks/0\d_\w+(-000)?\.html", target)], (
            row.attrs["id"]
        )
    shown = {figure.attrs["id"]: figure for figure in document.all("figure")}
    names = [name for name in shown if name in figures.FIGURES]
    assert set(names) >= {name for name, (_, stages) in figures.FIGURES.items() if set(stages) <= set(STAGES)}
    for name in names:
        targets = [link.attrs["href"] for link in shown[name].all("a")]
        for stage in figures.FIGURES[name][1]:
            assert f"data {stage}.nc" in shown[name].words(), name
            assert any(re.search(rf"/{(NOTEBOOKS | EXTRA)[stage]}(-000)?\.html$", target) for target in targets), name
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
    for name in ("claims", "parts"):
        table = next(table for table in document.all("table") if name in table.attrs["class"].split())
        for row in next(table.all("tbody")).all("tr"):
            verdicts = [cell for cell in row.all("span") if "verdict" in cell.attrs.get("class", "")]
            assert verdicts
            for verdict in verdicts:
                assert re.search("reproduced|contradicted|not resolved|no verdict|not measured", verdict.words())


def test_the_keyboard_reaches_everything_and_shows_where_it_is(document, rules):
    first = next(document.all("a"))
    assert first.attrs["class"] == "skip"
    assert any(selector == ":focus-visible" and "3pxsolid" in style["outline"] for selector, style in rules)
    assert not any("none" in style.get("outline", "") for _, style in rules)


def test_text_and_focus_have_enough_contrast_in_light_and_dark(rules):
    for scheme in schemes(rules):
        page, measured = to_rgb(scheme["--page"]), 0
        for selector, style in rules:
            background = colour(style["background"], scheme) if "background" in style else page
            if "color" in style:
                ratio = contrast(colour(style["color"], scheme), background)
                assert ratio >= TEXT_CONTRAST, f"{selector}: {ratio:.2f}"
                measured += 1
        assert measured > 8
        [outline] = (style["outline"] for selector, style in rules if selector == ":focus-visible")
        assert contrast(colour(outline.removeprefix("3pxsolid"), scheme), page) >= PART_CONTRAST
