"""A page of HTML as elements, and whether all that it links to is there."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

VOID = {"meta", "img", "br", "link", "input"}


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


def check_links(path: Path) -> list[str]:
    """Pictures are data or files, links lead to elements or files, all in the page's folder; all targets of links."""
    html = path.read_text(encoding="utf-8")
    document = Tree(html).root
    assert not list(document.all("link", "iframe", "object"))
    assert all("src" not in script.attrs for script in document.all("script"))
    for source in (image.attrs["src"] for image in document.all("img")):
        assert source.startswith("data:") or _beside(path, source).is_file(), source
    text = re.sub("<script.*?</script>", "", html, flags=re.DOTALL)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", unquote(text))) <= {"#"}
    ids = [element.attrs["id"] for element in document.all() if "id" in element.attrs]
    assert len(ids) == len(set(ids))
    targets = [link.attrs["href"] for link in document.all("a")]
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith("https://arxiv.org/"):
            assert not target.endswith(".ipynb"), f"a browser only downloads {target}"
            assert _beside(path, target).is_file(), target
    return targets


def _beside(path: Path, target: str) -> Path:
    assert ".." not in Path(target).parts, f"{target} lies outside the page's folder"
    return path.parent / unquote(target)
