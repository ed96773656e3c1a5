"""README and docs say what the published data and the code say."""

import re

import numpy as np
import pytest
import xarray as xr
import yaml

from hrebasin.files import project_root
from hrebasin.study.figures import registry as figures
from hrebasin.study.publishing import readme as documents
from hrebasin.study.publishing.first_screen import untried
from hrebasin.study.stages import NOTEBOOKS

ROOT = project_root()


@pytest.fixture(scope="module")
def parts():
    return documents.parts(ROOT)


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_documents_are_those_of_the_data(name, parts):
    text = (ROOT / name).read_text()
    assert documents.fill(text, parts, up="../" * name.count("/")) == text, "run: make figures"


def test_every_part_is_shown_somewhere(parts):
    shown = [
        name for document in documents.DOCUMENTS for _, name, _ in documents.PART.findall((ROOT / document).read_text())
    ]
    assert set(shown) == set(parts)


def test_a_part_that_cannot_be_written_is_named():
    with pytest.raises(ValueError, match=r"no part \['answers'\] can be written"):
        documents.fill("<!-- answers: written by make figures -->\n<!-- end -->", {"answer": "42"})


def test_every_published_figure_stands_in_the_table_with_a_command_that_exists(parts):
    rows = parts["figures"].splitlines()[2:]
    drawn = {path.stem for ending in ("fig*.pdf", "table*.md") for path in (ROOT / "figures").rglob(ending)}
    assert len(rows) == len(drawn)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for row in rows:
        [name] = re.findall(r"figures/(?:\w+/)?(\w+)\.(?:pdf|md)", row)
        assert name in drawn
        assert all(f"/{stage}.nc`" in row for stage in (figures.FIGURES | figures.TABLES)[name][1])
        assert re.search(r"`make (\w+)", row)[1] in targets


def test_the_picture_has_the_weights_that_the_workflow_hands_on():
    needs = documents.needed_stages((ROOT / "Snakefile").read_text())
    assert set(needs) == set(NOTEBOOKS) - {"train"}
    assert needs["merge"] == ["train"]
    assert needs["attack"] == ["train", "merge"]


def headings(path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them; none of a folder."""
    if path.is_dir():
        return set()
    lines = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize(
    "name", [path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))], ids=str
)
def test_links_in_documents_lead_somewhere(name):
    text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / name).read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            assert file.exists(), target
            assert not anchor or anchor in headings(file), target


def test_the_citation_and_the_changelog_name_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message", "license", "references"} <= set(citation)
    assert re.search(rf"^## {re.escape(version)}", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)


def test_what_pgd_has_not_tried_is_told_where_it_beats_early_stopping():
    axes = {"epsilon": [0.015, 0.02], "attack": ["fgsm"]}
    labels = {"method": ("model", ["tree", "activations", "star"]), "n_merged": ("model", [4, 4, 4])}
    labels |= {"order": ("model", [0, 0, 0])}
    mergers = xr.Dataset({"strong_accuracy": ("model", [0.2, 0.4, 0.3])}, coords=labels)
    stopped = {"method": ("model", ["stopped", "stopped"]), "strength": ("model", [1.0, 2.0])}
    robust = np.array([0.35, 0.1])[:, None, None].repeat(2, axis=2)
    families = xr.Dataset({"robust_accuracy": (("model", "attack", "epsilon"), robust)}, coords=stopped | axes)
    results = {"mergers": mergers, "controls": families, "train": xr.Dataset(attrs={"setting": "s"})}
    assert "`activations` classify more images correctly under strong FGSM (up to 40 %) than" in untried(results)
    assert untried({"mergers": mergers}) == ""
    assert untried(results | {"mergers": mergers.isel(model=[0, 2])}) == ""
