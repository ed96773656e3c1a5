"""What planning and scheduling take: the workflow with empty jobs, as a Markdown table.

python tests/slurm/scheduling.py
python tests/slurm/scheduling.py --slurm 10:100     # through the Slurm of `daemons`
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from daemons import ONE_NODE, slurm
from projects import copy_project

SIZES = ("1:100", "1:1000", "10:10000", "1:10000")


def measure(project: Path, options: list[str], environment: dict[str, str] | None) -> tuple[float, float]:
    """Seconds of processors and of the clock that one call of the workflow takes."""
    command = [sys.executable, "-m", "hrebasin.study.command", "run", *options]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (project / "output.txt").open("w") as output:
        run = subprocess.run(
            command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if run.returncode:
        output = (project / "output.txt").read_text()[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}:\n{output}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return processors, time.perf_counter() - start


def row(a_job: int, trees: int, *, on_slurm: bool) -> str:
    """One row of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        environment = stack.enter_context(slurm(folder)) if on_slurm else None
        project = copy_project(folder / "project", empty_jobs=True)
        where = ["--workflow-profile", "config/slurm"] if on_slurm else ["--cores", "2"]
        options = [*where, "setting=tiny", f"groups={trees}", f"groups_per_shard={a_job}"]
        more = ["--", *(ONE_NODE if on_slurm else ["--max-threads", "1"])]
        planned, _ = measure(project, ["--dry-run", *options, *more], environment)
        processors, clock = measure(project, [*options, *more], environment)
    jobs = 5 * -(-trees // a_job) + 1
    a_job_ms = 1000 * processors / jobs
    return f"| {trees:,} | {a_job} | {jobs:,} | {planned:.0f} | {processors:.0f} | {a_job_ms:.0f} | {clock:.0f} |"


def main() -> None:
    """Print each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=SIZES, metavar="trees a job:trees", help=f"by default {SIZES}")
    parser.add_argument("--slurm", action="store_true", help="through a Slurm on this machine, not locally")
    given = parser.parse_args()
    print("| trees | trees a job | jobs | dry-run, processor s | run, processor s | the same a job, ms | run, s |")
    print("|---|---|---|---|---|---|---|")
    for size in given.sizes:
        print(row(*map(int, size.split(":")), on_slurm=given.slurm), flush=True)


if __name__ == "__main__":
    main()
