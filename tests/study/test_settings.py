import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hrebasin.files import project_root
from hrebasin.study.settings import Setting, checked, load_setting, schema
from hrebasin.training.recipe import Recipe

CONFIG = project_root() / "config"
PATHS = sorted(CONFIG.glob("*.yaml"))
NAN, INF = float("nan"), float("inf")
TINY = yaml.safe_load((CONFIG / "tiny.yaml").read_text())


def test_every_setting_loads_with_the_same_keys_in_the_same_order():
    for path in PATHS:
        values = yaml.safe_load(path.read_text())
        assert list(values) == list(Setting.model_fields)
        found = load_setting(path).model_dump()
        assert found == values  # nothing is altered on the way
        assert json.loads(json.dumps(found)) == found  # as notebooks' parameters
        assert path.read_text().startswith("# yaml-language-server: $schema=setting.schema.json\n")


def test_the_schema_is_the_committed_one_and_says_what_the_settings_say():
    text = schema(CONFIG / "sample.yaml")
    assert text == (CONFIG / "setting.schema.json").read_text(), "run: hrebasin settings --schema"
    found = json.loads(text)["properties"]
    assert list(found) == list(Setting.model_fields)
    assert all(entry["description"] for entry in found.values())
    assert found["epsilons"]["items"] == {"type": "number", "minimum": 0, "maximum": 1}


def test_the_setting_named_paper_is_the_paper_s():
    paper = load_setting(CONFIG / "paper.yaml")
    assert paper.n_groups * paper.leaves == 1600
    assert paper.widths == [512, 512, 512, 256]
    assert [round(epsilon * 1000) for epsilon in paper.epsilons] == list(range(21))
    assert {4, 8} <= set(paper.merge_many_sizes)
    assert paper.n_lambdas == 25


# The smallest of each whole number -> their names
SMALLEST = {
    0: "train_images test_images first_group crop_padding regularised_groups matching_seed recipe_images width_images",
    1: "n_groups groups_per_shard batch_size epochs regularised_models snapshot_models merge_many_sets attacked_sets "
    "attacked_images noise_draws bounded_images ablation_pairs evaluated_images strong_networks "
    "strong_images pgd_steps pgd_restarts square_queries merger_orders repair_images recipe_groups",
    2: "leaves recipe_leaves n_lambdas",
}
# Lists that increase -> values below and above what they may hold
GRIDS = {
    "merge_many_sizes": (1,), "merge_many_limits": (0, 10_001), "merger_sizes": (1, 3), "merger_limits": (0, 10_001),
    "snapshot_epochs": (0.0, 10_001.0), "epsilons": (-0.01, 1.01), "strong_epsilons": (-0.01, 1.5),
    "noise_magnitudes": (-0.2, 2.0), "control_shares": (0.0, 1.5), "radii": (0.0, 1e7), "l1_strengths": (0.0, 1e7),
    "l2_strengths": (-1e-5, 1e7), "width_factors": (0.0, 1001.0),
}  # fmt: skip
OTHERS = {
    "dataset": [10, None, "cifar100", "no/such/folder"],
    "device": [0, "gpu", "cuda:x", "cpu ", "cpu\n"],
    "network": ["transformer", 1],
    "optimizer": ["lion", ["adam"]],
    "precision": ["float16"],
    "flip": [1, "yes"],
    "learning_rate": ["1e-3", True, None, 0.0, -0.1, NAN, INF],  # what YAML makes of 1e-3 without a point is a text
    "momentum": [-0.9, NAN],
    "weight_decay": [-0.1, INF],
    "widths": [512, "512", [], [0], [256.0], [True]],
    "rivals": ["star", ["forest"], [3], ["naive"]],
    "attacked_methods": ["tree", [], ["forest"], [3], ["tree", "l2"], ["unmerged"]],
}
BAD = {name: [n - 1, n + 0.5, True, str(n)] for n, names in SMALLEST.items() for name in names.split()}
BAD |= {name: [[out] for out in outside] + [0.02, ["0.1"], [False]] for name, outside in GRIDS.items()} | OTHERS


