"""The workflow's side of a run: which notebook gets which parameters, and the command behind ``make paper``.

python -m hrebasin.workflow --cores all profile=sample
python -m hrebasin.workflow --workflow-profile config/slurm profile=paper -- --jobs 20
"""

import argparse
import ast
import json
import math
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote, unquote

from . import cluster
from .catalogue import figure_files
from .configuration import DATASETS, Profile, load_profile
from .digests import files_digest, notebook_digest
from .files import project_root
from .folders import only_writer, scratch
from .layout import ANSWERS, NOTEBOOKS, PAPER, QUESTIONS, TRAINING, WEIGHTS

# Every job of a cluster imports this module, twice: so slow imports stand where they are needed.

# What a user may override on the command line: every single value of a profile, and short names for some.
SHORT = {"groups": "n_groups", "first": "first_group"}
OVERRIDES = SHORT | {field.name: field.name for field in fields(Profile) if field.type in (str, int, float)}
ENCODED = "json:"  # what settings begin with that `main` hands to Snakemake
TEXTS = {"profile", "run", "ask", *(field.name for field in fields(Profile) if field.type is str)}
# Parts of a run, for machines that are lent for minutes: each ends with its files written, and the next goes on.
PARTS = {
    "train": ("train",),
    "merge": ("merge",),
    "attack": ("attack",),
    "measure": ("regularity", "ablations"),
    "publish": ("paper",),
    "questions": (*QUESTIONS, "answers"),  # of networks that are there: nothing is trained or merged anew
}


@dataclass(frozen=True)
class Plan:
    """A checked profile, what is asked, and where the results go.

    Attributes:
        name: of the profile.
        profile: its values.
        run: folder of the results, relative to the project.
        ask: open questions that the run may ask.
    """

    name: str
    profile: Profile
    run: str
    ask: tuple[str, ...] = tuple(QUESTIONS)

    @classmethod
    def from_config(cls, config: Mapping) -> "Plan":
        """From a command line; nothing else.

        Args:
            config: ``profile=``, ``run=`` (a folder in ``data/runs``), ``ask=`` (open questions with commas between
                them) and the overrides.
        """
        if (encoded := str(config.get("settings", ""))).startswith(ENCODED):  # by `main`
            config = json.loads(unquote(encoded.removeprefix(ENCODED)))
        known = ("profile", "run", "ask", *OVERRIDES)
        if unknown := sorted(set(config) - set(known)):
            raise ValueError(f"unknown settings {unknown}; known are {known}")
        config = {key: str(value) if key in TEXTS and value is not None else value for key, value in config.items()}
        name = config.get("profile") or "sample"
        run = config.get("run") or name
        if not re.fullmatch(r"\w[\w.-]*", run):
            raise ValueError(f"run names a folder in data/runs, of letters, digits and . _ -, got {run!r}")
        ask = tuple(filter(None, (config.get("ask") or "").split(","))) or tuple(QUESTIONS)
        if unknown := sorted(set(ask) - set(QUESTIONS)):
            raise ValueError(f"no open questions {unknown}; ask of {tuple(QUESTIONS)}")
        overrides = {OVERRIDES[key]: config[key] for key in OVERRIDES if config.get(key) not in (None, "")}
        if "dataset" in overrides and Path(overrides["dataset"]).expanduser().exists():
            overrides["dataset"] = str(Path(overrides["dataset"]).expanduser().resolve())
        profile = load_profile(project_root() / "config" / f"{name}.yaml", **overrides)
        return cls(name, profile, f"data/runs/{run}", tuple(question for question in QUESTIONS if question in ask))

    @cached_property
    def shards(self) -> dict[int, list[int]]:
        """Shard -> numbers of the groups that one notebook handles; made once, for thousands of jobs ask."""
        return self.profile.shards

    def asked(self, stage: str) -> list[int]:
        """Numbers of the shards that have a stage: other recipes are trained for some groups only."""
        end = self.profile.recipe_groups if stage == "recipes" else math.inf
        return [shard for shard, groups in self.shards.items() if groups[0] < end]

    @property
    def questions(self) -> list[str]:
        """Open questions that are asked of any shard."""
        return [question for question in self.ask if self.asked(question)]

    @cached_property
    def images(self) -> str:
        """Digest of the images' files, other networks are trained when it changes; none of what torchvision fetches."""
        if self.profile.dataset not in DATASETS:
            return files_digest(Path(self.profile.dataset).expanduser())
        shipped = project_root() / "data" / f"{self.profile.dataset}.nc"
        return files_digest(shipped) if shipped.is_file() else ""

    @property
    def gpus(self) -> int:
        """How many GPUs a notebook asks for."""
        return int(self.profile.device != "cpu")

    def place(self, notebook: str, gpus: int | None = None) -> str:
        """Parameters, as JSON, that a result does not depend on: where it is written, and where it is computed.

        Args:
            notebook: the executed copy, where Snakemake wants it.
            gpus: that the job got, since an executor's profile may give none; None for a notebook without device.
        """
        place = {"run_folder": str(Path(notebook).parent.parent)}
        if gpus is not None:
            place["device"] = self.profile.device if gpus else "cpu"
        return json.dumps(place)

    def parameters(self, notebook: str, shard: int | None) -> str:
        """The parameters of a notebook as JSON: what it declares, from the profile and the wiring."""
        groups = None if shard is None else self.shards[shard]
        wiring = {"run_folder": self.run, "shard": shard, "groups": groups}
        if shard is None:  # over all shards, which the thousands of others must not list
            shards = {"shards": list(self.shards), "recipe_shards": self.asked("recipes")}
            wiring |= shards | {"questions": self.questions}
        values = {**vars(self.profile), **wiring}
        declared = _declared(notebook)
        if strange := sorted(set(declared) - set(values)):
            raise ValueError(f"{notebook} declares parameters that no profile has: {strange}")
        return json.dumps({name: values[name] for name in declared}, sort_keys=True)

    def code(self, notebook: str) -> str:
        """Digest of the code that a notebook runs; a result made by other code is made again."""
        return notebook_digest(project_root() / "notebooks" / f"{notebook}.ipynb")

    def shell(self, notebook: str, *, images: bool = False) -> str:
        """The command of a rule.

        Args:
            notebook: its name.
            images: whether the rule has the digest of the images' files among its ``params``, for the data set to tell.
        """
        origin = f"--profile {self.name}" + " --images={params.images:q}" * images  # = since there may be none
        label = notebook if notebook in (PAPER, ANSWERS) else f"{notebook} {{wildcards.shard}}"
        python = shlex.quote(sys.executable)
        return (
            f"exec {python} -m hrebasin.notebook notebooks/{notebook}.ipynb {{output.notebook:q}} {{params.values:q}} "
            f"--place {{params.place:q}} {origin} --label '{label}' --threads {{threads}} --parent $PPID"
        )


