import pytest

from hrebasin.files import project_root
from hrebasin.study.command import main
from hrebasin.study.running.costs import IMAGES as IMAGES_OF
from hrebasin.study.running.costs import MACHINES, Machine, Work, hours, table, work
from hrebasin.study.settings import Setting, load_setting
from hrebasin.study.stages import NOTEBOOKS

IMAGES = {"train": 50_000, "test": 10_000}


@pytest.fixture(scope="module")
def paper():
    return load_setting(project_root() / "config" / "paper.yaml")


def test_training_operations_by_hand(paper):
    # 3072-512-512-512-256-10; forward and weight gradients of all layers, input gradients of all but the first
    first, rest = 3072 * 512, 2 * 512 * 512 + 512 * 256 + 256 * 10
    networks = 1600 + 8 * 10  # and eight penalties on the first leaf of ten groups
    operations = networks * 50 * 50_000 * 2 * (2 * first + 3 * rest)
    evaluation = networks * 10_000 * 2 * (first + rest)
    assert work(paper, n_images=IMAGES)["train"].products == pytest.approx(operations + evaluation)


def test_cost_grows_with_what_is_asked_for(paper):
    base = work(paper, n_images=IMAGES)
    for changes, factor in (({"n_groups": 200, "regularised_groups": 20}, 2), ({"epochs": 25}, 0.5)):
        other = work(Setting(**paper.model_dump() | changes), n_images=IMAGES)
        assert other["train"].products == pytest.approx(factor * base["train"].products, rel=0.01)
    other = work(Setting(**paper.model_dump() | {"attacked_images": 2000}), n_images=IMAGES)
    assert {stage for stage in base if other[stage] != base[stage]} == {"attack", "regularity"}


def test_hours_follow_from_rates():
    machine = Machine("test", {"float32": 1e9, "bfloat16": 2e9}, 1e8, 1e6, 10)
    shares = 0.75 * 3600  # of training, in an hour
    stages = {"train": Work(products=2e9 * shares, solves=36_000)}
    assert hours(stages, machine, "bfloat16")["train"] == pytest.approx(1 + 1)
    assert hours(stages, machine, "float32")["train"] == pytest.approx(2 + 1)
    assert hours({"train": Work(bytes=3.6e9)}, machine, "float32")["train"] == pytest.approx(1)


def test_the_table_has_every_stage_and_machine_and_other_images_cost_otherwise(paper, capsys):
    text = table(paper)
    assert all(name in text for name in (*(machine.name for machine in MACHINES), *NOTEBOOKS.values()))
    assert main(["costs", "paper"]) == 0
    assert text in capsys.readouterr().out
    fashion = Setting(**paper.model_dump() | {"dataset": "fashion-mnist"})
    n_images, image_size = IMAGES_OF["fashion-mnist"]
    assert table(fashion) == table(fashion, n_images=n_images)
    assert work(fashion, n_images=n_images, image_size=image_size)["train"] != work(fashion, n_images=n_images)["train"]
    assert main(["costs", "convolutional"]) == 2
    assert "costs are known for MLPs alone, and the setting's networks are convolutional" in capsys.readouterr().err
