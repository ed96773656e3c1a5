"""Sentences of the first screen follow the signs, intervals and verdicts that they are made from."""

import numpy as np
import xarray as xr

import synthetic
from hrebasin.study.figures.registry import caption
from hrebasin.study.publishing.across_settings import _batch_norm
from hrebasin.study.publishing.early_stopping import beside_the_table, early_stopped, table, told_other_ways
from hrebasin.study.publishing.first_screen import KEY, ends_of_tree, key
from hrebasin.study.publishing.places import Published
from hrebasin.study.publishing.recommendation import ways_table
from hrebasin.study.publishing.short_answer import FALLS, _Beside, _leads, in_short


def asked(sentence="", **ends):
    """Answers with one sentence, and intervals of trees of so many networks minus early-stopped ones."""
    ends = ends or {"tree16": (0, 0)}
    names = [f"FGSM, strong, at equal accuracy: tree of {n[4:]} minus early-stopped networks" for n in ends]
    low, high = np.array(list(ends.values())).T
    rows = {"comparison": ("row", np.array(names, dtype=object)), "low": ("row", low), "high": ("row", high)}
    rows |= dict.fromkeys(("effect", "p", "images"), ("row", low)) | {"n": ("row", np.full(len(names), 3))}
    rows |= dict.fromkeys(("question", "effect_units"), ("row", np.full(len(names), "Q1", dtype=object)))
    texts = {"asked": ("asked", ["Q1"]), "title": ("asked", ["Q"]), "sentence": ("asked", [sentence])}
    return xr.Dataset(rows | texts).set_coords("asked")


def judged(verdict, **effects):
    """A ledger whose parts all have one verdict."""
    parts = [*FALLS.values(), "C7b", "C5b fgsm", "C5c fgsm", "C11"]
    effect = np.full(len(parts), effects.get("effect", 1.0))
    columns = {"verdict": verdict, "claim": "C5", "units": "percentage points"}
    columns |= {"comparison": "FGSM, 0.010: stage 0 minus stage 3"}
    texts = {name: ("part", np.full(len(parts), text, dtype=object)) for name, text in columns.items()}
    numbers = {name: ("part", effect + shift) for name, shift in (("effect", 0), ("low", -0.5), ("high", 0.5))}
    return xr.Dataset(texts | numbers, coords={"part": parts})


def test_the_short_answer_names_settings_by_verdict_and_who_leads_early_stopping():
    trees = synthetic.results(groups=2, leaves=4, stages=("merge",))
    behind, ahead = ({"tree2": (side, side + 2), "tree4": (-1, 1), "tree8": (side, side + 1)} for side in (-3, 1))
    told = {
        "a": Published(judged("reproduced"), asked(**behind), trees),
        "b": Published(judged("contradicted"), asked(tree2=(-1, 1)), trees),
    }
    said = " ".join(text for _, text in in_short(told))
    assert "withstand strong FGSM better in `a` (1 points) and worse in `b` (1 points) than unmerged ones." in said
    tree = "Networks merged in the paper's tree trail those of the same accuracy (within 1 point)"
    assert f"{tree} in 2 of 4 comparisons under strong FGSM. They lead in none." in said
    assert "Weight norms fall at every stage in `a`." in said
    assert "as the paper says" not in said
    first, last = ends_of_tree(trees["merge"].test_accuracy)
    assert f"merging a whole tree (of 4 networks) {first - last:.2g}." in said
    said = " ".join(text for _, text in in_short(told | {"b": told["b"]._replace(answers=asked(**ahead))}))
    of_2 = "They lead in 2: in `b`, the tree of 2 (by 1.0 points; not attacked with PGD)"
    assert f"{tree} in 2 of 6 comparisons under strong FGSM. {of_2} and the tree of 8" in said
    unsure = judged("not resolved", effect=2.0)
    unsure["p"] = unsure.effect * 0.1
    turned = unsure.assign(effect=-unsure.effect, low=-unsure.high, high=-unsure.low)
    told = {name: Published(ledger, None, trees) for name, ledger in (("c", unsure), ("d", turned))}
    said = dict(in_short(told))["Robustness."]
    both = "In `c` they lead by 2.0 points (1.5 to 2.5), and in `d` they trail by 2.0 points (1.5 to 2.5); neither is"
    assert said.startswith(f"{both} resolved.")


def test_of_one_tree_the_page_tells_what_merging_costs_and_no_interval():
    one = synthetic.results(groups=1, leaves=4, stages=("merge", "attack"))
    undecided = judged("no verdict")
    told = {"a": Published(undecided.assign(low=undecided.low * np.nan), None, one)}
    assert [topic for topic, _ in in_short(told)] == ["Accuracy."]
    assert key(told) == KEY
    assert "not corrected" not in caption("fig2_robust_accuracy", one)


