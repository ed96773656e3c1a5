"""What planning and scheduling take: the workflow with empty jobs, as a Markdown table.

python tests/slurm/scheduling.py 1:100 10:10000     # trees a job:trees
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

from projects import call, copy_project

from hrebasin.files import project_root

# Before the Snakefile: the same workflow with jobs that do nothing. The last has to leave a ledger.
EMPTY = """\
from hrebasin.study.running.plan import Plan

last = "mkdir -p {{output.figures}} && touch {{output}} && cp {ledger} {{output.results[5]}}"
Plan.shell = lambda plan, notebook, **_: last if notebook == "06_paper" else "touch {{output}}"
"""


def measure(project: Path, *options: str) -> tuple[float, float]:
    """Seconds of processors and of the clock that one call of the workflow takes."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    call(project, ["--cores", "2", *options, "--", "--max-threads", "1"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return processors, time.perf_counter() - start


def row(a_job: int, trees: int) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="scheduling-") as folder:
        empty = EMPTY.format(ledger=project_root() / "data" / "published" / "plain" / "ledger.nc")
        project = copy_project(Path(folder) / "project", before=empty)
        options = ["setting=tiny", f"groups={trees}", f"groups_per_shard={a_job}"]
        (planned, _), (processors, clock) = (measure(project, *dry, *options) for dry in (["--dry-run"], []))
    jobs = 5 * -(-trees // a_job) + 1
    a_job_ms = 1000 * processors / jobs
    return f"| {trees:,} | {a_job} | {jobs:,} | {planned:.0f} | {processors:.0f} | {a_job_ms:.0f} | {clock:.0f} |"


if __name__ == "__main__":
    print("| trees | trees a job | jobs | dry-run, processor s | run, processor s | processor ms a job | run, s |")
    print("|---|---|---|---|---|---|---|")
    for size in sys.argv[1:] or ("1:100", "1:1000", "10:10000", "1:10000"):
        print(row(*map(int, size.split(":"))), flush=True)
