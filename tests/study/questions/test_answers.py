from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import synthetic
from conftest import RECIPE
from hrebasin.bank import Bank
from hrebasin.merging.repair import study as repair_study
from hrebasin.merging.tree import merge_tree
from hrebasin.robustness.strong import strong_suite
from hrebasin.study import records
from hrebasin.study.figures.style import NAMES
from hrebasin.study.questions.answers import QUESTIONS, VARIABLES, answer
from hrebasin.study.questions.lower_accuracy import study as controls_study
from hrebasin.study.questions.scale import study as scale_study
from hrebasin.study.questions.training_recipes import Variant
from hrebasin.study.questions.training_recipes import study as recipes_study
from hrebasin.study.questions.ways_to_merge import MERGERS, compare_mergers

EPSILONS = [0.0, 0.01, 0.02, 0.1]


@pytest.fixture(scope="module")
def measured(trained, train_images, test_images):
    """Every question's data set, of two groups of four small networks."""
    bank = trained.relabel(group=np.repeat([0, 1], 4), node=np.tile(np.arange(4), 2))
    trees = Bank.concat([bank, *merge_tree(bank, leaves=4)[1:]])
    few = test_images.first(20)
    strong = strong_suite(
        trees, few.pixels, few.labels, epsilons=EPSILONS, sources=[bank.select([0])], steps=3, restarts=1
    )
    given = train_images, test_images
    settings = {"attacked": 20, "epsilons": EPSILONS}
    ways = [Variant("short", replace(RECIPE, epochs=3), (8, 6), 0), Variant("wide", RECIPE, (12, 6), 80)]
    recipes = [recipes_study(w, *given, group=g, leaves=4, **settings) for w in ways for g in (0, 1)]
    return {
        "controls": controls_study(trees, *given, RECIPE, epochs=[1, 3], shares=[0.75], seeds=1, **settings),
        "strong": strong,
        "mergers": compare_mergers(bank, test_images, sizes=[4], limits=[1, 100], orders=2),
        "scale": scale_study(trees, test_images, measured=40, bounded=3, radii=[0.05]),
        "repair": repair_study(bank, train_images.pixels[:100], test_images, attacked=10, epsilons=EPSILONS),
        "recipes": xr.concat(recipes, dim="model"),
    }


@pytest.fixture(scope="module")
def answers(measured):
    return answer(measured)


def of(answers: xr.Dataset, question: str) -> dict[str, float]:
    """Effects of a question by comparison."""
    chosen = answers.isel(row=(answers.question == question).values)
    return dict(zip(chosen.comparison.values.tolist(), chosen.effect.values.tolist(), strict=True))


def test_data_sets_follow_their_schemas(measured, answers, tmp_path):
    for stage, dataset in (measured | {"answers": answers}).items():
        records.write(dataset, tmp_path / f"{stage}.nc", stage=stage)
        xr.testing.assert_allclose(records.read(tmp_path / f"{stage}.nc", stage=stage), dataset)


def test_every_question_is_answered_with_intervals_and_n(answers):
    assert answers.asked.values.tolist() == list(QUESTIONS)
    assert set(answers.data_vars) == {*VARIABLES, "sentence", "title"}
    assert set(answers.question.values) == set(QUESTIONS)
    assert (answers.n >= 1).all()
    several = answers.isel(row=(answers.n == 2).values)
    assert (several.low <= several.effect).all()
    assert (several.effect <= several.high).all()


