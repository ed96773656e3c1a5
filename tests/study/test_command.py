"""The command `hrebasin`, and what make hands on to it."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from hrebasin.files import project_root
from hrebasin.study.command import main

ROOT = project_root()
HEAVY = ("torch", "numpy", "xarray", "matplotlib", "snakemake", "jupyterlab", "papermill", "pydantic", "yaml")
# In place of the command in make's environment: what it was called with
SHOW = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"


def test_the_command_is_at_hand_at_once_and_lists_what_it_does():
    code = f"import sys; from hrebasin.study import command; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    shown = subprocess.run([sys.executable, "-m", "hrebasin.study.command", "--help"], capture_output=True, text=True)
    listed = set(re.findall(r"^    (\w+)  ", shown.stdout, flags=re.MULTILINE))
    assert listed >= {"run", "notebook", "publish", "figures", "verify", "lab", "costs", "settings", "merge"}


def test_what_no_subcommand_takes_is_refused_and_settings_are_checked_by_name(tmp_path, capsys):
    for arguments in (["frob"], ["run", "setting=tiny", "--frob"]):
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2
        assert "usage: hrebasin" in capsys.readouterr().err
    for arguments, message in (
        (["run", "setting=tiny", "--part", "train", "flip=perhaps"], "flip should be a valid boolean, got 'perhaps'"),
        (["run", "setting=tiny", "widths=3"], "['widths'] hold several values: change them in a copy of the setting"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert main(["settings"]) == 0
    assert "paper: 100 trees of 16 on cifar10\n" in capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text((ROOT / "config" / "tiny.yaml").read_text().replace("epochs: 8", "epochs: 0"))
    assert main(["settings", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml: epochs should be greater than or equal to 1, got 0\n" in capsys.readouterr().err


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """``make(target, name=value, ...)``: what the commands of a target are called with."""
    folder = tmp_path_factory.mktemp("make")
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("hrebasin", "uv"):
        (folder / ".venv" / "bin" / name).write_text(SHOW)
        (folder / ".venv" / "bin" / name).chmod(0o755)
    place = folder / ".venv" / "lib" / "python3.11" / "site-packages"
    place.mkdir(parents=True)
    (place / "__editable__.hrebasin-0.1.0.pth").write_text(f"{folder.resolve()}/lib\n", encoding="utf-8")
    (folder / ".venv" / ".complete").touch()

    def call(target, *, environment=None, **given):
        command = ["make", "--silent", target, *(f"{name}={value}" for name, value in given.items())]
        environment = os.environ | (environment or {})
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout.splitlines()[-1])

    call.folder = folder
    return call


def test_an_environment_that_came_with_a_copied_or_moved_checkout_is_built_anew(make, tmp_path):
    home = make.folder
    elsewhere = shutil.copytree(home, tmp_path / "a copy", symlinks=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml", ".venv"):
        (linked / name).symlink_to(home / name)
    for folder, built in ((home, False), (elsewhere, True), (linked, False)):
        command = ["make", "--dry-run", "--directory", folder, "paper"]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        assert ("-m venv --clear .venv" in run.stdout) == built, folder
    pth = next(elsewhere.glob(".venv/lib/*/site-packages/*.pth"))
    pth.write_text(f"{elsewhere.resolve()}/lib\n", encoding="utf-8")
    run = subprocess.run([*command[:3], elsewhere, "paper"], capture_output=True, encoding="utf-8", check=True)
    assert "venv --clear" not in run.stdout


def test_the_command_of_another_checkout_is_refused(tmp_path, monkeypatch, capsys):
    other = tmp_path / "lib" / "hrebasin" / "study" / "command.py"
    other.parent.mkdir(parents=True)
    other.touch()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["settings"]) == 2
    assert f"not that of the project here, {tmp_path}/lib/hrebasin" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["it's #2 \\n *", '"b" $HOME $(x) `y` a;b&c|d'])
def test_names_reach_the_command_as_they_were_given(name, make):
    assert make("paper", DATASET=name) == ["run", "setting=sample", f"dataset={name}"]
    assert make("paper", environment={"DATASET": name}) == ["run", "setting=sample", f"dataset={name}"]
    assert make("bench", DATASET=name) == ["bench", "--dataset", name]
    assert make("publish", RUN=name, IMAGES=name) == ["publish", f"data/runs/{name}", "--images", name]
    given = make("versions", RUN=name, DATASET=name, ORIGINAL=name)
    assert given[1:3] == ["notebooks/07_versions.ipynb", f"data/runs/{name}/notebooks/07_versions.ipynb"]
    assert given[5:] == ["-r", "run_folder", f"data/runs/{name}", "-r", "dataset", name, "-r", "other", name]


def test_everything_that_make_takes_reaches_the_command(make):
    given = {"SETTING": "plain", "RUN": "again", "DEVICE": "cuda:1", "GROUPS": 4, "FIRST": 2, "PRECISION": "bfloat16"}
    where = {"EXECUTOR": "slurm", "CORES": 3, "SNAKEMAKE": "--jobs 20"}
    values = ["setting=plain", "run=again", "device=cuda:1", "groups=4", "first=2", "precision=bfloat16"]
    first = ["run", "--workflow-profile", "config/slurm", "--cores", "3"]
    assert make("paper", **given, **where, PART="train", SET="epochs=3 batch_size=64") == [
        *first, "--part", "train", *values, "epochs=3", "batch_size=64", "--", "--jobs", "20",
    ]  # fmt: skip
    asked = ["run", "--part", "questions", *values, "ask=controls strong"]
    assert make("questions", **given, ASK="controls strong") == asked
    assert make("dry-run", **given) == ["run", "--dry-run", *values]
    assert make("publish", **given, ADD=1) == ["publish", "data/runs/again", "--images", "", "--add"]
