import json

import numpy as np
import pytest

import synthetic
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.figures.style import COLOURS
from hrebasin.study.groups import by_group
from hrebasin.study.stages import STAGES
from hrebasin.study.tour import explore


@pytest.fixture(scope="module")
def results():
    return synthetic.results(groups=6, stages=STAGES)


@pytest.fixture(scope="module")
def data(results):
    return explore.measures(results)


CHOICE = {"attack": "fgsm", "epsilon": 0.01, "measure": "product of spectral norms"}


def test_measures_are_those_of_the_networks_that_have_both(results, data):
    assert set(data.model.values) == set(results["attack"].model.values) & set(results["regularity"].model.values)
    one = data.isel(model=3)
    regularity = results["regularity"].sel(model=one.model)
    expected = {
        "product of spectral norms": regularity.lipschitz.sel(bound="global"),
        "local bound, radius 0.1, mean": regularity.local_lipschitz.sel(radius=0.1).mean(),
        "gradient norm, largest (from below)": regularity.gradient_norm.max(),
        "weight norm, sum over layers": regularity.weight_norm.sum(),
    }
    for name, value in expected.items():
        assert one.bound.sel(measure=name).item() == pytest.approx(value.item()), name
    assert data.measure_units.sel(measure="weight norm, sum over layers") == "1"
    assert data.measure_units.sel(measure="ECLipsE-Fast") == "logit per pixel range"


def test_kinds_are_those_chosen_with_names_that_tell_them_apart(data):
    chosen = explore.kinds(data, ["l2", "unmerged", "tree", "merge-many"], [0, 2])
    assert list(chosen.values()) == [
        "L2, strength 1e-05", "L2, strength 0.001", "unmerged", "tree of 4", "MergeMany of 4, 1 sweeps",
        "MergeMany of 4, 2 sweeps", "MergeMany of 4, 5 sweeps", "MergeMany of 4",
    ]  # fmt: skip
    assert explore.kinds(data, ["tree"], [0]) == {}


def test_figure_and_table_show_the_same_numbers(data):
    chosen = explore.kinds(data, ["unmerged", "tree"], [0, 1, 4])
    figure, table = explore.draw(data, chosen, **CHOICE), explore.table(data, chosen, **CHOICE)
    assert list(table.index) == ["unmerged", "tree of 2", "tree of 16"]
    robust = by_group(data.robust_accuracy.sel(attack="fgsm", epsilon=0.01), method="tree", stage=4)
    assert table.loc["tree of 16", "robust at 0.01 (%)"] == pytest.approx(100 * robust.mean().item())
    low, high = (table.loc["tree of 16", f"robust at 0.01 (%), {end}"] for end in ("low", "high"))
    assert low < 100 * robust.mean().item() < high
    left, right = figure.axes
    curves = {line.get_label(): line for line in left.lines if line.get_label() in table.index}
    at = data.epsilon.values.tolist().index(0.01)
    for name, row in table.iterrows():
        assert curves[name].get_ydata()[at] == pytest.approx(row["robust at 0.01 (%)"])
    marks = [line for line in right.lines if line.get_markersize() == 5]
    bound = "product of spectral norms (logit per pixel range)"
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], table[bound])
    assert curves["unmerged"].get_color() == COLOURS["unmerged"]


def test_nothing_chosen_is_said_in_words(data, capsys):
    explore.show(data, **CHOICE, methods=(), stages=(0,))
    assert "No network has these methods and stages" in capsys.readouterr().out


def test_controls_offer_what_was_measured_and_what_they_show_follows(results, monkeypatch):
    shown = []
    monkeypatch.setattr(explore, "show", lambda data, **choice: shown.append(choice))
    controls = explore.explorer(results, epsilon=0.0123).children[0].children
    attack, size, bound = controls[0].children
    methods, stages = controls[1:]
    assert [value for _, value in attack.options] == list(synthetic.ATTACKS)
    assert shown[-1] == {
        "attack": "fgsm", "epsilon": 0.012, "measure": "product of spectral norms",
        "methods": methods.value, "stages": (0, 1, 2, 3, 4),
    }  # fmt: skip
    assert set(methods.value) == {"unmerged", "tree", "l2"}
    size.value, stages.value = 0.02, (0, 1)
    attack.value, bound.value = "deepfool-linf", "ECLipsE-Fast"
    assert shown[-1] == {
        "attack": "deepfool-linf", "epsilon": 0.02, "measure": "ECLipsE-Fast",
        "methods": methods.value, "stages": (0, 1),
    }  # fmt: skip


def test_papermill_gets_the_first_choice_without_controls(results, monkeypatch):
    shown = []
    monkeypatch.setattr(explore, "show", lambda data, **choice: shown.append(choice))
    monkeypatch.setattr(explore, "in_batch", lambda: True)
    assert explore.explorer(results) is None
    assert [choice["epsilon"] for choice in shown] == [0.01]


def test_verdicts_stand_in_words_and_on_their_colours(results, few_resamples):
    claims = ledger(results)
    html = explore.verdicts(claims).to_html()
    for claim in claims.part.values[claims.title.values != ""]:
        assert f">{claim}<" in html
    assert html.count(">reproduced<") == (claims.verdict.values == "reproduced").sum() > 0
    assert explore.VERDICTS["reproduced"] in html
    assert json.dumps(html)
