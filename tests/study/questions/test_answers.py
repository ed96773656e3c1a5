"""What all open questions share: the list, the schemas, answers with intervals and n."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import synthetic
from hrebasin.study import questions, records
from hrebasin.study.questions.answers import VARIABLES, answer, asked_before, table


def test_data_sets_follow_their_schemas_and_every_question_is_answered_with_intervals_and_n(measured, tmp_path):
    assert list(measured) == list(questions.OPEN)
    answers = answer(measured)
    for stage, dataset in ({**measured, "answers": answers}).items():
        records.write(dataset, tmp_path / f"{stage}.nc", stage=stage)
        xr.testing.assert_allclose(records.read(tmp_path / f"{stage}.nc", stage=stage), dataset)
    assert answers.title.values.tolist() == [questions.load(stage).TITLE for stage in questions.OPEN]
    assert set(answers.data_vars) == {*VARIABLES, "sentence", "title"}
    assert set(answers.question.values) == set(answers.asked.values)
    assert (answers.n >= 1).all()
    several = answers.isel(row=((answers.n == 2) & answers.low.notnull()).values)  # equal values have no interval
    assert several.sizes["row"] > 50
    assert ((several.low <= several.effect) & (several.effect <= several.high)).all()
    assert answer({"repair": measured["repair"], "merge": measured["mergers"]}).asked.values.tolist() == ["Q5"]


def test_answers_tell_what_was_asked_of_the_same_networks_before(made_up, tmp_path):
    told = {"controls": "a", "strong": "a", "repair": "b", "recipes": None}  # whose networks
    data = {stage: made_up[stage].assign_attrs({"networks": whose} if whose else {}) for stage, whose in told.items()}
    for stage, dataset in data.items():
        records.write(dataset, tmp_path / f"{stage}.nc", stage=stage)
    now = {"strong": data["strong"]}
    assert list(asked_before(tmp_path, now)) == ["controls", "recipes"]
    fewer = {"strong": data["strong"].isel(model=(data["strong"].group == 0).values)}
    assert asked_before(tmp_path, fewer) == {}


def test_the_lists_that_the_workflow_starts_with_load_nothing_heavy():
    code = """import sys
from hrebasin.study import figures, notebook_code, questions, stages
print({"torch", "xarray", "numpy", "matplotlib"} & set(sys.modules))"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.fixture(scope="module")
def made_up():
    return synthetic.results(groups=3, leaves=4, stages=list(questions.OPEN))


@pytest.mark.parametrize("value", [0.5, 1.0])
@pytest.mark.parametrize("stage", questions.OPEN)
def test_degenerate_results_are_not_defined_in_their_rows_alone(made_up, stage, value):
    numbers = {name: v.copy(data=np.full(v.shape, value, v.dtype)) for name, v in made_up[stage].data_vars.items()}
    found = answer({stage: made_up[stage].assign(numbers)})
    undefined = np.isnan(found.effect.values)
    assert not undefined.all()
    assert (found.n.values[undefined] == 0).all()
    assert np.isnan(found.p.values[undefined]).all()
    assert ("| not defined |" in table(found)) == undefined.any()


def test_a_question_without_numbers_is_not_defined(made_up):
    empty = made_up["repair"].assign(test_accuracy=made_up["repair"].test_accuracy * np.nan)
    found = answer({"repair": empty, "strong": made_up["strong"]})
    assert "gives back (not defined) of the accuracy lost" in found.sentence.values[-1]
    of_repair = found.isel(row=(found.question == found.asked[-1]).values)
    kept = ["accuracy" not in name and "loss recovered" not in name for name in of_repair.comparison.values]
    assert np.isfinite(of_repair.effect).values.tolist() == kept  # one comparison costs no other its own
    assert "nan" not in " ".join(found.sentence.values)
