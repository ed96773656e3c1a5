import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hrebasin.study.settings import Profile, load_profile
from hrebasin.training.recipe import Recipe

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
        {"leaves": 2, "merge_many_sizes": [2], "merger_sizes": [2], "ablation_pairs": 1},
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


@given(n_groups=st.integers(1, 120), size=st.integers(1, 130), before=st.integers(0, 3))
def test_shards_partition_the_groups(n_groups, size, before):
    first = before * size
    profile = load_profile(CONFIG / "tiny.yaml", n_groups=n_groups, groups_per_shard=size, first_group=first)
    *full, last = profile.shards.values()
    assert sum(full, []) + last == list(range(first, first + n_groups))
    assert all(len(shard) == size for shard in full)
    assert 1 <= len(last) <= size
    # further groups of a run that began with others are in further shards
    together = load_profile(CONFIG / "tiny.yaml", n_groups=first + n_groups, groups_per_shard=size)
    assert profile.shards.items() <= together.shards.items()
