"""Results of networks without upper bounds: claims, answers, figures and the page say so, and nothing else fails."""

from dataclasses import replace

import numpy as np
import pytest

import synthetic
from hrebasin.bank import Bank
from hrebasin.evaluation import evaluate
from hrebasin.lipschitz.bounds import measure as measure_bounds
from hrebasin.lipschitz.layers import NOT_APPLICABLE
from hrebasin.merging.tree import merge_tree
from hrebasin.study import records
from hrebasin.study.claims.ledger import ledger
from hrebasin.study.figures import registry as figures
from hrebasin.study.questions import answers, scale
from hrebasin.study.tour import explore
from other_networks import KINDS, SHAPE, untrained

pytestmark = pytest.mark.usefixtures("few_resamples")


def without_bounds(data):
    """A data set as other networks than ReLU MLPs leave it: with more layers, and NaN for what is not applicable."""
    if "layer" in data.dims:
        data = data.isel(layer=np.arange(20) % data.sizes["layer"])
        data = data.assign_coords(layer=("layer", [f"block{k}.conv" for k in range(20)], data.layer.attrs))
    if "method" in data.coords:
        data = data.isel(model=(data.method != "rescaled").values)
    for name in {"lipschitz", "local_lipschitz", "certified_radius"} & set(data.data_vars):
        data[name] = data[name].where(False).assign_attrs(data[name].attrs, comment=NOT_APPLICABLE)
    return data.assign_attrs(comment=NOT_APPLICABLE)


@pytest.mark.parametrize("groups", [3, 1])
def test_parts_questions_and_figures_say_what_is_not_applicable_and_show_what_there_is(groups):
    results = synthetic.results(groups=groups)
    results |= {stage: without_bounds(results[stage]) for stage in ("regularity", "scale")}
    found = ledger(results)
    for part in ("C8a", "C8b"):
        assert found.verdict.sel(part=part) == "not measured"
        assert found.reason.sel(part=part) == "not applicable: upper bounds are known for ReLU MLPs only"
    others = found.part.values[(found.claim != "C8").values & (found.title != "").values]
    assert "not measured" not in found.verdict.sel(part=others)
    tests, sentence = scale.answer(results["scale"])
    assert sentence.startswith("Not resolved: these networks could not be rescaled. Their sampled lower bound falls by")
    assert not [test.name for test in tests if "global" in test.name or "certified" in test.name]
    assert "not applicable" in answers.table(answers.answer({"scale": results["scale"]}))
    shown = {name: figures.draw(name, results) for name in ("fig3_weight_norm", "fig4_lipschitz", "fig12_scale")}
    norms, bounds, scales = ([text.get_text() for text in each.legends[0].get_texts()] for each in shown.values())
    assert bounds == ["largest gradient norm (lower bound)"]
    assert "Not applicable: upper bounds" in figures.caption("fig4_lipschitz", results)
    assert "tree, 13 other layers" in norms
    assert sum("layer block" in label for label in norms) == 7
    assert [label for label in scales if "certified" in label or "rescaled" in label] == []
    assert "Above: the largest gradient norm." in figures.caption("fig12_scale", results)
    measures = explore.measures(results).measure.values.tolist()
    assert measures == ["gradient norm, largest (from below)", "weight norm, sum over layers"]


@pytest.mark.parametrize("make", KINDS)
def test_trees_of_other_networks_are_measured_and_answered(make, make_images, tmp_path):
    images = make_images("test", 20, shape=SHAPE)
    leaves = untrained(make, 4).relabel(node=np.arange(4))
    stages = merge_tree(leaves, pixels=images.pixels.float() / 255)
    bank = Bank.concat([replace(each, history=None) for each in stages])
    regularity = measure_bounds(bank, images.pixels[:10], images.labels[:10], radii=[0.1], bounded=3)
    record = scale.measure(bank, regularity, evaluate(bank, images).accuracy)
    records.write(record, tmp_path / "scale.nc", stage="scale")
    back = records.read(tmp_path / "scale.nc", stage="scale")
    assert back.certified_radius.isnull().all()
    assert back.certificate.values.tolist() == ["global", "eclipse-fast", "local"]
    assert back.certified_radius.attrs["comment"] == back.attrs["comment"] == NOT_APPLICABLE
    assert set(back.method.values) == {"unmerged", "tree"}
    assert "sampled lower bound" in scale.answer(back)[1]
    scale.draw(back)
