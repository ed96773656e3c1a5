import pytest

from hrebasin.files import project_root
from hrebasin.study.command import main
from hrebasin.study.running.costs import MACHINES, Machine, Work, hours, table, work
from hrebasin.study.settings import Setting, load_setting
from hrebasin.study.stages import NOTEBOOKS


@pytest.fixture(scope="module")
def paper():
    return load_setting(project_root() / "config" / "paper.yaml")


@pytest.mark.parametrize(("dataset", "n_train", "inputs"), [("cifar10", 50_000, 3072), ("fashion-mnist", 60_000, 784)])
def test_training_operations_by_hand(paper, dataset, n_train, inputs):
    # inputs-512-512-512-256-10; forward and weight gradients of all layers, input gradients of all but the first
    first, rest = inputs * 512, 2 * 512 * 512 + 512 * 256 + 256 * 10
    networks = 1600 + 8 * 10  # and eight penalties on the first leaf of ten groups
    operations = networks * 50 * n_train * 2 * (2 * first + 3 * rest)
    evaluation = networks * 10_000 * 2 * (first + rest)
    setting = Setting(**paper.model_dump() | {"dataset": dataset})
    assert work(setting)["train"].products == pytest.approx(operations + evaluation)


def test_cost_grows_with_what_is_asked_for(paper):
    base = work(paper)
    for changes, factor in (({"n_groups": 200, "regularised_groups": 20}, 2), ({"epochs": 25}, 0.5)):
        other = work(Setting(**paper.model_dump() | changes))
        assert other["train"].products == pytest.approx(factor * base["train"].products, rel=0.01)
    other = work(Setting(**paper.model_dump() | {"attacked_images": 2000}))
    assert {stage for stage in base if other[stage] != base[stage]} == {"attack", "regularity"}


def test_hours_follow_from_rates():
    machine = Machine("test", {"float32": 1e9, "bfloat16": 2e9}, 1e8, 1e6, 10)
    shares = 0.75 * 3600  # of training, in an hour
    stages = {"train": Work(products=2e9 * shares, solves=36_000)}
    assert hours(stages, machine, "bfloat16")["train"] == pytest.approx(1 + 1)
    assert hours(stages, machine, "float32")["train"] == pytest.approx(2 + 1)
    assert hours({"train": Work(bytes=3.6e9)}, machine, "float32")["train"] == pytest.approx(1)


def test_the_table_has_every_stage_and_machine(paper, capsys):
    text = table(paper)
    assert all(name in text for name in (*(machine.name for machine in MACHINES), *NOTEBOOKS.values()))
    assert main(["costs", "paper"]) == 0
    assert text in capsys.readouterr().out
    assert main(["costs", "convolutional"]) == 2
    assert "costs are known for MLPs alone, and the setting's networks are convolutional" in capsys.readouterr().err