def test_who_leads_is_named_with_what_pgd_says():
    some = [("strong FGSM", 1.6, 1), ("PGD", -3.0, -1)]
    found = [_Beside("a", "MergeMany", 4, *one) for one in some]
    found.append(_Beside("b", "a tree matched by activations", 16, "PGD", 2.0, 1))
    many = "in `a`, MergeMany of 4 (by 1.6 points; under PGD -3.0)"
    assert (
        _leads(found)
        == f"They lead in 2: {many}; in `b`, a tree of 16 matched by activations (by 2.0 points under PGD)."
    )
    assert _leads(found[1:2]) == "They lead in none."


def test_robustness_that_first_rises_other_ways_that_lead_and_networks_that_guess_are_told():
    results = synthetic.results(groups=3, leaves=4, stages=("merge", "attack", "mergers"))
    mergers, stages = results["mergers"], results["attack"].stage
    results["attack"]["robust_accuracy"] = (
        results["attack"].robust_accuracy * 0 + xr.where(stages == 1, 0.3, 0.2) + stages / 100
    )
    ahead = xr.where(mergers.method == "activations", 0.3, xr.where(mergers.method == "unmerged", 0.2, 0.1))
    results["mergers"] = mergers.assign(strong_accuracy=ahead + mergers.group / 1000 * (mergers.method != "unmerged"))
    ledger = judged("contradicted")
    names = ["FGSM, strong: stage 1 minus stage 0"] * ledger.sizes["part"]
    ledger["comparison"] = "part", np.array(names, dtype=object)
    assert "first rises" not in dict(in_short({"a": Published(ledger, None, results)}))["Robustness."]
    ledger["effect"] = -ledger.effect  # of the whole tree; the rows' lower ends, above zero, stand for the first merge
    said = dict(in_short({"a": Published(ledger, None, results)}))["Robustness."]
    assert "first rises, from 20.0 to 31.0 % for networks merged from 2, and then falls to 22.0 %." in said
    assert "in `a`, 1 of " in said
    assert "other ways lead unmerged networks under FGSM, a tree matched by activations most, by 10.1 points" in said
    results["merge"]["test_accuracy"] = results["merge"].test_accuracy * 0 + 0.12
    told = dict(in_short({"a": Published(ledger, None, results)}))
    assert "fully merged networks hardly do better than guessing (12 % beside 10 %)" in told["Accuracy."]


def test_who_leads_unmerged_networks_under_pgd_is_counted_and_the_whole_stands_first():
    results = synthetic.results(groups=3, leaves=4, stages=("merge", "attack", "controls"))
    controls = results["controls"].drop_vars("withstood", errors="ignore")
    ahead = xr.where((controls.method == "tree") & (controls.stage == 2), 0.3, 0.2) + controls.group / 100
    ahead = ahead - xr.where(controls.method == "merge-many", 0.1, 0.0) - controls.group / 1000 * (controls.stage > 0)
    results["controls"] = controls.assign(robust_accuracy=controls.robust_accuracy * 0 + ahead)
    told = dict(in_short({"a": Published(judged("reproduced"), asked(tree2=(-2, -1)), results)}))
    lead = "in 1 of 2 comparisons (`a`, by at most 9.9 points)"
    assert f"Under PGD, networks merged in the tree lead unmerged ones {lead}" in told["Robustness."]
    assert "Networks merged in other ways lead them in none of " in told["Robustness."]
    assert told["In short."] == (
        "Merging in the paper's tree costs accuracy and shrinks weight norms in every setting, as the paper says. "
        "Under strong FGSM, fully merged networks are more robust in `a` than unmerged ones. In no comparison are "
        "networks of this tree more robust than early-stopped ones of the same accuracy."
    )
    assert told["Is it the merging?"].startswith("Not in the paper's tree. ")


def test_what_settings_say_alike_stands_once():
    no, other, yes, apart = (
        Published(None, asked(f"{word}. Trees.")) for word in ("No", "No", "Yes", "Not comparable")
    )
    only = "for trees matched by weights as in the paper"
    assert early_stopped({"a": no, "b": other}) == (f"No, {only}.", [])
    assert early_stopped({"a": no, "c": apart}) == (f"No, {only}, where they can be compared.", [])
    assert early_stopped({"a": no, "b": yes}) == ("", [])


def test_each_number_of_merged_networks_has_a_line():
    trees = synthetic.results(groups=2, leaves=4, stages=("merge", "controls"))
    some = trees["controls"].sel(model=trees["controls"].group == 0)
    far = "FGSM, strong, beside the nearest, {} points more accurate: tree of 4 minus early-stopped networks"
    found = asked(tree2=(1, 3), tree4=(-3, -1)).assign_coords(effect=("row", [2.0, -2.0]))
    lines = table({"a": Published(None, found, trees), "b": Published(None, found, trees | {"controls": some})})
    assert [line[:2] for line in lines[1:3]] == [("`a`, n = 2 trees", "4"), ("`b`, n = 1 of 2 trees", "2")]
    fgsm, pgd = lines[0].cells
    assert (fgsm.word, fgsm.number, pgd.word) == ("lead", "2.0 (1.0 to 3.0)", "not measured")
    for gap, told in (
        ("0.3", ("trail", "-2.0 (-3.0 to -1.0), beside networks 0.3 points more accurate")),
        ("4.6", None),
    ):
        found["comparison"] = "row", np.array([found.comparison.values[0], far.format(gap)], dtype=object)
        cell = table({"a": Published(None, found, trees)})[1].cells[0]
        least = "the least accurate early-stopped networks are 4.6 points more accurate"
        assert (cell.word, cell.number) == (told or ("not comparable", least))


