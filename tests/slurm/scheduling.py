"""What planning and scheduling take: the workflow with empty jobs, as a Markdown table.

python tests/slurm/scheduling.py
python tests/slurm/scheduling.py --slurm 10:100     # through the Slurm of `daemons`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from daemons import ONE_NODE, slurm
from projects import copy_project

SIZES = ("1:100", "1:1000", "10:10000", "1:10000")


def seconds(project: Path, options: list[str], environment: dict[str, str] | None) -> float:
    """How long one call of the workflow takes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "hrebasin.workflow", *options]
    with (project / "output.txt").open("w") as output:
        code = subprocess.run(
            command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{(project / 'output.txt').read_text()[-2000:]}")
    return time.perf_counter() - start


def main() -> None:
    """Print one row a size as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="trees a job:trees", help=f"by default {SIZES}")
    parser.add_argument("--slurm", action="store_true", help="through a Slurm on this machine, not locally")
    given = parser.parse_args()
    print("| trees | trees a job | jobs | dry-run, s | run of empty jobs, s | ms a job |\n|---|---|---|---|---|---|")
    for size in given.sizes:
        a_job, trees = map(int, size.split(":"))
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
            environment = stack.enter_context(slurm(folder)) if given.slurm else None
            project = copy_project(folder / "project", empty_jobs=True)
            where = ["--workflow-profile", "config/slurm"] if given.slurm else ["--cores", "2"]
            options = [*where, "profile=tiny", f"groups={trees}", f"groups_per_shard={a_job}"]
            more = ["--", *(ONE_NODE if given.slurm else ["--max-threads", "1"])]
            planned = seconds(project, ["--dry-run", *options, *more], environment)
            run = seconds(project, [*options, *more], environment)
        jobs = 5 * -(-trees // a_job) + 1
        print(f"| {trees:,} | {a_job} | {jobs:,} | {planned:.0f} | {run:.0f} | {1000 * run / jobs:.0f} |", flush=True)


if __name__ == "__main__":
    main()
