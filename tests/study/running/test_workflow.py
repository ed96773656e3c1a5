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
from hrebasin.study.running.plan import PARTS, PLACE, TREE_BYTES, Plan
from hrebasin.study.running.workflow import _check_records, _remove_checkpoints, snakemake_options
from hrebasin.study.settings import load_setting
from hrebasin.study.stages import ANSWERS, NOTEBOOKS, PAPER, QUESTIONS, READS

ROOT = project_root()
RULES = {*NOTEBOOKS, "paper", *QUESTIONS, "answers"}
NEEDS = {"train": set(), "merge": {"train"}, "attack": {"train", "merge"}, "measure": {"train", "merge"}}
NEEDS |= {"publish": set(NOTEBOOKS), "questions": set()}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project, in which commands are given."""
    folder = copy_project(tmp_path / "copy")
    monkeypatch.chdir(folder)
    return folder


def test_dry_runs_plan_the_jobs_of_settings_and_parts(project):
    """Where the networks of the tiny setting alone are there."""
    for shard in range(2):
        for name in ("weights/unmerged-{}.safetensors", "weights/merged-{}.safetensors", "merge/shard-{}.nc"):
            path = project / "data" / "runs" / "tiny" / name.format(f"{shard:03d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    last = "data/runs/many/train/shard-1000.nc"
    dry = ["--cores", "2", "--dry-run"]
    commands = [[*dry, f"setting={setting}"] for setting in ("tiny", "paper")]
    commands += [[*dry, "--part", part, "setting=tiny"] for part in PARTS]
    commands += [[*dry, "--part", "questions", "setting=tiny", "run=none", "ask=recipes"]]
    commands += [[*dry, "setting=tiny", "run=many", "groups=1001", "--", last]]
    counted = map(counts, call(project, *commands))
    tiny, paper, *parts, recipes, many = [{rule: int(jobs[rule]) for rule in RULES & set(jobs)} for jobs in counted]
    for setting, planned in (("tiny", tiny), ("paper", paper)):
        shards = len(load_setting(ROOT / "config" / f"{setting}.yaml").shards)
        assert planned == dict.fromkeys(NOTEBOOKS, shards) | {"paper": 1}
    for (part, stages), planned in zip(PARTS.items(), parts, strict=True):
        assert set(planned) == NEEDS[part] | set(stages)
    assert recipes == {"recipes": 2, "answers": 1}, "which need no networks"
    assert many == {"train": 1}, "more than a thousand shards have names"


def test_further_groups_are_further_shards_and_neighbours_stay():
    plan = Plan.from_config({"setting": "tiny", "first": 1, "groups": 3, "ask": "strong recipes"})
    assert plan.shards == {1: [1], 2: [2], 3: [3]}
    assert json.loads(plan.parameters(NOTEBOOKS["train"], 2))["groups"] == [2]
    values = json.loads(plan.parameters(ANSWERS, None))
    assert values["questions"] == ["strong", "recipes"]
    assert (values["shards"], values["recipe_shards"]) == ([1, 2, 3], [1])  # of the first two groups
    assert "recipes" not in Plan.from_config({"setting": "tiny", "first": 2}).questions
    three = Plan.from_config({"setting": "plain", "groups": 3})
    assert [three.neighbour(shard) for shard in (*three.shards, None)] == [1, 0, 1, -1]
    assert Plan.from_config({"setting": "plain", "groups": 1}).neighbour(0) == -1


@pytest.mark.parametrize(("trees_that_fit", "at_once"), [(0.5, 1), (3.5, 3), (100, 8)])
def test_trees_train_side_by_side_as_memory_allows(trees_that_fit, at_once, monkeypatch):
    free = SimpleNamespace(available=trees_that_fit * TREE_BYTES)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    assert Plan.from_config({"setting": "plain", "groups": 8}).trees_at_once == at_once


@pytest.mark.parametrize("digest", ["6910328c", ""])
def test_the_digest_of_images_is_one_argument_although_there_may_be_none(digest):
    params = SimpleNamespace(values='{"a": 1}', images=digest)
    given = {
        "resources": SimpleNamespace(gpu=0),
        "output": SimpleNamespace(notebook="a b.ipynb"),
        "wildcards": SimpleNamespace(shard="000"),
        "threads": 1,
    }
    command = Plan.from_config({"setting": "tiny"}).shell("25_recipes", images=True)
    words = shlex.split(snakemake_format(command, params=params, **given))
    assert f"--images={digest}" in words
    assert words[words.index("--setting") + 1] == "tiny"
    assert words[words.index("--label") + 1] == "25_recipes 000"
    assert {"a b.ipynb", '{"a": 1}'} < set(words)


def test_questions_without_networks_name_what_is_missing(project, capsys):
    assert main(["run", "--dry-run", "--part", "questions", "setting=tiny"]) == 2
    assert "data/runs/tiny/weights/unmerged-000.safetensors is not there" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["im #2", "y: [z]", "007", "1e3", "null", "\"q'", "$x"])
def test_names_reach_every_process_as_they_were_given(text, project):
    for split in ("train", "test"):
        (project / text / split).mkdir(parents=True)
    run = text if text.replace("_", "").isalnum() else "tiny"
    values = run_values(["setting=tiny", f"dataset={text}", f"run={run}", "epochs=3", "learning_rate=1e-5"])
    plan = Plan.from_config(values)
    assert plan.setting.dataset == str((project / text).resolve())
    options = snakemake_options(plan, values)
    entries = [option for option in options[options.index("--config") + 1 :] if "=" in option]
    assert Plan.from_config(parse_config(entries)) == plan
    assert plan.run == f"data/runs/{run}"
    values = json.loads(plan.parameters(NOTEBOOKS["train"], 1))
    assert (values["dataset"], values["epochs"], values["learning_rate"]) == (plan.setting.dataset, 3, 1e-5)


def test_every_stage_is_in_one_part_and_a_notebook_gets_what_it_declares():
    read = {stage for stages in READS.values() for stage in stages}  # by questions, and measured for them if need be
    parts = [rule for name, rules in PARTS.items() for rule in rules if name != "questions" or rule not in read]
    assert sorted(parts) == sorted(RULES)
    plan = Plan.from_config({"setting": "tiny"})
    for notebook in (*NOTEBOOKS.values(), PAPER, *QUESTIONS.values(), ANSWERS):
        values = json.loads(plan.parameters(notebook, None if notebook in (PAPER, ANSWERS) else 0))
        assert set(values) == set(declared_parameters(ROOT / "notebooks" / f"{notebook}.ipynb")) - set(PLACE), notebook


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


def test_a_place_where_snakemake_can_keep_no_records_is_refused_by_name(tmp_path):
    folder = tmp_path / ".snakemake"
    _check_records(folder)
    folder.rmdir()
    folder.touch()
    with pytest.raises(OSError, match="Snakemake keeps its records in .*/.snakemake, which cannot be written to"):
        _check_records(folder)
