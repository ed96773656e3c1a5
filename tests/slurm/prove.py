"""The workflow on a real Slurm: a job killed midway, the same command again, the same results as without Slurm.

python tests/slurm/prove.py

Needs slurm-wlm and munge and installs nothing. The daemons run on loopback, with all files in a temporary folder, and
whatever this script starts it stops, also when it fails or is interrupted. 20 minutes on 2 busy cores.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xarray as xr
import yaml
from daemons import CPUS, ONE_NODE, slurm
from projects import copy_project

from hrebasin.study.stages import STAGES

PATIENCE = 1800  # seconds


@dataclass(frozen=True)
class Cluster:
    """A copy of the project and the environment in which it reaches Slurm."""

    project: Path
    environment: dict[str, str]

    def start(self, *options: str, slurm: bool = True, more: list[str] = ONE_NODE) -> subprocess.Popen:
        """The workflow in a session of its own."""
        where = ["--workflow-profile", "config/slurm"] if slurm else ["--cores", "1"]
        command = ["-m", "hrebasin.study.command", "run", *where, *options, *(["--", *more] if slurm else [])]
        print(f"\n$ python {' '.join(command)}", flush=True)
        return subprocess.Popen(
            [sys.executable, *command], cwd=self.project, env=self.environment, start_new_session=True
        )

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return run.stdout

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING") -> dict[str, str]:
        """Number and comment, which names rule and shard, of the jobs in these states."""
        lines = self.ask("squeue", "--me", "--noheader", f"--states={states}", "--format=%i %k").splitlines()
        return dict(line.split() for line in lines)

    def job(self, comment: str) -> str:
        """The number of a job once it runs."""
        found = wait_for(comment, lambda: [n for n, text in self.jobs("RUNNING").items() if text.startswith(comment)])
        return found[0]


def wait_for(what: str, ready: Callable[[], object]):
    """What ``ready`` gives once it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE} s in vain: {what}")
        time.sleep(0.2)
    return found


def check(statement: str, holds: bool) -> None:
    """Say what was shown, or fail."""
    if not holds:
        raise AssertionError(f"not so: {statement}")
    print(f"ok: {statement}", flush=True)


