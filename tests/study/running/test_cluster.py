import os
import re

import pytest
import yaml
from PIL import Image
from projects import call, copy_project

from hrebasin.files import project_root
from hrebasin.study.command import main
from hrebasin.study.running import cluster, workflow
from hrebasin.study.stages import NOTEBOOKS, PAPER, QUESTIONS

ROOT = project_root()


def test_the_slurm_profile_has_resources_for_every_rule_and_gpus_for_training_and_attacks():
    profile = yaml.safe_load((ROOT / "config" / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert set(profile["set-threads"]) == set(profile["set-resources"]) == {*NOTEBOOKS, "paper", *QUESTIONS, "answers"}
    for rule, resources in profile["set-resources"].items():
        assert {"mem_mb", "runtime"} <= set(resources)
        assert ("gpu" in resources) == (rule in ("merge", "regularity", "ablations", "mergers", "scale", "repair"))
    # options of the workflow, which a profile would take back
    assert not {"cores", "snakefile", "directory", "config", "rerun-triggers", "nolock"} & set(profile)


def test_a_run_on_slurm_is_planned_where_there_is_no_slurm(tmp_path):
    (tmp_path / "bin").mkdir()
    for program in ("bash", "sh", "which"):  # Snakemake's shell, and what the executor looks for Slurm with
        (tmp_path / "bin" / program).symlink_to(f"/usr/bin/{program}")
    options = ["--workflow-profile", "config/slurm", "--cores", "64", "--dry-run", "setting=tiny", "groups=1"]
    show = ["--", "--quiet", "host", "--printshellcmds"]
    commands = {device: [*options, f"device={device}", *show] for device in ("cpu", "cuda")}
    outputs = call(copy_project(tmp_path / "copy"), *commands.values(), PATH=str(tmp_path / "bin"))
    cores = yaml.safe_load((ROOT / "config" / "slurm" / "config.yaml").read_text())["set-threads"]
    for device, output in zip(commands, outputs, strict=True):
        for stage, notebook in NOTEBOOKS.items():
            origin = "--setting tiny" + " --images=[0-9a-f]{64}" * (stage == "train")
            work = rf"{origin} --label '{notebook} 000' --threads {cores[stage]} "
            [gpus] = re.findall(rf"--device {device} --gpus (\d) {work}", output)
            assert int(gpus) == (device == "cuda" and stage in ("train", "attack"))
        assert f"--label '{PAPER}' --threads {cores['paper']} " in output


def test_images_are_there_before_a_job_asks_for_them(tmp_path):
    folder = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("dark", "bright"):
            (folder / split / name).mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(folder / split / name / "1.png")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("executor: kubernetes\n")
    data = tmp_path / "data"
    cluster.prepare(str(tmp_path / "profile"), tmp_path / "run", dataset=str(folder), data=data)
    assert len(list((data / "raw" / "decoded").glob("images-*.npy"))) == 2
    with pytest.raises(ValueError, match="nowhere"):
        cluster.prepare(str(tmp_path / "profile"), tmp_path / "run", dataset="nowhere", data=data)


def test_options_reach_snakemake_with_all_cores_here_and_no_limit_for_a_cluster(monkeypatch, capsys):
    def given(*arguments):
        got = []
        monkeypatch.setattr(workflow, "_snakemake", lambda options: got.extend(options) or 0)
        assert main(["run", "--dry-run", *arguments]) == 0
        return got

    more = ["--jobs", "3", "--set-threads", "train=1"]
    local = given("setting=tiny", "--", *more)
    assert local[local.index("--cores") + 1] == "all"
    assert "--workflow-profile" not in local
    assert local[-4:] == more
    there = given("--workflow-profile", "config/slurm", "setting=tiny")
    assert "--cores" not in there
    assert there[there.index("--workflow-profile") + 1] == "config/slurm"
    assert there[there.index("--slurm-logdir") + 1] == str(ROOT / "data" / "runs" / "tiny" / "logs")
    assert main(["run", "--workflow-profile", "config/pbs", "setting=tiny"]) == 2
    assert "no profile of Snakemake in config/pbs" in capsys.readouterr().err


def test_jobs_that_a_killed_run_has_left_and_a_slurm_that_does_not_answer_are_named(tmp_path, monkeypatch, capsys):
    def queue(*lines, code=0):
        script = ["#!/bin/sh", *(f"echo '{line}'" for line in lines), f"exit {code}"]
        (tmp_path / "squeue").write_text("\n".join(script))
        (tmp_path / "squeue").chmod(0o755)

    monkeypatch.chdir(project := copy_project(tmp_path / "copy"))
    monkeypatch.setattr(workflow, "_snakemake", lambda options: pytest.fail("it started"))
    runs = project / "data" / "runs"
    mine, other = (cluster.job_name(runs / run) for run in ("tiny", "sample"))
    assert mine != other
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", cluster.job_name(runs / "a.b c")), "as the executor wants it"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        queue(f"17 {mine}_0b5e", f"18 {other}_77aa", f"19 {mine}_0b5e", "20 lunch")
        assert main(["run", "--workflow-profile", "config/slurm", "setting=tiny"]) == 2
        assert "scancel 17 19\n" in capsys.readouterr().err
        assert cluster.jobs_in_queue(runs / "cpu") == []
        queue(code=1)
        with pytest.raises(ValueError, match="Slurm does not answer"):
            cluster.jobs_in_queue(tmp_path)
        patch.setenv("PATH", str(tmp_path / "nothing"))
        with pytest.raises(ValueError, match="squeue is not on PATH"):
            cluster.jobs_in_queue(tmp_path)
