import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.colors import to_rgb

import synthetic
from colour_vision import VISIONS, contrast, distance
from hrebasin import Bank, merge_all, merge_many, merge_naive, merge_pairs, register
from hrebasin.merging.distances import HISTORY
from hrebasin.merging.looks import LOOKS
from hrebasin.merging.methods import MERGES, SPARE, added, match_to_first, unregister
from hrebasin.study import records
from hrebasin.study.figures import paper as plots
from hrebasin.study.figures.style import COLOURS, STAGE_COLOURS, SWEEP_COLOURS


def star(bank, seed):
    """All networks matched to the first."""
    return merge_naive(match_to_first(bank, seed=seed))


@pytest.fixture
def registered():
    """``registered(name, merge, ...)``: a method for this test only."""
    before = added()
    yield register
    for name in set(added()) - set(before):
        unregister(name)


def test_a_method_is_run_labelled_and_timed(trained, registered, unchanged):
    unchanged(trained)
    registered("star", star)
    merged = MERGES["star"](trained.relabel(group=3), 0)
    assert {name: values.tolist() for name, values in merged.labels.items()} == {
        "method": ["star"], "stage": [3], "n_merged": [8], "group": [3], "node": [0], "seed": [0], "strength": [0.0],
        "sweeps": [0],
    }  # fmt: skip
    assert set(merged.history.data_vars) == set(HISTORY)
    assert merged.history.seconds > 0
    # of two networks this method is the pair merge with the same layer order
    pair = trained.select([0, 1])
    seed = "0/group-0/stage-1/node-0"
    for name, tensor in merge_pairs(pair, seed=0).tensors.items():
        torch.testing.assert_close(MERGES["star"](pair, seed).tensors[name], tensor)


def test_a_method_need_not_know_its_history(trained, registered):
    registered("first", lambda bank, seed: bank.select([0]))
    merged = MERGES["first"](trained, 0)
    assert np.isnan(merged.history.pairwise_distance)
    assert merged.labels["n_merged"] == [8]


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (lambda bank, seed: bank, "must give one network of 48-12-10-8-4, got Bank.8 unmerged"),
        (lambda bank, seed: bank.tensors, "must give one network"),
        (
            lambda bank, seed: Bank(bank.architecture, {n: t[:1] / 0 for n, t in bank.tensors.items()}),
            "fc1.weight holds",
        ),
    ],
)
def test_what_is_no_network_is_refused_with_the_name_of_the_method(trained, registered, merge, message):
    registered("wrong", merge)
    with pytest.raises(ValueError, match=f"method 'wrong'.*{message}"):
        MERGES["wrong"](trained, 0)


def test_methods_get_names_and_colours_of_their_own(registered):
    registered("star", star, title="star: to the first")
    registered("other", star)
    assert (LOOKS["star"], LOOKS["other"]) == (("star: to the first", SPARE[0]), ("other", SPARE[1]))
    registered("star", star, colour="#d62728")  # the cell of a notebook is run again
    assert LOOKS["star"] == ("star", "#D62728")
    assert len({colour for _, colour in LOOKS.values()}) == len(LOOKS)
    assert added() == ["star", "other"]
    unregister("star")
    assert "star" not in MERGES | LOOKS


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Star", {}, "small letters, digits and hyphens, got 'Star'"),
        ("a star", {}, "got 'a star'"),
        ("", {}, "got ''"),
        ("tree", {}, "'tree' is a method of the paper"),
        ("star", {"colour": COLOURS["tree"]}, "colour #0072B2 of 'star' is that of 'tree'"),
        ("star", {"colour": "red"}, "must be like '#A89048', got 'red'"),
    ],
)
def test_names_and_colours_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        register(name, star, **options)
    assert added() == []
    with pytest.raises(ValueError, match=r"'naive' was not registered; registered are \[\]"):
        unregister("naive")


