"""The workflow on a real Slurm: a job killed midway, the same command again, the same results as without Slurm.

python tests/slurm/prove.py

Needs slurm-wlm and munge and installs nothing. The daemons run on loopback, with all files in a temporary folder, and
whatever this script starts it stops, also when it fails or is interrupted. 20 minutes on 2 busy cores.
"""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xarray as xr
from daemons import ONE_NODE, slurm
from projects import copy_project

from hrebasin.study.stages import STAGES

PATIENCE = 1800  # seconds


class Cluster:
    """A copy of the project and the environment in which it reaches Slurm."""

    def __init__(self, project: Path, environment: dict[str, str]):
        self.project, self.environment, self.runs = project, environment, project / "data" / "runs"

    def start(self, *options: str, slurm: bool = True) -> subprocess.Popen:
        """The workflow in a session of its own."""
        where = ["--workflow-profile", "config/slurm"] if slurm else ["--cores", "1"]
        command = ["-m", "hrebasin.study.command", "run", *where, *options, *(["--", *ONE_NODE] if slurm else [])]
        print(f"\n$ python {' '.join(command)}", flush=True)
        how = {"cwd": self.project, "env": self.environment}
        return subprocess.Popen([sys.executable, *command], start_new_session=True, **how)

    def finish(self, *options: str, slurm: bool = True) -> int:
        """Its exit code."""
        return self.start(*options, slurm=slurm).wait(PATIENCE)

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING") -> dict[str, str]:
        """Number and comment, which names rule and shard, of the jobs in these states."""
        lines = self.ask("squeue", "--me", "--noheader", f"--states={states}", "--format=%i %k").splitlines()
        return dict(line.split() for line in lines)

    def job(self, comment: str) -> str:
        """The number of a job once it runs."""
        return wait_for(lambda: [n for n, text in self.jobs("RUNNING").items() if text.startswith(comment)])[0]


def wait_for(ready):
    """What ``ready`` gives once it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE} s in vain")
        time.sleep(0.2)
    return found


def check(statement: str, holds: bool) -> None:
    """Say what was shown, or fail."""
    if not holds:
        raise AssertionError(f"not so: {statement}")
    print(f"ok: {statement}", flush=True)


def results(run: Path) -> dict[str, tuple[int, int]]:
    """Every result of a run, with the number and time of its file: a result that was made again has others."""
    files = {path.relative_to(run): path.stat() for path in run.rglob("[!.]*") if path.is_file()}
    kept = {name: stat for name, stat in files.items() if name.parts[0] not in ("logs", "checkpoints")}
    return {str(name): (stat.st_ino, stat.st_mtime_ns) for name, stat in kept.items()}


def a_killed_job_is_all_that_is_run_again(cluster: Cluster) -> None:
    """Cancel an attack that is at work; the others finish, and the same command runs what is missing."""
    run, workflow = cluster.runs / "tiny", cluster.start("setting=tiny")
    number = cluster.job("rule_attack_wildcards_001")
    wait_for(lambda: list((run / "notebooks").glob(".03_attack-001-*")))
    cluster.ask("scancel", number)
    check("the command fails when one of its jobs is cancelled", workflow.wait(PATIENCE) == 1)
    check("the log of the cancelled job is kept", (run / "logs" / "rule_attack" / "001" / f"{number}.log").is_file())
    before, jobs = results(run), cluster.jobs("all")
    check("all other jobs have finished", len(jobs) == 10 and "attack/shard-001.nc" not in before)
    check("the same command completes", cluster.finish("setting=tiny") == 0)
    again = {text for number, text in cluster.jobs("all").items() if number not in jobs}
    check(f"it ran only {sorted(again)}", again == {"rule_attack_wildcards_001", "rule_paper"})
    check("no result that was there has been written again", before.items() <= results(run).items())
    before, jobs = results(run), cluster.jobs("all")
    check("once more: it succeeds", cluster.finish("setting=tiny") == 0)
    check("and starts no job", cluster.jobs("all") == jobs and results(run) == before)


def results_are_those_without_slurm(cluster: Cluster) -> None:
    """Every variable of every data set, bit for bit; only times differ."""
    check("the run without Slurm succeeds", cluster.finish("setting=tiny", "run=here", slurm=False) == 0)
    for stage in (*STAGES, "ledger"):
        paths = (cluster.runs / run / "results" / f"{stage}.nc" for run in ("tiny", "here"))
        both = (xr.load_dataset(path, engine="h5netcdf").drop_vars("seconds", errors="ignore") for path in paths)
        xr.testing.assert_equal(*both)
    check("all data sets equal those of a run without Slurm", True)


def a_stopped_run_takes_its_jobs_along(cluster: Cluster) -> None:
    """Ctrl-C and a closed terminal cancel the jobs, `kill` lets them finish, what `kill -9` leaves behind is named."""
    train, folder = ["--part", "train", "setting=tiny", "run=stopped"], cluster.runs / "stopped"

    def stopped_by(event: signal.Signals) -> int:
        workflow = cluster.start(*train)
        cluster.job("rule_train")
        workflow.send_signal(event)
        return workflow.wait(PATIENCE)

    for event in (signal.SIGINT, signal.SIGHUP):
        check(f"{event.name} ends the command", stopped_by(event) == 130)
        wait_for(lambda: not cluster.jobs())
        check("and its jobs", not results(folder))
    stopped_by(signal.SIGKILL)
    check("after kill -9 the same command refuses while jobs are left", cluster.finish(*train) == 2)
    cluster.ask("scancel", *cluster.jobs())
    wait_for(lambda: not cluster.jobs())
    check("kill ends the command", stopped_by(signal.SIGTERM) == 1)
    trained = results(folder)
    check("when the jobs that ran have finished", not cluster.jobs() and "train/shard-000.nc" in trained)
    check("the same command completes", cluster.finish(*train) == 0)
    check("and keeps their results", trained.items() <= results(folder).items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, slurm(Path(name)) as environment:
        cluster = Cluster(copy_project(Path(name) / "project"), environment)
        a_killed_job_is_all_that_is_run_again(cluster)
        results_are_those_without_slurm(cluster)
        a_stopped_run_takes_its_jobs_along(cluster)