def test_the_tree_beside_other_unmerged_networks_is_counted_in_every_setting():
    at = "FGSM, strong, {}: tree of {} minus {}"
    alike, far = "at equal accuracy", "beside the nearest, 8.8 points more accurate"
    names = {"a": [at.format(alike, size, "narrower networks") for size in (2, 4)]}
    names["b"] = [at.format(far, 2, "early-stopped networks"), at.format(alike, 2, "networks with noisy weights")]
    settings = {}
    found = {"tree2": (3, 5), "tree4": (-1, 1)}, {"tree2": (-9, -8), "tree4": (-3, -1)}
    for (name, rows), ends in zip(names.items(), found, strict=True):
        settings[name] = Published(None, asked(**ends).assign(comparison=("row", np.array(rows, dtype=object))), {})
    apart, counted = beside_the_table(settings)
    assert apart.startswith("In `b`, networks merged in the tree are on average at least 8.8 points less accurate")
    assert counted.endswith("the tree leads in 1 (`a`) of 3 comparisons under strong FGSM, and trails in 1 (`b`).")


def test_ways_to_merge_stand_in_one_table_with_the_highest_marked():
    mergers = synthetic.results(groups=2, leaves=4, stages=("mergers",))["mergers"]
    ahead = xr.where(mergers.method == "activations", 0.3, 0.2)
    mergers = mergers.assign(test_accuracy=ahead, repaired_accuracy=0.7 - ahead)
    lines = ways_table({"a": Published(None, None, {"mergers": mergers})}).splitlines()
    assert lines[0] == "| `method=` | `a`, 4 networks, n = 2 |"
    assert "| `activations` | **30.0** → 40.0 |" in lines
    assert "| `tree` | 20.0 → **50.0** |" in lines


def test_other_ways_to_merge_are_told_with_their_lead():
    """Early-stopped networks are as robust as they are accurate; trees by activations more so, other ways less."""
    results = synthetic.results(groups=3, leaves=4, stages=("controls", "mergers"))
    families, mergers = results["controls"], results["mergers"]
    robust = families.test_accuracy.broadcast_like(families.robust_accuracy)
    results["controls"] = families.assign(robust_accuracy=robust).drop_vars("withstood")
    own = families.method.isin(("stopped", "unmerged")).values
    ends = families.test_accuracy.values[own].min(), families.test_accuracy.values[families.method == "unmerged"].min()
    middle = sum(ends) / 2
    lead = xr.where(mergers.method == "activations", 0.05, -0.05) + mergers.group / 1000
    results["mergers"] = mergers.assign(test_accuracy=mergers.test_accuracy * 0 + middle, strong_accuracy=middle + lead)
    kinds = {"FGSM": (2.0, 5.0), "PGD on the margin": (1.5, 2.0)}
    answers = asked(**{f"tree{size}": (0, 0) for size in (2, 4, 8, 16)})
    alike = "{}, strong, at equal accuracy: tree of {} minus early-stopped networks"
    names = [alike.format(kind, size) for kind in kinds for size in (2, 4)]
    answers["comparison"] = "row", np.array(names, dtype=object)
    answers["effect"] = "row", np.concatenate(list(kinds.values()))
    said = told_other_ways(Published(None, answers, results))
    assert (
        "Of other ways to merge 4 networks, under strong FGSM a tree matched by activations leads by 5.1 points" in said
    )
    assert "trails by 4.9 points" in said
    assert "fare worse beside early-stopped ones under PGD than under FGSM, by 0.5 to 3.0 points" in said
    results["mergers"]["strong_accuracy"] = results["mergers"].strong_accuracy - 0.2
    assert " leads " not in told_other_ways(Published(None, None, results))
    assert told_other_ways(Published(None, None, {"mergers": mergers})) == ""


def test_what_averaged_batch_norm_costs_is_told_where_it_was_measured():
    merge = synthetic.results(groups=2, leaves=4, stages=("merge",))["merge"]
    of_tree = (merge.method == "tree").values
    merge["averaged_norms_accuracy"] = xr.where(of_tree, merge.stage / 10, np.nan)
    merge["test_accuracy"] = xr.where(of_tree, 0.8 - merge.stage / 10, 0.9)
    _, pairs, last = _batch_norm(merge)
    assert pairs == "With their averages, networks merged from 2 reach 10.0 %, not 70.0 %."
    assert last == "With their averages, networks merged from 4 reach 20.0 %, not 60.0 %."
    assert _batch_norm(merge.drop_vars("averaged_norms_accuracy")) == []
