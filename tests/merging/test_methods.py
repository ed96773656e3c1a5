import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.colors import to_rgb

import synthetic
from colour_vision import VISIONS, contrast, distance
from hrebasin import Bank, match_weights, merge_all, merge_many, merge_naive, merge_pairs, register
from hrebasin.merging.averages import Aligned
from hrebasin.merging.distances import HISTORY, pairwise_distance, squared_norms
from hrebasin.merging.looks import LOOKS
from hrebasin.merging.methods import MERGES, SPARE, added, match_to_first, merge_sets, of_every_run, unregister
from hrebasin.merging.repair import moments
from hrebasin.small_networks import convolutional
from hrebasin.study import records
from hrebasin.study.figures import paper as plots
from hrebasin.study.figures import regularity
from hrebasin.study.figures.style import COLOURS, STAGE_COLOURS, SWEEP_COLOURS
from other_networks import SHAPE, untrained


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


@pytest.fixture
def eight(trained, unchanged):
    unchanged(trained)
    return trained.relabel(group=3)


def test_a_method_is_run_labelled_and_timed(eight, registered):
    registered("mine", star)
    merged = MERGES["mine"](eight, 0)
    assert {name: values.tolist() for name, values in merged.labels.items()} == {
        "method": ["mine"], "stage": [3], "n_merged": [8], "group": [3], "node": [0], "seed": [0], "strength": [0.0],
        "sweeps": [0],
    }  # fmt: skip
    assert set(merged.history.data_vars) == set(HISTORY)
    assert merged.history.seconds > 0
    # of two networks this method is the pair merge with the same layer order
    pair = eight.select([0, 1])
    seed = "0/group-3/stage-1/node-0"
    torch.testing.assert_close(MERGES["mine"](pair, seed).tensors, merge_pairs(pair, seed=0).tensors)
    registered("first", lambda bank, seed: bank.select([0]))  # it need not know its history
    assert np.isnan(MERGES["first"](eight, 0).history.pairwise_distance)


def test_what_is_no_network_is_refused_with_the_name_of_the_method(eight, registered):
    for number, (merge, message) in enumerate(
        (
            (lambda bank, seed: bank, "must give one network of 48-12-10-8-4, got Bank.8 unmerged"),
            (lambda bank, seed: bank.tensors, "must give one network"),
            (
                lambda bank, seed: Bank(bank.architecture, {n: t[:1] / 0 for n, t in bank.tensors.items()}),
                "fc1.weight holds",
            ),
        )
    ):
        registered(f"wrong-{number}", merge)
        with pytest.raises(ValueError, match=f"method 'wrong-{number}'.*{message}"):
            MERGES[f"wrong-{number}"](eight, 0)


def test_methods_get_names_and_colours_of_their_own(registered):
    registered("mine", star, title="star: to the first")
    registered("other", star)
    assert (LOOKS["mine"], LOOKS["other"]) == (("star: to the first", SPARE[0]), ("other", SPARE[1]))
    registered("mine", star, colour="#d62728")  # the cell of a notebook is run again
    assert LOOKS["mine"] == ("mine", "#D62728")
    assert added() == ["mine", "other"]
    unregister("mine")
    assert "mine" not in MERGES | LOOKS
    for number in range(len(SPARE) - 1):
        registered(f"method-{number}", star)
    with pytest.raises(ValueError, match="no colour is left for 'one-more'"):
        registered("one-more", star)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Mine", {}, "small letters, digits and hyphens, got 'Mine'"),
        ("a star", {}, "got 'a star'"),
        ("", {}, "got ''"),
        *((name, {}, f"'{name}' is a method of the library") for name in ("tree", "fold", "ensemble")),
        ("mine", {"needs": "answers"}, "needs one of .*, got 'answers'"),
        ("mine", {"colour": COLOURS["tree"]}, "colour #0072B2 of 'mine' is that of 'tree'"),
        ("mine", {"colour": "red"}, "must be like '#A89048', got 'red'"),
    ],
)
def test_names_and_colours_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        register(name, star, **options)
    assert added() == []
    with pytest.raises(ValueError, match=r"'naive' was not registered; registered are \[\]"):
        unregister("naive")