def test_every_key_refuses_what_it_cannot_be_and_shows_it():
    assert set(BAD) == set(Setting.model_fields)
    for name, values in BAD.items():
        for bad in values:
            with pytest.raises(ValueError, match="^[^\n]*$") as refused:
                checked({name: bad})
            shown = bad[0] if f"{name}[0]" in str(refused.value) else bad
            assert str(refused.value).startswith(name)
            assert str(refused.value).endswith(f", got {shown!r}"), f"{name}: {bad}"
    for name in GRIDS:
        last, none = TINY[name][-1], name == "snapshot_epochs" or name.endswith("strengths")  # there may be none
        for bad in ([last, last], [2 * last, last], [NAN], *([] if none else [[]])):
            with pytest.raises(ValueError, match=name):
                checked({name: bad})


@pytest.mark.parametrize(("bad", "said"), [
    ({"leaves": 6}, "leaves should be a power of two, for a tree of as many leaves, got 6"),
    ({"noise_magnitudes": [0.1, 0.2]}, "noise_magnitudes should start at 0, to compare with, got [0.1, 0.2]"),
    ({"attacked_methods": ["tree"]}, "attacked_methods lacks ['unmerged'], which every comparison needs"),
    ({"regularised_models": 5}, "regularised_models=5 exceeds leaves=4"),
    ({"snapshot_models": 4}, "snapshot_models should be below leaves=4, got 4"),
    ({"ablation_pairs": 6}, "ablation_pairs=6 exceeds the 5 of leaves=4"),
    ({"merge_many_sizes": [2, 8]}, "merge_many_sizes should lie in [2, leaves=4], got 8"),
    ({"merger_sizes": [4, 8]}, "merger_sizes should lie in [2, leaves=4], got 8"),
    ({"strong_networks": 4}, "strong_networks should be below leaves=4, got 4"),
    ({"first_group": 3, "groups_per_shard": 2}, "first_group should be a multiple of groups_per_shard=2, got 3"),
])  # fmt: skip
def test_values_that_do_not_go_together_are_named(bad, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        checked(TINY | bad)


def test_values_at_the_edge_are_accepted_and_whole_numbers_become_floats_where_floats_are_meant():
    for changes in (
        {"leaves": 2, "merge_many_sizes": [2], "merger_sizes": [2], "ablation_pairs": 1},
        {"l1_strengths": [], "l2_strengths": [], "regularised_groups": 0},  # no regularised networks
        {"regularised_models": 4, "ablation_pairs": 5, "n_lambdas": 2, "epsilons": [0.0, 1.0]},
        {"device": "cuda:1", "train_images": 0, "test_images": 0},
        {"optimizer": "sgd", "momentum": 0.0, "crop_padding": 4, "flip": True, "precision": "bfloat16"},
    ):
        assert Setting(**(TINY | changes)).model_dump() == TINY | changes
        assert checked(changes) == changes  # of a notebook's parameters too
    changed = checked({"learning_rate": 1, "epsilons": [0, 1], "share": 1}, others={"share": float})
    assert changed == {"learning_rate": 1.0, "epsilons": [0.0, 1.0], "share": 1.0}
    assert all(isinstance(value, float) for value in [changed["learning_rate"], changed["share"], *changed["epsilons"]])
    changed = load_setting(CONFIG / "tiny.yaml", n_groups=5, device=None, train_images=0, l1_strengths=[])
    expected = {"n_groups": 5, "train_images": 0, "l1_strengths": []}  # None keeps a value; 0 and [] are values too
    assert changed.model_dump() == TINY | expected


def test_a_setting_gives_a_recipe_and_refuses_what_a_recipe_refuses():
    shared = Recipe.__dataclass_fields__.keys() & Setting.model_fields.keys()
    assert shared == Recipe.__dataclass_fields__.keys() - {"l1", "l2"}
    for name in shared:
        for value in (-1, 0, 0.5, float("nan"), float("inf"), "other", True):
            good = {name: TINY[name] for name in shared}
            try:
                Recipe(**good | {name: value})
            except (ValueError, TypeError):
                with pytest.raises(ValueError, match=name):
                    checked({name: value})


@given(n_groups=st.integers(1, 120), size=st.integers(1, 130), before=st.integers(0, 3))
def test_shards_partition_the_groups(n_groups, size, before):
    first = before * size
    setting = load_setting(CONFIG / "tiny.yaml", n_groups=n_groups, groups_per_shard=size, first_group=first)
    *full, last = setting.shards.values()
    assert sum(full, []) + last == list(range(first, first + n_groups))
    assert all(len(shard) == size for shard in full)
    assert 1 <= len(last) <= size
    # further groups of a run that began with others are in further shards
    together = load_setting(CONFIG / "tiny.yaml", n_groups=first + n_groups, groups_per_shard=size)
    assert setting.shards.items() <= together.shards.items()
