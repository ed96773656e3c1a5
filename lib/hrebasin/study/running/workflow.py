"""A run: its plan is checked, then Snakemake runs what is missing, here or on a cluster."""

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from ...files import only_writer, project_root
from ..settings import check_device
from ..stages import NOTEBOOKS, QUESTIONS, WEIGHTS
from . import cluster
from .plan import PARTS, Plan, encoded
from .scratch import scratch
from .stale import incomplete, made_otherwise, other_networks

DRY_RUN = ("-n", "--dry-run", "--dryrun")  # as Snakemake calls it

# Every job of a cluster imports this module, twice: so slow imports stand where they are needed.


def run(
    values: Mapping,
    *,
    part: str | None = None,
    cores: str | None = None,
    elsewhere: str | None = None,
    dry_run: bool = False,
    more: Sequence[str] = (),
) -> int:
    """Check a run's values, then let Snakemake run what is missing; Snakemake's exit code.

    Args:
        values: as of `Plan.from_config`.
        part: of `PARTS`, only this and what it needs; "publish" also copies results to ``data/published/<setting>``.
        cores: a number or "all", which is the default on this machine.
        elsewhere: folder of Snakemake's profile that says where else jobs run.
        dry_run: only say what would run.
        more: options for Snakemake.

    Raises:
        ValueError: values that cannot be, or networks that are missing.
        OSError: the folder of the run, or Snakemake's, cannot be written to.
        KeyboardInterrupt: stopped; the same command continues.
    """
    if part not in (None, *PARTS):
        raise ValueError(f"a run has the parts {tuple(PARTS)}, got {part!r}")
    plan, start = Plan.from_config(values), time.time()
    folder = project_root() / plan.run
    if part == "questions":
        _check_questions(plan)
    if cores not in (None, "all") and not (cores.isdecimal() and int(cores)):
        raise ValueError(f"cores must be a positive number or all, got {cores!r}")
    if not (elsewhere or dry_run):  # jobs would find out only when their last results are gone
        check_device(plan.setting.device)
    command = snakemake_options(plan, values, part=part, cores=cores, elsewhere=elsewhere)
    _check_records(project_root() / ".snakemake")
    if dry_run or {*DRY_RUN} & {*more}:
        return _snakemake([*command, "--dry-run", *more])
    if elsewhere:
        cluster.prepare(elsewhere, folder, dataset=plan.setting.dataset, data=project_root() / "data")
    # Temporary files of jobs elsewhere are for their machines to place.
    with only_writer(folder), nullcontext() if elsewhere else scratch(folder):
        code = _snakemake([*command, *more])
        if code == 0:
            _remove_checkpoints(plan, folder / "checkpoints", questions=part == "questions")
    if code:
        _name_failures(folder, since=start)
    elif part in (None, "publish"):
        _report(folder, publish=part == "publish")
    elif part == "questions":
        _report_answers(folder)
    return code


def _check_records(folder: Path) -> None:
    """Snakemake's own error names neither its folder nor a way out."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"Snakemake keeps its records in {folder}, which cannot be written to ({error.strerror}): mend that, or "
            "copy the project to where you may write"
        ) from error


def _name_failures(folder: Path, *, since: float) -> None:
    for copy in sorted((folder / "notebooks").glob("*.failed.ipynb")):
        if copy.stat().st_mtime >= since:
            from .notebook_runner import failure

            print(f"error: {failure(copy)}", file=sys.stderr)


def _remove_checkpoints(plan: Plan, folder: Path, *, questions: bool) -> None:
    """Of what has just ended, whose networks are safe now; the training of others may have been stopped."""
    ended = [f"shard-{shard:03d}" for shard in plan.shards]
    if questions:
        ended = [f"recipes-{shard:03d}" for shard in plan.asked("recipes") if "recipes" in plan.questions]
    for name in ended:
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def snakemake_options(
    plan: Plan, values: Mapping, *, part: str | None = None, cores: str | None = None, elsewhere: str | None = None
) -> list[str]:
    """Snakemake's options for a run, and what must be made again; arguments as of `run`."""
    options = ["--rerun-incomplete", "--keep-going", "--directory", str(project_root())]
    # The lock of the run's folder ends with its process; Snakemake's own would outlive a killed one.
    options += ["--nolock", "--rerun-triggers", "mtime", "params", "input", "--quiet", "rules", "host"]
    # The default scheduler solves a linear program over all waiting jobs whenever one has ended.
    options += ["--scheduler", "greedy", "--scheduler-subsample", "1000"]
    options += ["--snakefile", str(project_root() / "Snakefile"), "--config", encoded(values)]
    asked = part == "questions"
    if asked:
        options = ["answers", *options, "--allowed-rules", *PARTS["questions"]]
    elif part:
        options += ["--until", *PARTS[part]]
    looked_at = {question: QUESTIONS[question] for question in plan.questions} if asked else NOTEBOOKS
    if due := {*made_otherwise(plan, looked_at), *incomplete(plan, looked_at)}:
        options += ["--forcerun", *sorted(due)]
    if elsewhere:
        options += cluster.options(elsewhere, project_root() / plan.run)
    # On a cluster, the cores of this machine are no limit.
    if cores := cores or (None if elsewhere else "all"):
        options += ["--cores", cores]
    return options


def _report(folder: Path, *, publish: bool) -> None:
    from .. import records
    from ..claims.verdicts import wholes
    from ..publishing.publish import publish as copy

    if publish:
        copy(folder)
    for claim, statement, verdict, _ in wholes(records.read(folder / "results" / "ledger.nc", stage="ledger")):
        print(f"{claim:>4} {verdict:<13} {statement}")
    print(f"Figures, claims and provenance: {folder.relative_to(project_root())}/index.html")


def _check_questions(plan: Plan) -> None:
    if not plan.questions:
        raise ValueError(f"the questions {plan.ask} are asked of none of these groups")
    if plan.questions == ["recipes"]:  # which trains its own
        return
    for shard in plan.shards:
        for part in WEIGHTS.values():
            path = Path(plan.run, "weights", f"{part}-{shard:03d}.safetensors")
            if not (project_root() / path).is_file():
                raise FileNotFoundError(
                    f"questions need the networks of a run, and {path} is not there: make paper first"
                )
    if other := other_networks(plan):
        raise ValueError(f"questions are asked of networks as they are, and {other}: give the values of that run")


def _report_answers(folder: Path) -> None:
    from .. import records

    found = records.read(folder / "results" / "answers.nc", stage="answers")
    for title, sentence in zip(found.title.values, found.sentence.values, strict=True):
        print(f"{title} {str(sentence).removesuffix('.')}.")


def _snakemake(arguments: list[str]) -> int:
    """Run Snakemake in this process; its exit code.

    Raises:
        KeyboardInterrupt: interrupted, or the terminal was closed; Snakemake itself reports that as a failed job.
    """
    from snakemake.cli import main as snakemake

    interrupts = []

    def interrupt(*event):
        interrupts.append(event)
        signal.default_int_handler(*event)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, interrupt)}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not so under nohup
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, interrupt)
    try:
        snakemake(arguments)
    except SystemExit as stop:
        if interrupts:
            raise KeyboardInterrupt from None
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
