import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hrebasin import configuration
from hrebasin.configuration import Profile, code_digest, load_profile
from hrebasin.training import Recipe

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config"
NAN = float("nan")


@pytest.fixture(scope="module")
def profile():
    return load_profile(CONFIG / "tiny.yaml")


@pytest.fixture
def values():
    """The keys and values of a valid profile, to be changed."""
    return yaml.safe_load((CONFIG / "tiny.yaml").read_text())


@pytest.fixture
def written(tmp_path):
    """``written(values)``: the path of a profile with these values."""

    def write(values):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


# ---- the profiles of this repository


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_loads_with_the_same_keys_in_the_same_order(path):
    profile = load_profile(path)
    values = yaml.safe_load(path.read_text())
    assert list(values) == [field.name for field in fields(Profile)]
    assert asdict(profile) == values  # nothing is altered on the way
    for field in fields(Profile):
        value = getattr(profile, field.name)
        assert json.loads(json.dumps(value)) == value  # as a notebook's parameter
        if field.type is float:
            assert isinstance(value, float), field.name


def test_the_published_profile_is_the_paper_s():
    paper = load_profile(CONFIG / "paper.yaml")
    assert paper.n_groups * paper.leaves == 1600
    assert paper.widths == [512, 512, 256]
    assert [round(epsilon * 1000) for epsilon in paper.epsilons] == list(range(21))
    assert {4, 8} <= set(paper.merge_many_sizes)
    assert paper.n_lambdas == 25
    assert paper.n_groups * paper.ablation_pairs >= 100
    assert paper.attacked_images >= 1000


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_value_is_explained(path):
    keys = {field.name for field in fields(Profile)}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.split(":")[0] in keys:
            value = line
            while value.count("[") > value.count("]"):  # a list may go on over several lines
                number += 1
                value += lines[number]
            assert "# " in value, value


def test_whole_numbers_become_floats_where_floats_are_meant(profile):
    changed = replace(profile, learning_rate=1, epsilons=[0, 1], radii=(2,))
    assert (changed.learning_rate, changed.epsilons, changed.radii) == (1.0, [0.0, 1.0], [2.0])
    assert all(isinstance(value, float) for value in [changed.learning_rate, *changed.epsilons, *changed.radii])


# ---- keys


@pytest.mark.parametrize("name", [field.name for field in fields(Profile)])
def test_a_missing_key_is_named(name, values, written):
    del values[name]
    with pytest.raises(ValueError, match=rf"keys \['{name}'\] are missing"):
        load_profile(written(values))


# ---- values


@pytest.mark.parametrize(
    "changes",
    [
        {"leaves": 2, "merge_many_sizes": [2], "ablation_pairs": 1},
        {"l1_strengths": [], "l2_strengths": []},  # no regularised networks
        {"regularised_groups": 0},
        {"regularised_models": 4},
        {"ablation_pairs": 5},
        {"device": "cuda:1"},
        {"n_lambdas": 2},
        {"train_images": 0, "test_images": 0},
        {"epsilons": [0.0, 1.0]},
        {"optimizer": "sgd", "momentum": 0.0, "crop_padding": 4, "flip": True, "precision": "bfloat16"},
    ],
)
def test_values_at_the_edge_are_accepted(changes, values, written):
    profile = load_profile(written(values | changes))
    assert {name: getattr(profile, name) for name in changes} == changes


def test_a_profile_gives_a_recipe(profile):
    """What a recipe refuses, a profile refuses; every field of the recipe that a profile holds has its type."""
    shared = {field.name for field in fields(Recipe)} & {field.name for field in fields(Profile)}
    assert shared == {field.name for field in fields(Recipe)} - {"l1", "l2"}
    recipe = Recipe(**{name: getattr(profile, name) for name in shared})
    assert recipe.learning_rate == 0.003


def test_a_profile_cannot_be_changed(profile):
    with pytest.raises(AttributeError):
        profile.leaves = 8


# ---- overrides


def test_overrides_replace_values_and_none_keeps_them(profile):
    changed = load_profile(CONFIG / "tiny.yaml", n_groups=5, device=None, train_images=0, l1_strengths=[])
    assert changed == replace(profile, n_groups=5, train_images=0, l1_strengths=[])  # 0 and [] are values too


# ---- shards


@given(n_groups=st.integers(1, 120), size=st.integers(1, 130))
def test_shards_partition_the_groups(n_groups, size):
    profile = load_profile(CONFIG / "tiny.yaml", n_groups=n_groups, groups_per_shard=size)
    assert [group for shard in profile.shards for group in shard] == list(range(n_groups))
    assert all(len(shard) == size for shard in profile.shards[:-1])
    assert 1 <= len(profile.shards[-1]) <= size


