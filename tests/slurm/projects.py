"""A copy of the project without results, and the workflow's command in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from hrebasin.files import project_root

# Before the Snakefile: the same workflow with jobs that do nothing. The last has to leave a ledger.
EMPTY = """\
from hrebasin.study.running.plan import Plan

last = "mkdir -p {{output.figures}} && touch {{output}} && cp {ledger} {{output.results[5]}}"
Plan.shell = lambda plan, notebook, **_: last if notebook == "06_paper" else "touch {{output}}"
"""


def copy_project(folder: Path, *, empty_jobs: bool = False) -> Path:
    """Links to what the workflow reads; its results then lie in ``folder``."""
    (folder / "data").mkdir(parents=True)
    for name in ("config", "notebooks", "pyproject.toml", "data/cifar10-sample.nc"):
        (folder / name).symlink_to(project_root() / name)
    head = EMPTY.format(ledger=project_root() / "data" / "published" / "plain" / "ledger.nc") if empty_jobs else ""
    (folder / "Snakefile").write_text(head + (project_root() / "Snakefile").read_text())
    return folder


# Several commands in one process, since Snakemake is slow to import
COMMANDS = """
import json, sys
from hrebasin.study.command import main

for arguments in json.loads(sys.argv[1]):
    print("COMMAND", flush=True)
    assert main(["run", *arguments]) == 0, arguments
"""


def call(project, *commands, **environment):
    """Run commands in a copy of the project, each a list of what follows ``hrebasin run``; what each printed."""
    run = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)], cwd=project, env={**os.environ, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    return run.stdout.split("COMMAND\n")[1:]


def counts(output):
    """Rule and number of jobs, from the table that Snakemake prints."""
    return dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
