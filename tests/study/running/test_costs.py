from dataclasses import replace

import pytest

from hrebasin.files import project_root
from hrebasin.study.running.costs import (
    MACHINES,
    TWO_CORES,
    Machine,
    Work,
    gpu_memory,
    hours,
    main,
    memory_table,
    table,
    work,
)
from hrebasin.study.settings import load_profile
from hrebasin.study.stages import STAGES

CONFIG = project_root() / "config"
IMAGES = {"train": 50_000, "test": 10_000}


@pytest.fixture(scope="module")
def paper():
    return load_profile(CONFIG / "paper.yaml")


def test_training_operations_by_hand(paper):
    # 3072-512-512-256-10; forward and weight gradients of all layers, input gradients of all but the first
    first, rest = 3072 * 512, 512 * 512 + 512 * 256 + 256 * 10
    networks = 1600 + 8 * 10  # and eight penalties on the first leaf of ten groups
    operations = networks * 25 * 50_000 * 2 * (2 * first + 3 * rest)
    evaluation = networks * 10_000 * 2 * (first + rest)
    assert work(paper, n_images=IMAGES)["train"].products == pytest.approx(operations + evaluation)


def test_cost_grows_with_what_is_asked_for(paper):
    base = work(paper, n_images=IMAGES)
    for changes, stages in (
        ({"n_groups": 200, "regularised_groups": 20}, set(base)),
        ({"epochs": 50}, {"train"}),
        ({"attacked_images": 2000}, {"attack", "regularity"}),
        ({"merge_many_sizes": [2, 4, 8]}, {"merge", "attack", "regularity"}),
        ({"radii": [0.1]}, {"regularity"}),
        ({"n_lambdas": 5}, {"ablations"}),
    ):
        changed = work(replace(paper, **changes), n_images=IMAGES)
        assert {stage for stage in base if changed[stage] != base[stage]} == stages, changes
    twice = work(replace(paper, n_groups=200, regularised_groups=20), n_images=IMAGES)
    assert twice["train"].products == pytest.approx(2 * base["train"].products)


def test_hours_follow_from_rates():
    machine = Machine("test", {"float32": 1e9, "bfloat16": 2e9}, 1e8, 1e6, 10)
    shares = 0.75 * 3600  # training on a CPU, in an hour
    stages = {"train": Work(products=2e9 * shares, solves=36_000)}
    assert hours(stages, machine, "bfloat16")["train"] == pytest.approx(1 + 1)
    assert hours(stages, machine, "float32")["train"] == pytest.approx(2 + 1)
    assert hours({"train": Work(bytes=3.6e9)}, machine, "float32")["train"] == pytest.approx(1)


def test_the_table_has_every_stage_and_machine(paper, capsys):
    text = table(paper)
    assert all(machine.name in text for machine in MACHINES)
    assert all(
        name in text for name in ("`01_train`", "`02_merge`", "`03_attack`", "`04_regularity`", "`05_ablations`")
    )
    assert main(["paper"]) == 0
    assert text in capsys.readouterr().out
    assert main(["papr"]) == 1
    assert "no profile 'papr'" in capsys.readouterr().err


def test_two_cores_are_the_slowest(paper):
    stages = work(paper, n_images=IMAGES)
    slowest = hours(stages, TWO_CORES, paper.precision)
    for machine in MACHINES[1:]:
        assert all(time < slowest[stage] for stage, time in hours(stages, machine, paper.precision).items())


def test_a_small_card_takes_less_at_once(paper):
    large, small = gpu_memory(paper, 80e9), gpu_memory(replace(paper, groups_per_shard=1), 8e9)
    assert set(large) == set(small) == set(STAGES)
    for stage in STAGES:
        assert small[stage][1] <= large[stage][1]
        assert small[stage][1] < 8e9, f"{stage} does not fit"
        assert large[stage][1] < 80e9, f"{stage} does not fit"
    assert large["train"][0] == "128 networks"
    assert int(small["train"][0].split()[0]) < 128
    assert memory_table(paper).count("\n") == 2 + len(STAGES)