def test_effects_are_differences_of_the_data(answers, measured):
    mergers = measured["mergers"]
    accuracy = {
        name: mergers.test_accuracy[(mergers.method == name).values].values.mean() for name in ("tree", "star", "naive")
    }
    found = of(answers, "Q3")
    for name in ("star", "naive"):
        assert found[f"{NAMES.get(name, name)} minus tree, 4 models"] == pytest.approx(
            100 * (accuracy[name] - accuracy["tree"])
        )
    assert {NAMES.get(name, name) for name in MERGERS} <= {name.split(" minus")[0] for name in found}
    scale = measured["scale"]
    bounds = {
        (method, stage): np.log10(scale.lipschitz.sel(bound="global"))[
            ((scale.method == method) & (scale.stage == stage)).values
        ].mean()
        for method, stage in (("unmerged", 0), ("tree", 2), ("rescaled", 2))
    }
    found = of(answers, "Q4")
    fall = bounds["unmerged", 0] - bounds["tree", 2]
    assert found["log10 global bound, stage 0 minus stage 2"] == pytest.approx(fall.item())
    rescaled = bounds["unmerged", 0] - bounds["rescaled", 2]
    assert found["log10 global bound, stage 0 minus stage 0 at the norms of stage 2"] == pytest.approx(rescaled.item())
    share = found["share of the fall of the global bound that scale alone makes"]
    assert share == pytest.approx(100 * (rescaled / fall).item(), rel=1e-3)


def test_regularised_networks_stand_beside_the_stage_that_is_as_accurate():
    answers = answer({"scale": synthetic.results(groups=3, noise=0)["scale"]})
    found = of(answers, "Q4")
    about = "stage 1 minus L2-regularised networks of strength 0.01"
    assert found[f"accuracy: {about}"] == pytest.approx(0, abs=1e-9)
    assert found[f"log10 global bound: {about}"] == pytest.approx(np.log10(3) - 0.3)
    assert found[f"log10 sampled lower bound: {about}"] == pytest.approx(np.log10(3) - 0.3)
    assert found[f"certified radius by the local bound: {about}"] == pytest.approx(0.03)
    assert not [name for name in found if "regularised" in name and about not in name]
    assert "the bound is 1.5 times as large (stage 1) as that of L2" in str(answers.sentence[0].values)


def test_robustness_that_holds_and_that_does_not_reads_so(measured):
    strong = measured["strong"]
    stage = strong.stage * (strong.method == "tree")
    small = strong.epsilon - 0.012
    planted = (0.5 + 2 * small * stage).broadcast_like(strong.robust_accuracy).transpose(*strong.robust_accuracy.dims)
    holds = strong.assign(robust_accuracy=planted)
    assert "stage 2 is ahead of stage 0 under every strong attack;" in str(answer({"strong": holds}).sentence[0].values)
    weak = strong.assign(robust_accuracy=planted.where(planted.attack == "fgsm", 1 - planted))
    told = str(answer({"strong": weak}).sentence[0].values)
    assert told.startswith("stage 2 is ahead of stage 0 under FGSM, behind stage 0 under FGSM in float64, ")
    crossing = of(answer({"strong": holds}), "Q2")["pgd-margin: crossing of stages 0 and 2 (2 of 2 groups)"]
    assert crossing == pytest.approx(0.012, abs=1e-6)


def test_how_near_the_accuracy_of_a_control_is_stands_beside_it(measured):
    answers = answer({"controls": measured["controls"]})
    found, told = of(answers, "Q1"), str(answers.sentence[0].values)
    gap = found["accuracy: stage 2 minus networks with noise on their weights"]
    side = "less" if gap > 0 else "more"
    assert f"networks with noise on their weights ({abs(gap):.1f} points {side} accurate)" in told
    assert "equal accuracy" not in told


def test_only_what_was_measured_is_answered(measured):
    assert answer({"repair": measured["repair"], "merge": measured["mergers"]}).asked.values.tolist() == ["Q5"]


def test_few_training_images_of_other_recipes_are_told(measured):
    asked = measured["recipes"].assign_attrs(parameters='{"recipe_images": 10000, "width_images": 4000}')
    told = "trained on 10,000 images, for other widths on 4,000: the tree is"
    assert str(answer({"recipes": asked}).sentence[0].values).startswith(told)
    assert str(answer({"recipes": measured["recipes"]}).sentence[0].values).startswith("the tree is")