def made_otherwise(plan: Plan, notebooks: Mapping[str, str] = NOTEBOOKS) -> list[str]:
    """Data sets in the run's folder that tell of other parameters than the plan's, of other code or images.

    Args:
        plan: of the run.
        notebooks: the stages that are looked at.

    Snakemake notices them too, but by notes of its own, which a folder copied from elsewhere does not bring.
    """
    concluding, conclusion = _conclusion(notebooks)
    wanted = {Path(plan.run, "results", f"{conclusion}.nc"): (plan.code(concluding), None, "")}
    for stage, notebook in notebooks.items():
        code = plan.code(notebook)
        for shard in plan.asked(stage):
            parameters = _comparable(json.loads(plan.parameters(notebook, shard)))
            images = plan.images if stage in TRAINING else ""
            wanted[Path(plan.run, stage, f"shard-{shard:03d}.nc")] = code, parameters, images
    return [
        str(path) for path, made in wanted.items() if (project_root() / path).is_file() and not _made_so(path, *made)
    ]


def incomplete(plan: Plan, notebooks: Mapping[str, str] = NOTEBOOKS) -> list[str]:
    """A file of each job that has lost one since it ended; nobody may need it now, but who asks for it next would.

    Args:
        plan: of the run.
        notebooks: the stages that are looked at, and what is concluded from them.

    Snakemake alone makes a deleted file again only where something behind it is due.
    """
    run, (concluding, conclusion) = Path(plan.run), _conclusion(notebooks)
    jobs = [[run / "results" / f"{name}.nc" for name in (conclusion, *notebooks)]]
    jobs[0] += [run / "notebooks" / f"{concluding}.ipynb", *map(Path, figure_files(f"{run}/figures", notebooks))]
    jobs[0] += [run / "index.html"] if concluding == PAPER else []
    for stage, notebook in notebooks.items():
        for shard in plan.asked(stage):
            jobs.append([run / stage / f"shard-{shard:03d}.nc", run / "notebooks" / f"{notebook}-{shard:03d}.ipynb"])
            if stage in WEIGHTS:
                jobs[-1].append(run / "weights" / f"{WEIGHTS[stage]}-{shard:03d}.safetensors")
    there = [[(project_root() / file).is_file() for file in files] for files in jobs]
    ended = any(there[0])  # then all others had been made
    return [str(files[0]) for files, found in zip(jobs, there, strict=True) if not all(found) and (ended or any(found))]


def _conclusion(stages: Collection[str]) -> tuple[str, str]:
    """The notebook that concludes from some stages, and the data set of its conclusions."""
    return (ANSWERS, "answers") if set(stages) <= set(QUESTIONS) else (PAPER, "ledger")


def _made_so(path: Path, code: str, parameters: dict | None, images: str) -> bool:
    """Whether a data set tells of this code, these parameters (None: any) and images; what is no data set does not."""
    import h5py

    with suppress(OSError, KeyError, ValueError), h5py.File(project_root() / path) as file:
        told = file.attrs
        same = parameters is None or _comparable(json.loads(told["parameters"])) == parameters
        return same and told["code_digest"] == code and told.get("images_digest", images) == images
    return False


def _comparable(parameters: dict) -> dict:
    """Parameters without those that name a place or a machine."""
    dataset = Path(parameters.get("dataset", "")).name
    return {name: v for name, v in parameters.items() if name not in ("run_folder", "device")} | {"dataset": dataset}


@cache
def _declared(notebook: str) -> list[str]:
    """Names of the parameters that a notebook declares; papermill, which knows too, is slow to import."""
    cells = json.loads((project_root() / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    [source] = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return [line.target.id for line in ast.parse(source).body]


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
            from .notebook import failure

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
        prog="python -m hrebasin.workflow",
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
    from . import page, records  # only now: they load the whole library

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
    from . import records

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