def test_spare_colours_are_apart_from_all_others_for_every_eye():
    others = [*(colour for _, colour in LOOKS.values()), *STAGE_COLOURS, *SWEEP_COLOURS]
    for place, colour in enumerate(SPARE):
        assert contrast(to_rgb(colour), (1, 1, 1)) >= 3
        for other in [*others, *SPARE[:place]]:
            seen = [distance(to_rgb(colour), to_rgb(other), vision) for vision in VISIONS if vision != "grey"]
            assert min(seen) >= 10, f"{colour} and {other}"


@pytest.mark.parametrize("name", MERGES)
def test_a_method_tells_its_distance_repeats_and_is_repaired_to_the_moments_of_its_leaves(eight, train_images, name):
    few = eight.select(slice(4))
    merged, again, repaired = (MERGES[name](few, 1, train_images, repaired=choice) for choice in (False, False, True))
    labels = [merged.labels[label].item() for label in ("method", "n_merged", "stage", "group", "seed")]
    assert labels == [name, 4, 2, 3, 0]
    distance = pairwise_distance(squared_norms(few)[None], merged)
    np.testing.assert_allclose(merged.history.pairwise_distance, distance, rtol=1e-5)
    assert merged.history.seconds.item() > 0
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in merged.tensors.items())
    # sums over units do not depend on which of them stands where
    leaves, before, after = (
        torch.tensor([layer.mean(0).sum() for layer in moments(bank, train_images.pixels).std])
        for bank in (few, merged, repaired)
    )
    torch.testing.assert_close(after, leaves, rtol=1e-3, atol=1e-3)
    assert (before < 0.99 * leaves).any()


def test_repair_takes_the_moments_of_aligned_leaves(eight, train_images, registered):
    aligned = match_weights(eight.select([0] * 8), eight, seed="x").apply(eight)
    registered("to-first", lambda bank, seed: Aligned(aligned, 1))
    repaired, pixels = MERGES["to-first"](eight, 1, train_images, repaired=True), train_images.pixels
    wanted = moments(aligned, pixels).average([range(8)])
    for found, want in zip(moments(repaired, pixels).mean, wanted.mean, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)


def test_what_a_method_needs_is_handed_over(eight, train_images, registered):
    given = {}

    def first(bank, seed, **images):
        given.update(images)
        return bank.select([0])

    registered("mine", first, needs="labels")
    MERGES["mine"](eight, 0, train_images)
    assert given == {"pixels": train_images.pixels, "labels": train_images.labels}
    with pytest.raises(ValueError, match="'mine' needs training images, their labels"):
        MERGES["mine"](eight, 0, train_images.pixels)
    for images, lacked in ((None, "pixels and labels"), (train_images.pixels, "labels")):
        with pytest.warns(UserWarning, match=f"left out for want of training images: mine .which needs {lacked}"):
            assert merge_sets([eight], ["mine"], images=images) == []
    everything = merge_all(eight.select(slice(4)), images=train_images)
    assert (everything.labels["method"] == "mine").sum() == 2
    given.clear()
    MERGES["mine"](eight, 0, (train_images.pixels, train_images.labels))
    assert set(given) == {"pixels", "labels"}
    with pytest.raises(ValueError, match="REPAIR needs training images"):
        MERGES["naive"](eight, repaired=True)


