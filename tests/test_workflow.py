import json

import pytest
from projects import call, copy_project, counts

from hrebasin.configuration import load_profile
from hrebasin.files import project_root
from hrebasin.layout import NOTEBOOKS, PAPER
from hrebasin.notebook import declared_parameters
from hrebasin.workflow import PARTS, Plan

ROOT = project_root()
PROFILES = sorted(path.stem for path in (ROOT / "config").glob("*.yaml"))
RULES = {*NOTEBOOKS, "paper"}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_workflow_plans_one_job_a_stage_and_shard(profile, tmp_path):
    planned = counts(call(copy_project(tmp_path / "copy"), "--cores", "2", "--dry-run", f"profile={profile}"))
    shards = len(load_profile(ROOT / "config" / f"{profile}.yaml").shards)
    assert {stage: planned[stage] for stage in NOTEBOOKS} == {stage: str(shards) for stage in NOTEBOOKS}
    assert planned["paper"] == "1"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_its_stages_and_what_they_need(part, tmp_path):
    planned = counts(call(copy_project(tmp_path / "copy"), "--cores", "2", "--dry-run", "--part", part, "profile=tiny"))
    needs = {"train": set(), "merge": {"train"}, "attack": {"train", "merge"}, "measure": {"train", "merge"}}
    needs["publish"] = set(NOTEBOOKS)
    assert set(planned) & RULES == needs[part] | set(PARTS[part])


def test_more_than_a_thousand_shards_have_names(tmp_path):
    last = "data/runs/tiny/train/shard-1000.nc"
    output = call(copy_project(tmp_path / "copy"), "--dry-run", "profile=tiny", "groups=1001", "--", last)
    assert counts(output)["train"] == "1"


def test_every_stage_is_in_one_part():
    assert sorted(rule for rules in PARTS.values() for rule in rules) == sorted(RULES)


def test_overrides_reach_the_notebooks(tmp_path):
    folder = tmp_path / "my images"
    folder.mkdir()
    plan = Plan.from_config({"profile": "tiny", "dataset": str(folder), "device": "cuda:1", "groups": 3, "epochs": 2})
    values = json.loads(plan.parameters(NOTEBOOKS["train"], 2))
    assert values["dataset"] == str(folder)
    assert values["device"] == "cuda:1"
    assert values["groups"] == [2]
    assert values["epochs"] == 2
    assert values["run_folder"] == "data/runs/tiny"
    assert Plan.from_config({"profile": "tiny", "run": "again"}).run == "data/runs/again"


@pytest.mark.parametrize("notebook", [*NOTEBOOKS.values(), PAPER])
def test_a_notebook_gets_what_it_declares(notebook):
    values = json.loads(Plan.from_config({"profile": "tiny"}).parameters(notebook, None if notebook == PAPER else 0))
    assert set(values) == set(declared_parameters(ROOT / "notebooks" / f"{notebook}.ipynb"))
