import json
import shlex
from types import SimpleNamespace

import pytest
from projects import call, copy_project, counts
from snakemake.cli import parse_config
from snakemake.utils import format as snakemake_format

from hrebasin.files import project_root
from hrebasin.study.command import main
from hrebasin.study.running.command_line import run_values
from hrebasin.study.running.notebook_runner import declared_parameters
from hrebasin.study.running.plan import PARTS, Plan
from hrebasin.study.running.workflow import _check_records, _remove_checkpoints, snakemake_options
from hrebasin.study.settings import load_setting
from hrebasin.study.stages import ANSWERS, NOTEBOOKS, PAPER, QUESTIONS, READS

ROOT = project_root()
SETTINGS = ("tiny", "paper")
RULES = {*NOTEBOOKS, "paper", *QUESTIONS, "answers"}


NEEDS = {"train": set(), "merge": {"train"}, "attack": {"train", "merge"}, "measure": {"train", "merge"}}
NEEDS |= {"publish": set(NOTEBOOKS), "questions": set()}
LAST = "data/runs/many/train/shard-1000.nc"
PLANNED = {setting: ["--cores", "2", "--dry-run", f"setting={setting}"] for setting in SETTINGS}
PLANNED |= {part: ["--cores", "2", "--dry-run", "--part", part, "setting=tiny"] for part in PARTS}
PLANNED |= {"other recipes": ["--dry-run", "--part", "questions", "setting=tiny", "run=none", "ask=recipes"]}
PLANNED |= {"more than a thousand": ["--dry-run", "setting=tiny", "run=many", "groups=1001", "--", LAST]}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Rules and numbers of their jobs, of each of `PLANNED`, where the tiny setting's networks alone are there."""
    project = copy_project(tmp_path_factory.mktemp("workflow") / "copy")
    folder = project / "data" / "runs" / "tiny"
    for shard in range(2):
        for name in ("weights/unmerged-{}.safetensors", "weights/merged-{}.safetensors", "merge/shard-{}.nc"):
            path = folder / name.format(f"{shard:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    counted = map(counts, call(project, *PLANNED.values()))
    return {
        name: {rule: int(jobs[rule]) for rule in RULES & set(jobs)} for name, jobs in zip(PLANNED, counted, strict=True)
    }


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_workflow_plans_one_job_a_stage_and_shard(setting, planned):
    shards = len(load_setting(ROOT / "config" / f"{setting}.yaml").shards)
    assert planned[setting] == dict.fromkeys(NOTEBOOKS, shards) | {"paper": 1}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_its_stages_and_what_they_need(part, planned):
    assert set(planned[part]) == NEEDS[part] | set(PARTS[part])


def test_other_recipes_alone_need_no_networks(planned):
    assert planned["other recipes"] == {"recipes": 2, "answers": 1}


def test_a_shard_s_neighbour_stays_the_same_when_shards_are_added():
    three = Plan.from_config({"setting": "plain", "groups": 3})
    assert [three.neighbour(shard) for shard in (*three.shards, None)] == [1, 0, 1, -1]
    assert Plan.from_config({"setting": "plain", "groups": 1}).neighbour(0) == -1


def test_more_than_a_thousand_shards_have_names(planned):
    assert planned["more than a thousand"] == {"train": 1}


@pytest.mark.parametrize("digest", ["6910328c", ""])
def test_the_digest_of_images_is_one_argument_although_there_may_be_none(digest):
    params = SimpleNamespace(values='{"a": 1}', place="{}", images=digest)
    given = {"output": SimpleNamespace(notebook="a b.ipynb"), "wildcards": SimpleNamespace(shard="000"), "threads": 1}
    command = Plan.from_config({"setting": "tiny"}).shell("25_recipes", images=True)
    words = shlex.split(snakemake_format(command, params=params, **given))
    assert f"--images={digest}" in words
    assert words[words.index("--setting") + 1] == "tiny"
    assert words[words.index("--label") + 1] == "25_recipes 000"
    assert {"a b.ipynb", '{"a": 1}'} < set(words)


def test_questions_without_networks_name_what_is_missing(tmp_path, monkeypatch, capsys):
    for name in ("config", "notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--dry-run", "--part", "questions", "setting=tiny"]) == 2
    assert "data/runs/tiny/weights/unmerged-000.safetensors is not there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["im #2", "y: [z]", "007", "1e3", "null", "\"q'", "$x"])
