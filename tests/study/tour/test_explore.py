import numpy as np
import pytest

import synthetic
from hrebasin.study.groups import by_group
from hrebasin.study.stages import STAGES
from hrebasin.study.tour import explore

CHOICE = {"attack": "fgsm", "epsilon": 0.01, "measure": "product of spectral norms"}


@pytest.fixture(scope="module")
def results():
    return synthetic.results(groups=6, stages=STAGES)


@pytest.fixture(scope="module")
def data(results):
    return explore.measures(results)


def test_measures_are_those_of_the_networks_that_have_both(results, data):
    assert set(data.model.values) == set(results["attack"].model.values) & set(results["regularity"].model.values)
    one = data.isel(model=3)
    regularity = results["regularity"].sel(model=one.model)
    for name, value in (
        ("product of spectral norms", regularity.lipschitz.sel(bound="global")),
        ("local bound, radius 0.1, mean", regularity.local_lipschitz.sel(radius=0.1).mean()),
        ("gradient norm, largest (from below)", regularity.gradient_norm.max()),
        ("weight norm, sum over layers", regularity.weight_norm.sum()),
    ):
        assert one.bound.sel(measure=name).item() == pytest.approx(value.item()), name
    assert data.measure_units.sel(measure="weight norm, sum over layers") == "1"
    assert data.measure_units.sel(measure="ECLipsE-Fast") == "logit per pixel range"


def test_figure_and_table_show_the_same_numbers_of_the_kinds_that_were_chosen(data, capsys):
    several = list(explore.kinds(data, ["l2", "unmerged", "tree", "merge-many"], [0, 2]).values())
    assert several[:4] == ["L2, strength 1e-05", "L2, strength 0.001", "unmerged", "tree of 4"]
    assert several[4:] == [*(f"MergeMany of 4, {n} sweeps" for n in (1, 2, 5)), "MergeMany of 4"]
    chosen = explore.kinds(data, ["unmerged", "tree"], [0, 1, 4])
    figure, table = explore.draw(data, chosen, **CHOICE), explore.table(data, chosen, **CHOICE)
    assert list(table.index) == ["unmerged", "tree of 2", "tree of 16"]
    robust = 100 * by_group(data.robust_accuracy.sel(attack="fgsm", epsilon=0.01), method="tree", stage=4).mean().item()
    told = table.loc["tree of 16"]
    assert told["robust at 0.01 (%)"] == pytest.approx(robust)
    assert told["robust at 0.01 (%), low"] < robust < told["robust at 0.01 (%), high"]
    left, right = figure.axes
    curves = {line.get_label(): line for line in left.lines if line.get_label() in table.index}
    at = data.epsilon.values.tolist().index(0.01)
    for name, row in table.iterrows():
        assert curves[name].get_ydata()[at] == pytest.approx(row["robust at 0.01 (%)"])
    marks = [line for line in right.lines if line.get_markersize() == 5]
    bound = "product of spectral norms (logit per pixel range)"
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], table[bound])
    explore.show(data, **CHOICE, methods=(), stages=(0,))
    assert "No network has these methods and stages" in capsys.readouterr().out


def test_controls_offer_what_was_measured_and_what_they_show_follows(results, monkeypatch):
    shown = []
    monkeypatch.setattr(explore, "show", lambda data, **choice: shown.append(choice))
    controls = explore.explorer(results, epsilon=0.0123).children[0].children
    attack, size, bound = controls[0].children
    methods, stages = controls[1:]
    assert [value for _, value in attack.options] == list(synthetic.ATTACKS)
    assert shown[-1] == CHOICE | {"epsilon": 0.012, "methods": methods.value, "stages": (0, 1, 2, 3, 4)}
    assert set(methods.value) == {"unmerged", "tree", "l2"}
    size.value, stages.value = 0.02, (0, 1)
    attack.value, bound.value = "deepfool-linf", "ECLipsE-Fast"
    expected = {"attack": "deepfool-linf", "epsilon": 0.02, "measure": "ECLipsE-Fast"}
    assert shown[-1] == expected | {"methods": methods.value, "stages": (0, 1)}
