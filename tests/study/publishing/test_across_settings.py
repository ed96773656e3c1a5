"""What several settings tell together, from ledgers with planted effects."""

import pytest
import xarray as xr

import synthetic
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.publishing.across_settings import EFFECTS, Told, early_stopped, effects_table, paragraphs, unknown
from hrebasin.study.questions import answers


@pytest.fixture(scope="module")
def told():
    results = synthetic.results(groups=8)
    flat = synthetic.results(groups=8, C1=0, C11=0, stages=("merge", "attack", "regularity", "ablations"))
    return {"plain": Told(ledger(results), answers.answer(results)), "augmented": Told(ledger(flat), None)}


def test_effects_are_those_of_the_ledgers(told):
    head, rows = effects_table(told)
    assert head[1:] == ["plain", "augmented"]
    assert len(rows) == len(EFFECTS)
    lost = {name: each.ledger.sel(part=each.ledger.part == "C11").effect.item() for name, each in told.items()}
    row = next(row for row in rows if row[0] == EFFECTS["C11"])
    assert [float(cell.split(" ")[0]) for cell in row[1:]] == pytest.approx(list(lost.values()), rel=5e-3)


def test_paragraphs_follow_the_verdicts(told):
    found = dict(paragraphs(told))
    assert len(found) == 5
    tree = found["Is the tree ever more accurate than MergeMany?"]
    assert tree.startswith("Yes, in `plain`.")
    barrier = found["Is the drop in accuracy near zero, as the authors of Git Re-Basin report?"]
    assert "in `augmented`, the least." in barrier
    only = dict(paragraphs({"augmented": told["augmented"]}))
    assert only["Are networks merged in a tree more robust than early-stopped ones of the same accuracy?"] == (
        "Not measured yet."
    )
    assert (
        "Not measured yet: `convolutional`, `residual`." in only["What do convolutional and residual networks change?"]
    )


def test_what_is_not_known_names_what_is_missing(told):
    said = unknown(told, networks=128, devices={"cpu, x86_64"})
    assert "`augmented`" not in said
    assert "`fashion`" in said
    assert "GPU" in said
    assert "GPU" not in unknown(told, networks=128, devices={"cuda, H100"})


def test_what_settings_say_alike_stands_once():
    def asked(sentence):
        names = {"asked": ("asked", ["Q1"]), "title": ("asked", ["Q"]), "sentence": ("asked", [sentence])}
        rows = dict.fromkeys(("comparison", "effect_units"), ("row", [""])) | {"question": ("row", ["Q1"])}
        rows |= dict.fromkeys(("effect", "low", "high", "p"), ("row", [0.0])) | {"n": ("row", [3])}
        return Told(None, xr.Dataset(names | rows).set_coords("asked"))

    no, other, yes = map(asked, ("No. Trees keep 1 %.", "No. Trees keep 2 %.", "Yes. Trees keep 3 %."))
    assert early_stopped({"a": no, "b": other}) == "No. In `a`, trees keep 1 %. In `b`, trees keep 2 %."
    assert early_stopped({"a": no, "b": yes}) == "In `a`: No. Trees keep 1 %. In `b`: Yes. Trees keep 3 %."
    assert early_stopped({"a": no}) == "No. Trees keep 1 %."
