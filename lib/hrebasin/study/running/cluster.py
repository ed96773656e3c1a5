"""A run whose jobs are elsewhere, by a profile of Snakemake such as config/slurm, and what it needs beforehand."""

import hashlib
import os
import subprocess
from pathlib import Path

import yaml

from ...files import read_text


def options(profile: str, folder: Path) -> list[str]:
    """Snakemake's options for jobs where ``profile`` says, a folder with a profile of Snakemake.

    On Slurm, the ``folder`` of the run decides the names of jobs and holds the logs of failed ones.

    Raises:
        FileNotFoundError: there is no profile in ``profile``.
    """
    given = ["--workflow-profile", profile]
    if _executor(profile) == "slurm":
        given += ["--slurm-jobname-prefix", job_name(folder), "--slurm-logdir", str(folder / "logs")]
    return given


def prepare(profile: str, folder: Path, *, dataset: str, data: Path) -> None:
    """See to it that nobody writes to a run's ``folder`` and that the images are there: nodes may have no internet.

    They are downloaded, unpacked and decoded here and once, in the project's ``data`` folder.

    Raises:
        ValueError: jobs of an earlier command are in the queue, Slurm does not answer, or there are no such images.
        FileNotFoundError: the folder of images is not as it should be.
    """
    if _executor(profile) == "slurm" and (jobs := jobs_in_queue(folder)):
        raise ValueError(f"jobs of an earlier command still write to {folder}: wait, or scancel {' '.join(jobs)}")
    from ...images.sources import SPLITS, load_images

    for split in SPLITS:
        load_images(dataset, split, root=data)


def job_name(folder: Path) -> str:
    """How the names of a run's jobs begin."""
    return f"hrebasin-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:12]}"


def jobs_in_queue(folder: Path) -> list[str]:
    """Numbers of a run's jobs that wait or run on Slurm.

    Raises:
        ValueError: Slurm is not there or does not answer.
    """
    command = ["squeue", "--me", "--noheader", "--format=%i %j"]
    try:
        queue = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    except FileNotFoundError:
        raise ValueError("the executor slurm needs Slurm's commands: squeue is not on PATH") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"Slurm does not answer: {error.stderr.strip()}") from error
    jobs = (line.split(maxsplit=1) for line in queue.splitlines())
    return [number for number, name in jobs if name.startswith(job_name(folder))]


def _executor(profile: str) -> str | None:
    for path in (Path(profile, "profile.yaml"), Path(profile, "config.yaml")):
        if path.is_file():
            return yaml.safe_load(read_text(path)).get("executor")
    raise FileNotFoundError(f"no profile of Snakemake in {profile}: it holds neither profile.yaml nor config.yaml")