def results(run: Path) -> dict[str, tuple[int, int]]:
    """Every result of a run, with the number and time of its file: a result that was made again has others."""
    found = {}
    for path in run.rglob("[!.]*"):
        name = path.relative_to(run)
        if path.is_file() and name.parts[0] not in ("logs", "checkpoints"):
            found[str(name)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def a_killed_job_is_all_that_is_run_again(cluster: Cluster) -> None:
    """Cancel an attack that is at work; the others finish, and the same command runs what is missing."""
    run = cluster.project / "data" / "runs" / "tiny"
    workflow = cluster.start("setting=tiny")
    number = cluster.job("rule_attack_wildcards_001")
    log = run / "logs" / "rule_attack" / "001" / f"{number}.log"
    wait_for("the attack's notebook at work", lambda: list((run / "notebooks").glob(".03_attack-001-*")))
    cluster.ask("scancel", number)
    check("the command fails when one of its jobs is cancelled", workflow.wait(PATIENCE) == 1)
    check(f"the log of the cancelled job is kept, {log.relative_to(cluster.project)}", log.is_file())
    before, jobs = results(run), cluster.jobs("all")
    check("all other jobs have finished", len(jobs) == 10 and "attack/shard-001.nc" not in before)

    check("the same command completes", cluster.start("setting=tiny").wait(PATIENCE) == 0)
    again = {text for number, text in cluster.jobs("all").items() if number not in jobs}
    check(f"it ran only {sorted(again)}", again == {"rule_attack_wildcards_001", "rule_paper"})
    check("no result that was there has been written again", before.items() <= results(run).items())

    before, jobs = results(run), cluster.jobs("all")
    check("once more: it succeeds", cluster.start("setting=tiny").wait(PATIENCE) == 0)
    check("and starts no job", cluster.jobs("all") == jobs and results(run) == before)


def results_are_those_without_slurm(cluster: Cluster) -> None:
    """Every variable of every data set, bit for bit; only times differ."""
    check("the run without Slurm succeeds", cluster.start("setting=tiny", "run=here", slurm=False).wait(PATIENCE) == 0)
    for stage in (*STAGES, "ledger"):
        there, here = (
            xr.load_dataset(cluster.project / "data" / "runs" / run / "results" / f"{stage}.nc", engine="h5netcdf")
            for run in ("tiny", "here")
        )
        xr.testing.assert_equal(there.drop_vars("seconds", errors="ignore"), here.drop_vars("seconds", errors="ignore"))
    check("all data sets equal those of a run without Slurm", True)


def a_stopped_run_takes_its_jobs_along(cluster: Cluster) -> None:
    """Ctrl-C and a closed terminal cancel the jobs, `kill` lets them finish, what `kill -9` leaves behind is named."""
    train, folder = ["--part", "train", "setting=tiny", "run=stopped"], cluster.project / "data" / "runs" / "stopped"

    def stopped_by(event: signal.Signals) -> int:
        workflow = cluster.start(*train)
        cluster.job("rule_train")
        workflow.send_signal(event)
        return workflow.wait(PATIENCE)

    for event in (signal.SIGINT, signal.SIGHUP):
        check(f"{event.name} ends the command", stopped_by(event) == 130)
        wait_for("an empty queue", lambda: not cluster.jobs())
        check("and its jobs", not results(folder))

    stopped_by(signal.SIGKILL)
    check("after kill -9 the same command refuses while jobs are left", cluster.start(*train).wait(PATIENCE) == 2)
    cluster.ask("scancel", *cluster.jobs())
    wait_for("an empty queue", lambda: not cluster.jobs())

    check("kill ends the command", stopped_by(signal.SIGTERM) == 1)
    trained = results(folder)
    check("when the jobs that ran have finished", not cluster.jobs() and "train/shard-000.nc" in trained)
    check("the same command completes", cluster.start(*train).wait(PATIENCE) == 0)
    check("and keeps their results", trained.items() <= results(folder).items())


def jobs_ask_for_what_config_slurm_says(cluster: Cluster) -> None:
    """Empty jobs on a pretended GPU: cores, memory, minutes and GPUs that Slurm was asked for."""
    options = [*ONE_NODE, "--max-threads", str(CPUS)]
    code = cluster.start("setting=tiny", "groups=1", "run=empty", "device=cuda", more=options).wait(PATIENCE)
    check("empty jobs run", code == 0)
    profile = yaml.safe_load((cluster.project / "config" / "slurm" / "config.yaml").read_text())
    rules = (*STAGES, "paper")
    jobs = [
        dict(re.findall(r"(\S+?)=(\S*)", line)) for line in cluster.ask("scontrol", "show", "job", "-o").splitlines()
    ]
    asked = {job["Comment"].split("_")[1]: job for job in jobs if job["WorkDir"] == str(cluster.project)}
    check(f"jobs of {', '.join(asked)} have run", set(asked) == set(rules))
    for rule in rules:
        job, resources = asked[rule], profile["set-resources"][rule]
        minutes = resources["runtime"]
        gpus = int(rule in ("train", "attack"))
        check(
            f"{rule} asked for {job['NumCPUs']} cores, {job['MinMemoryNode']}, {job['TimeLimit']} h and {gpus} GPUs",
            int(job["NumCPUs"]) == profile["set-threads"][rule]
            and job["MinMemoryNode"] == f"{resources['mem_mb']}M"
            and job["TimeLimit"] == f"{minutes // 60:02}:{minutes % 60:02}:00"
            and job.get("TresPerJob", "") == ("gres:gpu:1" if gpus else ""),
        )


def main() -> None:
    """All of it, on daemons that live as long."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm(Path(folder)) as environment:
        cluster = Cluster(copy_project(Path(folder) / "project"), environment)
        a_killed_job_is_all_that_is_run_again(cluster)
        results_are_those_without_slurm(cluster)
        a_stopped_run_takes_its_jobs_along(cluster)
        jobs_ask_for_what_config_slurm_says(Cluster(copy_project(Path(folder) / "empty", empty_jobs=True), environment))


if __name__ == "__main__":
    main()
