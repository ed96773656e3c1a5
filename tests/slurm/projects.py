"""A copy of the project without results, and the workflow's command in it."""

import os
import subprocess
import sys
from pathlib import Path

from hrebasin.files import project_root

# Before the Snakefile: the same workflow with jobs that do nothing. The last has to leave a ledger.
EMPTY = """\
from hrebasin.study.running.workflow import Plan

last = "mkdir -p {{output.figures}} && touch {{output}} && cp {ledger} {{output.results[5]}}"
Plan.shell = lambda plan, notebook: last if notebook == "06_paper" else "touch {{output}}"
"""


def copy_project(folder: Path, *, empty_jobs: bool = False) -> Path:
    """Links to what the workflow reads; its results then lie in ``folder``."""
    (folder / "data").mkdir(parents=True)
    for name in ("config", "notebooks", "pyproject.toml", "data/cifar10-sample.nc"):
        (folder / name).symlink_to(project_root() / name)
    head = EMPTY.format(ledger=project_root() / "data" / "published" / "ledger.nc") if empty_jobs else ""
    (folder / "Snakefile").write_text(head + (project_root() / "Snakefile").read_text())
    return folder


def call(project, *options, **environment):
    """Run the command in a copy of the project; what it printed."""
    command = [sys.executable, "-m", "hrebasin.study.running.workflow", *options]
    environment = {**os.environ, **environment}
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def counts(output):
    """Rule and number of jobs, from the table that Snakemake prints."""
    return dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
