"""Results of a run that must be made again: made otherwise, or with a file missing."""

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from ...files import project_root
from ..figures import figure_files
from ..stages import ANSWERS, NOTEBOOKS, PAPER, QUESTIONS, TRAINING, WEIGHTS
from .plan import PLACE, Plan

WIRED = ("shard", "groups", "neighbour")  # parameters that tell the parts of a run apart


def made_otherwise(plan: Plan, notebooks: Mapping[str, str]) -> list[str]:
    """Data sets of some stages in the run's folder that tell of other parameters than the plan's, other code or images.

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


def other_networks(plan: Plan) -> str:
    """With which other value than the plan's the run's networks were trained or merged, in words; empty for none."""
    import h5py

    for stage in WEIGHTS:
        for shard in plan.shards:
            path, wanted = Path(plan.run, stage, f"shard-{shard:03d}.nc"), plan.parameters(NOTEBOOKS[stage], shard)
            with suppress(OSError, KeyError, ValueError), h5py.File(project_root() / path) as file:
                told, wanted = (_comparable(json.loads(text)) for text in (file.attrs["parameters"], wanted))
                for name in sorted((told.keys() & wanted.keys()) - {*WIRED}):
                    if told[name] != wanted[name]:
                        return f"{path} was made with {name}={told[name]}, not {wanted[name]}"
    return ""


def incomplete(plan: Plan, notebooks: Mapping[str, str]) -> list[str]:
    """A file of each job of some stages, and of the job that concludes from them, that has lost one since it ended.

    Nobody may need it now, but who asks for it next would.
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
    """Whether a data set tells of this code, these parameters (None: any) and images; what is no data set does not.

    Raises:
        OSError: the system lets nobody read it, which says nothing of what is in it.
    """
    import h5py

    try:
        with suppress(KeyError, ValueError), h5py.File(project_root() / path) as file:
            told = file.attrs
            same = parameters is None or _comparable(json.loads(told["parameters"])) == parameters
            return same and told["code_digest"] == code and told.get("images_digest", images) == images
    except OSError as error:
        if error.errno is not None:  # the system's; HDF5's own have none
            raise OSError(error.errno, f"{path} cannot be read: {os.strerror(error.errno)}") from error
    return False


def _comparable(parameters: dict) -> dict:
    """Parameters without those that name a place or a machine."""
    dataset = Path(parameters.get("dataset", "")).name
    return {name: value for name, value in parameters.items() if name not in PLACE} | {"dataset": dataset}
