"""README and docs say what the published data and the code say."""

import pkgutil
import re

import pytest
import yaml

from hrebasin.files import project_root
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import readme as documents

ROOT = project_root()


def test_documents_are_those_of_the_data_and_show_every_part():
    parts, shown = documents.parts(ROOT), set()
    for name in documents.DOCUMENTS:
        text = (ROOT / name).read_text()
        assert documents.fill(text, parts, up="../" * name.count("/")) == text, f"{name}, run: make figures"
        shown |= {part for _, part, _ in documents.PART.findall(text)}
    assert shown == set(parts)
    rows = parts["figures"].splitlines()[2:]
    drawn = {path.stem for ending in ("fig*.pdf", "table*.md") for path in (ROOT / "figures").rglob(ending)}
    assert len(rows) == len(drawn)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for row in rows:
        [name] = re.findall(r"figures/(?:\w+/)?(\w+)\.(?:pdf|md)", row)
        assert name in drawn
        assert all(f"/{stage}.nc`" in row for stage in (figures.FIGURES | figures.TABLES)[name][1])
        assert re.search(r"`make (\w+)", row)[1] in targets
    with pytest.raises(ValueError, match=r"no part \['answers'\] can be written"):
        documents.fill("<!-- answers: written by make figures -->\n<!-- end -->", {"answer": "42"})


def test_names_of_the_library_in_documents_are_there():
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for name in re.findall(r"\bhrebasin(?:\.\w+)+", document.read_text()):
            pkgutil.resolve_name(name)


def headings(path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them; none of a folder."""
    lines = [] if path.is_dir() else re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in lines}


def test_links_in_documents_lead_somewhere():
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        text = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
            if not target.startswith("https://"):
                path, _, anchor = target.partition("#")
                file = document.parent / path if path else document
                assert file.exists(), f"{document.name}: {target}"
                assert not anchor or anchor in headings(file), f"{document.name}: {target}"


def test_the_citation_and_the_changelog_name_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version
    assert {"cff-version", "title", "authors", "message", "license", "references"} <= set(citation)
    assert re.search(rf"^## {re.escape(version)}", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