# ---- the digest of the code


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A copy of the library that `code_digest` reads instead."""
    folder = tmp_path / "hrebasin"
    shutil.copytree(Path(configuration.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(configuration, "__file__", str(folder / "configuration.py"))
    return folder


@pytest.fixture
def notebook(tmp_path):
    """``notebook(*cells)``: the path of a notebook with these code cells."""

    def write(*cells, text="# Question"):
        path = tmp_path / "01_question.ipynb"
        made = [nbformat.v4.new_markdown_cell(text), *(nbformat.v4.new_code_cell(cell) for cell in cells)]
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
        return path

    return write


CODE = ("from hrebasin.robustness import attack", "epsilons: list = [0.0]  # sizes", "attack(epsilons)")


def test_every_notebook_has_a_digest_of_its_own():
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    digests = [code_digest(path) for path in paths]
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests)
    assert len(set(digests)) == len(paths) > 0
    assert code_digest(paths[0]) == digests[0]


def test_text_comments_and_outputs_of_a_notebook_do_not_count(notebook, library):
    digest = code_digest(notebook(*CODE))
    assert code_digest(notebook(*CODE, text="# Another question")) == digest
    assert code_digest(notebook(CODE[0], "epsilons: list = [0.0]  # pixel range", "attack( epsilons )")) == digest
    path = notebook(*CODE)
    executed = nbformat.read(path, as_version=4)
    executed.cells[-1].outputs = [nbformat.v4.new_output("stream", text="done")]
    executed.cells[-1].execution_count = 3
    nbformat.write(executed, path)
    assert code_digest(path) == digest


def test_code_of_a_notebook_counts(notebook, library):
    digest = code_digest(notebook(*CODE))
    assert code_digest(notebook(CODE[0], "epsilons: list = [0.1]", CODE[2])) != digest
    assert code_digest(notebook(*CODE, "attack([])")) != digest


# robustness imports bank, which imports networks; matching is imported by neither
@pytest.mark.parametrize(
    ("module", "old", "new", "counts"),
    [
        ("robustness", '"""Robustness of whole banks', '"""Robustness, said differently, of whole banks', False),
        ("robustness", '        """Slice m of the batch through network m."""\n', "", False),
        ("robustness", "import numpy as np\n", "# arrays\nimport numpy as np  # as ever\n\n", False),
        ("robustness", "ROUNDS = (1, 3, 50)", "ROUNDS = (1, 3, 51)", True),
        ("bank", "torch.relu(x)", "torch.tanh(x)", True),
        ("networks", "nn.ReLU()", "nn.Tanh()", True),
        ("networks", "1 / torch.tensor", "2 / torch.tensor", True),
        ("networks", '"""Number of trained parameters of one network."""', '"""Parameters of a network."""', False),
        ("seeding", "sha256", "sha512", True),
        ("matching", "TOLERANCE = 1e-7", "TOLERANCE = 1e-3", False),
        ("claims", "import", "import sys\nimport", False),
    ],
)
def test_what_counts_in_the_library(module, old, new, counts, notebook, library):
    path, file = notebook(*CODE), library / f"{module}.py"
    before = code_digest(path)
    source = file.read_text()
    assert old in source
    file.write_text(source.replace(old, new, 1))
    assert (code_digest(path) != before) == counts
    file.write_text(source)
    assert code_digest(path) == before


@pytest.mark.parametrize(
    "line",
    [
        "from hrebasin.matching import match_weights",
        "from hrebasin import matching",
        "from hrebasin import seeding, matching as m",
        "import hrebasin.matching",
        "if True:\n    import hrebasin.matching as m",
    ],
)
def test_every_way_to_import_counts(line, notebook, library):
    path, file = notebook(line), library / "matching.py"
    before = code_digest(path)
    file.write_text(file.read_text().replace("TOLERANCE = 1e-7", "TOLERANCE = 1e-3"))
    assert code_digest(path) != before


def test_modules_may_be_left_out(notebook, library):
    path, file = notebook(*CODE), library / "robustness.py"
    before, without = code_digest(path), code_digest(path, without=("robustness",))
    assert before != without
    file.write_text(file.read_text().replace("ROUNDS = (1, 3, 50)", "ROUNDS = (1, 3, 51)"))
    assert code_digest(path) != before
    assert code_digest(path, without=("robustness",)) == without
