"""Sentences of the first screen follow the signs, intervals and verdicts that they are made from."""

import numpy as np
import xarray as xr

import synthetic
from hrebasin.study.publishing.across_settings import FALLS, _batch_norm, early_stopped, in_short
from hrebasin.study.publishing.first_screen import untried
from hrebasin.study.publishing.places import Published


def asked(sentence="", **ends):
    """Answers with one sentence, and intervals of trees of so many networks minus early-stopped ones."""
    ends = ends or {"tree16": (0, 0)}
    names = [f"FGSM, strong, at equal accuracy: tree of {n[4:]} minus early-stopped networks" for n in ends]
    low, high = np.array(list(ends.values())).T
    rows = {"comparison": ("row", np.array(names, dtype=object)), "low": ("row", low), "high": ("row", high)}
    rows |= dict.fromkeys(("effect", "p"), ("row", low)) | {"n": ("row", np.full(len(names), 3))}
    rows |= dict.fromkeys(("question", "effect_units"), ("row", np.full(len(names), "Q1", dtype=object)))
    texts = {"asked": ("asked", ["Q1"]), "title": ("asked", ["Q"]), "sentence": ("asked", [sentence])}
    return xr.Dataset(rows | texts).set_coords("asked")


def judged(verdict, **effects):
    """A ledger whose parts all have one verdict."""
    parts = [*FALLS.values(), "C5b fgsm", "C5c fgsm"]
    effect = np.full(len(parts), effects.get("effect", 1.0))
    columns = {"verdict": verdict, "claim": "C5", "units": "percentage points"}
    columns |= {"comparison": "FGSM, 0.010: stage 0 minus stage 3"}
    texts = {name: ("part", np.full(len(parts), text, dtype=object)) for name, text in columns.items()}
    numbers = {name: ("part", effect + shift) for name, shift in (("effect", 0), ("low", -0.5), ("high", 0.5))}
    return xr.Dataset(texts | numbers, coords={"part": parts})


def test_the_short_answer_names_sizes_whose_interval_leaves_zero_out():
    told = {
        "a": Published(judged("reproduced"), asked(tree2=(-3, -1), tree4=(-1, 1), tree8=(-2, -1))),
        "b": Published(judged("contradicted"), asked(tree2=(1, 2))),
    }
    said = in_short(told)
    assert "withstand strong FGSM better in `a` and worse in `b` than unmerged ones." in said
    assert "withstand strong FGSM better than merged ones: in `a` those merged from 2 and 8." in said
    assert "withstand strong FGSM worse than merged ones: in `b` those merged from 2." in said
    assert "Weight norms fall at every stage in `a`." in said
    assert "as the paper says" not in said


def test_what_settings_say_alike_stands_once():
    texts = ("No. Trees keep 1 %.", "No. Trees keep 2 %.", "Yes. Trees win.")
    trees = synthetic.results(groups=2, leaves=4, stages=("merge", "controls"))
    no, yes = (Published(None, asked(texts[k]), trees) for k in (0, 2))
    other = Published(
        None, asked(texts[1]), trees | {"controls": trees["controls"].sel(model=trees["controls"].group == 0)}
    )
    assert early_stopped({"a": no, "b": other}) == (
        "No.",
        ["In `a`, trees keep 1 %.", "In `b` (1 of 2 trees), trees keep 2 %."],
    )
    apart = Published(None, asked("Not comparable. Trees know nothing."), trees)
    head, told = early_stopped({"a": no, "c": apart})
    assert (head, told[1]) == ("No, where they can be compared.", "In `c`: Not comparable. Trees know nothing.")
    assert early_stopped({"a": no, "b": yes}) == ("", ["In `a`: No. Trees keep 1 %.", "In `b`: Yes. Trees win."])


def test_a_way_to_merge_that_pgd_has_not_tried_is_told_where_it_beats_early_stopping():
    labels = {"method": ("model", ["tree", "activations", "star"]), "n_merged": ("model", [4, 4, 4])}
    mergers = xr.Dataset({"strong_accuracy": ("model", [0.2, 0.4, 0.3])}, labels | {"order": ("model", [0, 0, 0])})
    stopped = {"method": ("model", ["stopped", "stopped"]), "strength": ("model", [1.0, 2.0])}
    robust = np.array([0.35, 0.1])[:, None, None].repeat(2, axis=2)
    axes = {"epsilon": [0.015, 0.02], "attack": ["fgsm"]}
    families = xr.Dataset({"robust_accuracy": (("model", "attack", "epsilon"), robust)}, stopped | axes)
    results = {"mergers": mergers, "controls": families, "train": xr.Dataset(attrs={"setting": "s"})}
    assert "4 networks merged by `activations` classify up to 40 %" in untried(results)
    assert untried({"mergers": mergers}) == untried(results | {"mergers": mergers.isel(model=[0, 2])}) == ""


def test_what_averaged_batch_norm_costs_is_told_where_it_was_measured():
    merge = synthetic.results(groups=2, leaves=4, stages=("merge",))["merge"]
    of_tree = (merge.method == "tree").values
    merge["averaged_norms_accuracy"] = xr.where(of_tree, merge.stage / 10, np.nan)
    merge["test_accuracy"] = xr.where(of_tree, 0.8 - merge.stage / 10, 0.9)
    _, pairs, last = _batch_norm(merge)
    assert pairs == "With their averages, networks merged from 2 reach 10.0 %, not 70.0 %."
    assert last == "With their averages, networks merged from 4 reach 20.0 %, not 60.0 %."
    assert _batch_norm(merge.drop_vars("averaged_norms_accuracy")) == []
