"""The examples of the documents run as they stand, one after the other, and do what is said of them."""

import re
import shutil

import pytest

from hrebasin.evaluation import accuracy
from hrebasin.files import project_root
from hrebasin.lipschitz import bounds as regularity
from hrebasin.merging import methods
from hrebasin.merging.looks import LOOKS
from hrebasin.robustness import attacks as robustness
from hrebasin.study.figures import paper as plots
from hrebasin.study.figures import regularity as regularity_plots

ROOT = project_root()
DOCUMENTS = ("README.md", "docs/results.md", "docs/extending.md", "docs/use.md")


def examples(name) -> list[str]:
    """The Python in a document."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)


EXAMPLES = [code for name in DOCUMENTS for code in examples(name)]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the examples leave behind, run in a copy of the project's data folder; registries are put back after."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").mkdir()
    for name in ("cifar10-sample.nc", "published"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    shutil.copytree(ROOT / "config", folder / "config")
    registries = (robustness.FIXED_SIZE, regularity.BOUNDS, methods.MERGES, LOOKS)
    before, left = [dict(registry) for registry in registries], {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, code in enumerate(EXAMPLES, start=1):
            exec(compile(code, f"documents, example {number}", "exec"), left)
    yield left
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


def test_there_is_an_example_for_everything_that_can_be_added():
    text = (ROOT / "docs" / "extending.md").read_text()
    kinds = re.findall(r"^\| an? (?:open )?(.*?) \|", text, flags=re.MULTILINE)
    shown = re.findall(r"^An? ([a-z ]*?)(?:,| is| of|:)", text, flags=re.MULTILINE)
    assert set(kinds) - {"figure"} <= set(shown)  # a figure comes with a question
    assert examples("docs/networks.md") == examples("README.md")
    first_cells = re.findall(r"^\| `.*?\|", (ROOT / "docs" / "use.md").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`([a-z-]+)`", "".join(first_cells))) == set(methods.MERGES) - set(methods.added())


def test_networks_are_merged_into_one_like_them_received_and_taught(names):
    for state in (names["one"].state_dict(), names["state"], names["taught"].state_dict()):
        assert list(state) == list(names["networks"][0].state_dict())
    networks, merged = names["nets"], names["merged"]
    assert type(merged) is type(networks[0])
    assert list(merged.state_dict()) == list(networks[0].state_dict())
    assert merged(names["images"]).shape == (8, 10)
    assert not merged.training
    assert names["train_set"].classes == ("bright", "dark")
    assert names["leaves"].architecture.units == (192, 24, 16, 16, 8, 2)
    assert (accuracy(names["leaves"], names["test_set"]) > 0.8).all()
    assert {"unmerged", "tree", "merge-many"} < {*names["found"].method.values.tolist()}


def test_added_methods_attacks_and_bounds_are_in_data_sets_and_figures(names):
    attacked, measured = names["attacked"], names["measured"]
    assert names["bank"].where(method="both").labels["n_merged"].tolist() == [2, 4]
    assert attacked.method.values.tolist().count("both") == 2
    assert attacked.attack.values.tolist() == ["fgsm", "bim", "deepfool-linf", "deepfool-linf-clipped"]
    weaker = attacked.robust_accuracy.sel(attack="fgsm") >= attacked.robust_accuracy.sel(attack="bim")
    assert weaker.mean() > 0.9, "ten steps break more than one"
    axes = plots.robust_accuracy(attacked).axes
    assert any(label.startswith("tree and MergeMany") for label in axes[0].get_legend_handles_labels()[1])
    assert "bim" in [each.get_title() for each in axes]
    assert measured.bound.values.tolist() == ["global", "eclipse-fast", "frobenius"]
    assert (measured.lipschitz.sel(bound="frobenius") >= measured.gradient_norm.max("image")).all()
    assert "frobenius" in regularity_plots.lipschitz(measured).axes[0].get_legend_handles_labels()[1]


def test_an_added_claim_is_decided_and_an_added_question_answered(names):
    assert names["decided"].part.values.tolist() == ["C13a"]
    assert names["decided"].verdict.item() in ("reproduced", "contradicted", "not resolved")
    assert re.match(r"(Yes|No|Not resolved)\. The leaves are surer by -?0\.\d+ \(1 tree", names["said"])
    assert set(names["asked"].data_vars) == set(names["SCHEMA"]["model"].split())
    assert names["shown"].axes
    assert names["mine"].leaves == 8
