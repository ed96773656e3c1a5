"""The workflow's side of a run: which notebook gets which parameters, and the command behind ``make paper``.

python -m hrebasin.study.running.workflow --cores all profile=sample
python -m hrebasin.study.running.workflow --workflow-profile config/slurm profile=paper -- --jobs 20
"""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from urllib.parse import quote

from ...files import only_writer, project_root
from ..stages import NOTEBOOKS, QUESTIONS, WEIGHTS
from . import cluster
from .plan import ENCODED, OVERRIDES, PARTS, TEXTS, Plan
from .scratch import scratch
from .stale import incomplete, made_otherwise

# Every job of a cluster imports this module, twice: so slow imports stand where they are needed.


def main(arguments: list[str] | None = None) -> int:
    """Check the profile, then let Snakemake run what is missing; Snakemake's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    end = arguments.index("--") if "--" in arguments else len(arguments)
    given, start = _parser().parse_args(arguments[:end]), time.time()
    try:
        settings = _settings(given.settings)
        plan = Plan.from_config(settings)
        folder = project_root() / plan.run
        if given.part == "questions":
            _check_questions(plan)
        command = [*_options(given, settings, plan, folder), *arguments[end + 1 :]]
        if given.dry_run:
            return _snakemake(command)
        if elsewhere := given.workflow_profile:
            cluster.prepare(elsewhere, folder, dataset=plan.profile.dataset, data=project_root() / "data")
        # Temporary files of jobs elsewhere are for their machines to place.
        with only_writer(folder), nullcontext() if elsewhere else scratch(folder):
            code = _snakemake(command)
            if code == 0:
                _remove_checkpoints(plan, folder / "checkpoints", questions=given.part == "questions")
        if code == 0 and given.part in (None, "publish"):
            _report(folder, publish_to=project_root() / given.publish_to if given.part else None)
        elif code == 0 and given.part == "questions":
            _report_answers(folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    for copy in sorted((folder / "notebooks").glob("*.failed.ipynb")) if code else ():
        if copy.stat().st_mtime >= start:
            from .notebook_runner import failure

            print(f"error: {failure(copy)}", file=sys.stderr)
    return code


def _remove_checkpoints(plan: Plan, folder: Path, *, questions: bool) -> None:
    """Of what has just ended, whose networks are safe now; the training of others may have been stopped."""
    ended = [f"shard-{shard:03d}" for shard in plan.shards]
    if questions:
        ended = [f"recipes-{shard:03d}" for shard in plan.asked("recipes") if "recipes" in plan.questions]
    for name in ended:
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hrebasin.study.running.workflow",
        description=__doc__.splitlines()[0],
        epilog="What follows -- goes to Snakemake as it is.",
    )
    parser.add_argument("--cores", help="for Snakemake: a number or all, which is the default on this machine")
    parser.add_argument(
        "--workflow-profile", metavar="FOLDER", help="Snakemake's: where else jobs run, e.g. config/slurm"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would run")
    parser.add_argument("--part", choices=PARTS, help="only this part, and what it needs; publish also copies results")
    parser.add_argument("--publish-to", type=Path, default=Path("data", "published"), help="folder for --part publish")
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"profile, run and {', '.join(OVERRIDES)}")
    return parser


def _options(given: argparse.Namespace, settings: Mapping, plan: Plan, folder: Path) -> list[str]:
    options = ["--rerun-incomplete", "--keep-going", "--directory", str(project_root())]
    # The lock of the run's folder ends with its process; Snakemake's own would outlive a killed one.
    options += ["--nolock", "--rerun-triggers", "mtime", "params", "input", "--quiet", "rules", "host"]
    # The default scheduler solves a linear program over all waiting jobs whenever one has ended.
    options += ["--scheduler", "greedy", "--scheduler-subsample", "1000"]
    options += ["--snakefile", str(project_root() / "Snakefile")]
    # Snakemake strips quotes from values and reads the rest as YAML: no name with a number in it would be safe.
    options += ["--config", f"settings={ENCODED}{quote(json.dumps(dict(settings)), safe='')}"]
    asked = given.part == "questions"
    if asked:
        options = ["answers", *options, "--allowed-rules", *PARTS["questions"]]
    elif given.part:
        options += ["--until", *PARTS[given.part]]
    looked_at = {question: QUESTIONS[question] for question in plan.questions} if asked else NOTEBOOKS
    if due := {*made_otherwise(plan, looked_at), *incomplete(plan, looked_at)}:
        options += ["--forcerun", *sorted(due)]
    if given.workflow_profile:
        options += cluster.options(given.workflow_profile, folder)
    # On a cluster, the cores of this machine are no limit.
    if cores := given.cores or (None if given.workflow_profile else "all"):
        options += ["--cores", cores]
    return [*options, "--dry-run"] if given.dry_run else options


def _report(folder: Path, *, publish_to: Path | None) -> None:
    from .. import records
    from ..publishing import page

    if publish_to:
        with only_writer(publish_to):
            page.publish(folder, publish_to)
    claims = records.read(folder / "results" / "ledger.nc", stage="ledger")
    for claim, verdict, title in zip(claims.claim.values, claims.verdict.values, claims.title.values, strict=True):
        print(f"{claim:>4} {verdict:<13} {title}")
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


def _report_answers(folder: Path) -> None:
    from .. import records

    found = records.read(folder / "results" / "answers.nc", stage="answers")
    for title, sentence in zip(found.title.values, found.sentence.values, strict=True):
        print(f"{title} {sentence}.")


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


def _settings(texts: list[str]) -> dict:
    settings = {}
    for key, value in map(_setting, texts):
        if key in settings:
            raise ValueError(f"{key!r} is set twice")
        settings[key] = value
    return settings


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"settings are written key=value, got {text!r}")
    for kind in () if key in TEXTS else (int, float):
        with suppress(ValueError):
            return key, kind(value)
    return key, value


if __name__ == "__main__":
    sys.exit(main())