def test_names_reach_every_process_as_they_were_given(text, tmp_path, monkeypatch):
    for name in ("config", "notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for split in ("train", "test"):
        (tmp_path / text / split).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    run = text if text.replace("_", "").isalnum() else "tiny"
    values = run_values(["setting=tiny", f"dataset={text}", f"run={run}", "epochs=3", "learning_rate=1e-5"])
    plan = Plan.from_config(values)
    assert plan.setting.dataset == str((tmp_path / text).resolve())
    options = snakemake_options(plan, values)
    entries = [option for option in options[options.index("--config") + 1 :] if "=" in option]
    assert Plan.from_config(parse_config(entries)) == plan
    assert plan.run == f"data/runs/{run}"
    assert (plan.setting.epochs, plan.setting.learning_rate) == (3, 1e-5)


def test_further_groups_are_further_shards():
    plan = Plan.from_config({"setting": "tiny", "first": 1, "groups": 3, "ask": "strong recipes"})
    assert plan.shards == {1: [1], 2: [2], 3: [3]}
    values = json.loads(plan.parameters(ANSWERS, None))
    assert values["questions"] == ["strong", "recipes"]
    assert (values["shards"], values["recipe_shards"]) == ([1, 2, 3], [1])  # of the first two groups
    later = Plan.from_config({"setting": "tiny", "first": 2})
    assert "recipes" not in later.questions


def test_every_stage_is_in_one_part():
    read = {stage for stages in READS.values() for stage in stages}  # by questions, and measured for them if need be
    parts = [rule for name, rules in PARTS.items() for rule in rules if name != "questions" or rule not in read]
    assert sorted(parts) == sorted(RULES)


def test_checkpoints_of_others_stay(tmp_path):
    for name in ("shard-000", "shard-001", "shard-002", "recipes-000", "recipes-002"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    plan = Plan.from_config({"setting": "tiny", "ask": "controls,recipes"})
    _remove_checkpoints(plan, tmp_path / "checkpoints", questions=False)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"shard-002", "recipes-000", "recipes-002"}
    _remove_checkpoints(plan, tmp_path / "checkpoints", questions=True)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"shard-002", "recipes-002"}
    _remove_checkpoints(Plan.from_config({"setting": "tiny", "first": 2}), tmp_path / "checkpoints", questions=False)
    (tmp_path / "checkpoints" / "recipes-002").rmdir()
    _remove_checkpoints(plan, tmp_path / "checkpoints", questions=False)
    assert not (tmp_path / "checkpoints").exists()


def test_overrides_reach_the_notebooks(tmp_path):
    folder = tmp_path / "my images"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
    plan = Plan.from_config({"setting": "tiny", "dataset": str(folder), "device": "cuda:1", "groups": 3, "epochs": 2})
    values = json.loads(plan.parameters(NOTEBOOKS["train"], 2))
    assert values["dataset"] == str(folder)
    assert values["device"] == "cuda:1"
    assert values["groups"] == [2]
    assert values["epochs"] == 2
    assert values["run_folder"] == "data/runs/tiny"
    assert Plan.from_config({"setting": "tiny", "run": "again"}).run == "data/runs/again"


@pytest.mark.parametrize("notebook", [*NOTEBOOKS.values(), PAPER, *QUESTIONS.values(), ANSWERS])
def test_a_notebook_gets_what_it_declares(notebook):
    shard = None if notebook in (PAPER, ANSWERS) else 0
    values = json.loads(Plan.from_config({"setting": "tiny"}).parameters(notebook, shard))
    assert set(values) == set(declared_parameters(ROOT / "notebooks" / f"{notebook}.ipynb"))


def test_a_place_where_snakemake_can_keep_no_records_is_refused_by_name(tmp_path):
    folder = tmp_path / ".snakemake"
    _check_records(folder)
    folder.rmdir()
    folder.touch()
    with pytest.raises(OSError, match="Snakemake keeps its records in .*/.snakemake, which cannot be written to"):
        _check_records(folder)
