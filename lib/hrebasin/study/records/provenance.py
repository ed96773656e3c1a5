"""What every data set tells of its origin: parameters, images, code, versions, device and time."""

import ast
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
import xarray as xr

from ...images.sources import Images
from ..notebook_code import executed

# What every data set tells of its origin, beside format and stage
PROVENANCE = (
    "setting", "parameters", "data_source", "data_digest", "n_classes",
    "code_commit", "code_changed", "versions", "device", "wall_seconds", "created",
)  # fmt: skip
CODE = ("lib", "notebooks", "config", "Snakefile", "pyproject.toml", "requirements.txt")  # what results come from
PACKAGES = ("hrebasin", "torch", "torchvision", "foolbox", "numpy", "scipy", "numba", "xarray", "h5netcdf")
loaded: set[str] = set()  # `networks_of` the trainings whose networks were loaded since the last `Clock` was made


class Clock:
    """Wall time since it was made, for a record's provenance, and the code of then, which may change meanwhile."""

    def __init__(self):
        loaded.clear()
        self.start = time.perf_counter()
        self.commit, self.dirty = _commit()


def plain_values(namespace: Mapping) -> dict:
    """A notebook's parameters, from its ``globals()``: the names that its cells have declared with a type so far.

    What a start-up file of IPython or Python defines is none. Outside of a notebook, all names with plain values.

    Raises:
        ValueError: papermill set a parameter that no cell declares; alone, it would only warn.
    """
    plain = {n: v for n, v in namespace.items() if isinstance(v, str | int | float | list) and not n.startswith("_")}
    if "In" not in namespace:
        return plain
    declared = _declared(namespace["In"])
    return {name: value for name, value in plain.items() if name in declared}


def _declared(cells: list[str]) -> set[str]:
    """Names that executed cells declare with a type; what papermill's cell, the last of its kind, sets must be some."""
    injected = next((cell for cell in reversed(cells) if cell.startswith("# Parameters\n")), "")
    given = {ast.unparse(target) for node in ast.parse(injected).body for target in node.targets}
    declared = set()
    for cell in cells:
        with suppress(SyntaxError):  # a cell with magics
            declared |= {ast.unparse(node.target) for node in ast.parse(cell).body if isinstance(node, ast.AnnAssign)}
    if unknown := sorted(given - declared):
        raise ValueError(f"the notebook does not declare the parameters {unknown}; it declares {sorted(declared)}")
    return declared


def provenance(*, setting: str, parameters: Mapping, images: Mapping[str, Images], device: str, clock: Clock) -> dict:
    """Attributes for a data set: where it comes from and how to make it again. Values are strings and numbers only.

    Args:
        setting: name of the setting, or of the run's folder.
        parameters: of the notebook.
        images: by split, those that were used; the digest is that of the whole split.
        device: where it was computed.
        clock: started with the notebook.
    """
    parameters, first = dict(parameters), next(iter(images.values()))
    for name in ("dataset", "other"):  # where images lie on this machine helps nobody
        if os.sep in str(parameters.get(name, "")):
            parameters[name] = Path(parameters[name]).name
    return {
        "setting": setting,
        "parameters": json.dumps(parameters, sort_keys=True),
        "data_source": first.source,
        "data_digest": json.dumps({split: part.origin for split, part in images.items()}, sort_keys=True),
        "n_classes": len(first.classes),
        **({"networks": "; ".join(sorted(loaded))} if loaded else {}),
        **_made(device, clock),
    }


def derived(results: Mapping[str, xr.Dataset], *, clock: Clock) -> dict:
    """Attributes for a data set that is made from others, by stage: their origin, and how it was made itself."""
    first = next(iter(results.values())).attrs
    kept = {name: first[name] for name in ("setting", "data_source", "data_digest", "n_classes") if name in first}
    made_from = {stage: dataset.attrs.get("created", "") for stage, dataset in results.items()}
    return {**kept, "parameters": json.dumps({"made_from": made_from}, sort_keys=True), **_made("cpu", clock)}


def _made(device: str, clock: Clock) -> dict:
    return {
        "code_commit": clock.commit,
        "code_changed": int(clock.dirty),
        **executed,
        "versions": json.dumps({"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}),
        "device": describe_device(device),
        "wall_seconds": round(time.perf_counter() - clock.start, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_device(device: str) -> str:
    """The device in words, such as "cpu, x86_64, 2 cores"."""
    if torch.device(device).type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {platform.machine()}, {os.cpu_count()} cores"


def _commit() -> tuple[str, bool]:
    """Commit of the code and whether files were changed since; "unknown" where this file is in no git repository."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # not of another project around an installed copy
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--", *(f":/{name}" for name in CODE)))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _git(*command: str) -> str:
    folder = Path(__file__).parent
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as a hook of git sets
    return subprocess.run(
        ["git", *command], cwd=folder, env=own, capture_output=True, encoding="utf-8", check=True
    ).stdout.strip()