def test_sets_that_a_method_does_not_take_are_left_out(eight, train_images):
    sets = [eight.select(slice(n)) for n in (2, 3, 4)]
    found = merge_sets(sets, ["merge-many-from-tree", "naive"])
    told = [(bank.labels["method"].item(), bank.labels["n_merged"].item()) for bank in found]
    assert told == [("merge-many-from-tree", 2), ("merge-many-from-tree", 4), ("naive", 2), ("naive", 3), ("naive", 4)]
    [repaired] = merge_sets(sets[2:], ["star"], images=train_images, repaired=True)
    expected = MERGES["star"](sets[2], 0, train_images, repaired=True)
    assert all(torch.equal(tensor, expected.tensors[key]) for key, tensor in repaired.tensors.items())
    with pytest.raises(ValueError, match="'tree' takes 2, 4, 8, ... networks, got 3"):
        MERGES["tree"](sets[1])
    with pytest.raises(ValueError, match="unknown method 'trees'"):
        merge_sets(sets, ["trees"])


def test_methods_side_by_side_leave_the_warnings_of_others_alone(registered):
    """The filters of `warnings` belong to all threads."""
    bank, seen = untrained(convolutional, 4), []

    def mean(bank, seed):
        seen.append(warnings.filters[:])
        return merge_naive(bank)

    registered("mine", mean)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MERGES["mine"](bank, images=torch.rand(4, *SHAPE))
        assert seen == [warnings.filters]
        assert not caught
        MERGES["mine"](bank)
    assert [str(warning.message)[:33] for warning in caught] == ["the running statistics of batch n"]


def test_every_method_merges_the_networks_of_a_group(eight, registered):
    registered("mine", star)
    six = eight.select(slice(6))
    merged = merge_all(six, seed=1)
    labels = [merged.labels[name].tolist() for name in ("method", "n_merged", "node")]
    expected = [("unmerged", 1, node) for node in range(6)] + [("tree", 2, 0), ("tree", 2, 1), ("tree", 4, 0)]
    for method in ("merge-many", *of_every_run()):
        expected += [(method, 2, 0), (method, 4, 0)] + [(method, 6, 1)] * (method != "merge-many-from-tree")
    assert list(zip(*labels, strict=True)) == expected
    assert merged.history.indexes["model"].is_unique
    assert (merged.history.seconds.values[:6] == 0).all()
    everything = merged.where(method="merge-many", n_merged=6)
    torch.testing.assert_close(everything.tensors, merge_many(six, seed=1).tensors)
    for groups in ([0], [0, 1]):
        with pytest.raises(ValueError, match=f"at least 2 networks of one group, got {len(groups)}"):
            merge_all(eight.select(slice(len(groups))).relabel(group=groups))


def test_every_figure_shows_a_method_that_was_added(registered, tmp_path):
    """Also where it was never heard of, with the looks that the file tells, or without any."""
    registered("mine", star, title="my star")
    files = {}
    for stage, data in synthetic.results(groups=2, stages=["merge", "attack", "regularity"]).items():
        # the MergeMany networks stand for the new method too
        some = data.isel(model=(data.method.values == "merge-many") & (data.sweeps.values == 100))
        names = {"method": ["mine"] * some.sizes["model"], "model": [f"star/{name}" for name in some.model.values]}
        given = {name: ("model", np.array(values, dtype=object)) for name, values in names.items()}
        star_too = some.assign_coords(**given, sweeps=("model", np.zeros(some.sizes["model"], int)))
        files[stage] = xr.concat([data, star_too], dim="model", combine_attrs="override")
        records.write(files[stage], tmp_path / f"{stage}.nc", stage=stage)
    unregister("mine")
    read = {stage: records.read(tmp_path / f"{stage}.nc", stage=stage) for stage in files}
    drawn = [(plots.accuracy_by_merged, "merge"), (plots.robust_accuracy, "attack"), (plots.noise, "attack")]
    drawn += [(regularity.weight_norm, "regularity"), (regularity.lipschitz, "regularity")]
    for results, label, colour, shown in ((read, "my star", SPARE[0], drawn), (files, "mine", "#777777", drawn[:1])):
        for draw, stage in shown:
            lines = [line for axes in draw(results[stage]).axes for line in axes.lines]
            mine = {line.get_color() for line in lines if str(line.get_label()).startswith(label)}
            assert mine == {colour}, draw.__name__