def test_spare_colours_are_apart_from_all_others_for_every_eye():
    others = [*COLOURS.values(), *STAGE_COLOURS, *SWEEP_COLOURS]
    for place, colour in enumerate(SPARE):
        assert contrast(to_rgb(colour), (1, 1, 1)) >= 3
        for other in [*others, *SPARE[:place]]:
            seen = [distance(to_rgb(colour), to_rgb(other), vision) for vision in VISIONS if vision != "grey"]
            assert min(seen) >= 10, f"{colour} and {other}"


def test_no_colour_is_given_twice(registered):
    for number in range(len(SPARE)):
        registered(f"method-{number}", star)
    with pytest.raises(ValueError, match="no colour is left for 'one-more'"):
        registered("one-more", star)


# ---- every method at once


def test_every_method_merges_the_networks_of_a_group(trained, registered, unchanged):
    registered("star", star)
    six = trained.select(slice(6))
    unchanged(six)
    merged = merge_all(six, seed=1)
    found = [
        (m, int(n), int(k)) for m, n, k in zip(*(merged.labels[x] for x in ("method", "n_merged", "node")), strict=True)
    ]
    sets = [(2, 0), (4, 0), (6, 1)]
    assert found == (
        [("unmerged", 1, node) for node in range(6)]
        + [("tree", 2, 0), ("tree", 2, 1), ("tree", 4, 0)]
        + [(method, *place) for method in ("merge-many", "naive", "star") for place in sets]
    )
    assert merged.history.indexes["model"].is_unique
    assert (merged.history.seconds.values[:6] == 0).all()
    everything = merge_many(six, seed=1)
    for name, tensor in merged.where(method="merge-many", n_merged=6).tensors.items():
        torch.testing.assert_close(tensor, everything.tensors[name])


@pytest.mark.parametrize("groups", [[0], [0, 1]])
def test_one_network_or_two_groups_are_refused(trained, groups):
    with pytest.raises(ValueError, match=f"at least 2 networks of one group, got {len(groups)}"):
        merge_all(trained.select(slice(len(groups))).relabel(group=groups))


# ---- every figure


def with_star(results):
    """Made-up results in which the naive averages and the MergeMany networks stand for a new method too."""
    grown = {}
    for stage, data in results.items():
        if "model" not in data.dims:
            grown[stage] = data
            continue
        some = data.isel(model=(data.method.values == "merge-many") & (data.sweeps.values == 100))
        names = np.array([f"star/{name}" for name in some.model.values], dtype=object)
        star = some.assign_coords(method=("model", np.full(some.sizes["model"], "star", dtype=object)))
        star = star.assign_coords(sweeps=("model", np.zeros(some.sizes["model"], int)), model=names)
        grown[stage] = xr.concat([data, star], dim="model", combine_attrs="override") if some.sizes["model"] else data
    return grown


@pytest.mark.parametrize("known", ["in the file", "nowhere"])
def test_every_figure_shows_a_method_that_was_added(known, registered, tmp_path):
    results = with_star(synthetic.results(groups=2, stages=["merge", "attack", "regularity"]))
    if known != "nowhere":
        registered("star", star, title="my star")
    if known == "in the file":  # whoever draws may never have heard of the method
        for stage, data in results.items():
            records.write(data, tmp_path / f"{stage}.nc", stage=stage)
        unregister("star")
        results = {stage: records.read(tmp_path / f"{stage}.nc", stage=stage) for stage in results}
    drawn = [(plots.accuracy_by_merged, "merge"), (plots.robust_accuracy, "attack"), (plots.noise, "attack")]
    drawn += [(plots.weight_norm, "regularity"), (plots.lipschitz, "regularity")]
    for draw, stage in drawn:
        lines = [line for axes in draw(results[stage]).axes for line in axes.lines]
        [*mine] = [
            line for line in lines if str(line.get_label()).startswith("star" if known == "nowhere" else "my star")
        ]
        assert mine, draw.__name__
        assert {line.get_color() for line in mine} == {"#777777" if known == "nowhere" else SPARE[0]}
