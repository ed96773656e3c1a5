"""Data sets: what each stage writes, with units and provenance, written whole and read back validated.

All networks lie along one dimension ``model`` with the coordinates of `hrebasin.bank.LABELS`; pairs of an ablation lie
along ``pair``. So every comparison is a ``groupby`` and shards of groups join along their first dimension.
"""

import ast
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
import xarray as xr

from . import digests
from .bank import LABELS
from .files import write_atomically
from .images import Images
from .layout import STAGES as STAGES

FORMAT = "hrebasin-record/1"
# What every data set tells of its origin, beside format and stage
PROVENANCE = (
    "profile", "parameters", "data_source", "data_digest", "n_classes",
    "code_commit", "code_changed", "versions", "device", "wall_seconds", "created",
)  # fmt: skip
CODE = ("lib", "notebooks", "config", "Snakefile", "pyproject.toml", "requirements.txt")  # what results come from
COMMIT = "commit.txt"  # in a copy of the library outside its repository: the commit, then files changed since
PACKAGES = ("hrebasin", "torch", "torchvision", "foolbox", "numpy", "scipy", "numba", "xarray", "h5netcdf")

# stage -> variable -> dimensions
SCHEMAS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "train_loss": ("model", "epoch"),
        "train_accuracy": ("model", "epoch"),
        "test_loss": ("model",),
        "test_accuracy": ("model",),
        "seconds": ("model",),
    },
    "merge": {
        "train_loss": ("model",),
        "train_accuracy": ("model",),
        "test_loss": ("model",),
        "test_accuracy": ("model",),
        "pairwise_distance": ("model",),
        "sweeps_done": ("model",),
        "converged": ("model",),
        "seconds": ("model",),
    },
    "attack": {
        "robust_accuracy": ("model", "attack", "epsilon"),
        "correct": ("model", "image"),
        "perturbation_norm": ("model", "norm", "image"),
        "success": ("model", "norm", "image"),
        "repredicted": ("model", "norm"),
        "noise_accuracy": ("model", "noise", "magnitude", "draw"),
    },
    "regularity": {
        "weight_norm": ("model", "layer"),
        "lipschitz": ("model", "bound"),
        "local_lipschitz": ("model", "radius", "image"),
        "gradient_norm": ("model", "image"),
        "margin": ("model", "image"),
        "children_cosine": ("model", "layer"),
        "predicted_norm": ("model", "layer"),
    },
    "ablations": {
        "loss": ("pair", "alignment", "split", "lambda"),
        "accuracy": ("pair", "alignment", "split", "lambda"),
        "loss_barrier": ("pair", "alignment", "split"),
        "accuracy_barrier": ("pair", "alignment", "split"),
        "choice_accuracy": ("pair", "permuted", "order"),
    },
    "versions": {
        "robust_accuracy": ("model", "version", "attack", "epsilon"),
        "agreement": ("model",),
        "psnr": ("image",),
    },
    "controls": {
        "test_accuracy": ("model",),
        "robust_accuracy": ("model", "attack", "epsilon"),
        "robust_at_stage": ("model", "attack", "epsilon"),
        "robust_at_method": ("model", "attack", "epsilon"),
        "median_perturbation": ("model",),
        "common_images": ("model",),
    },
    "strong": {
        "robust_accuracy": ("model", "attack", "epsilon"),
        "zero_gradients": ("model",),
    },
    "mergers": {
        "test_accuracy": ("model",),
        "test_loss": ("model",),
        "pairwise_distance": ("model",),
        "sweeps_done": ("model",),
        "converged": ("model",),
        "seconds": ("model",),
        "order": ("model",),
    },
    "scale": {
        "test_accuracy": ("model",),
        "weight_norm": ("model", "layer"),
        "lipschitz": ("model", "bound"),
        "gradient_norm": ("model",),
        "median_margin": ("model",),
        "certified_radius": ("model", "certificate"),
    },
    "repair": {
        "test_accuracy": ("model",),
        "test_loss": ("model",),
        "robust_accuracy": ("model", "attack", "epsilon"),
        "variance_ratio": ("model", "layer"),
        "feature_distance": ("model", "layer"),
    },
    "recipes": {
        "test_accuracy": ("model",),
        "train_accuracy": ("model",),
        "robust_accuracy": ("model", "attack", "epsilon"),
        "loss_barrier": ("model", "alignment"),
        "accuracy_barrier": ("model", "alignment"),
    },
    "answers": {
        "effect": ("row",),
        "low": ("row",),
        "high": ("row",),
        "n": ("row",),
        "p": ("row",),
    },
    "benchmarks": {
        "seconds": ("row", "side", "repeat"),
        "ratio": ("row",),
        "ratio_low": ("row",),
        "ratio_high": ("row",),
        "difference": ("row",),
        "goal": ("row",),
        "rate": ("row",),
        "share": ("row",),
        "scaling_seconds": ("size", "stage", "n_models"),
        "scaling_memory": ("size", "stage", "n_models"),
        "slope_seconds": ("size", "stage"),
        "slope_memory": ("size", "stage"),
        "bend": ("size", "stage"),
    },
    "ledger": {
        "verdict": ("claim",),
        "effect": ("claim",),
        "low": ("claim",),
        "high": ("claim",),
        "n": ("claim",),
        "p": ("claim",),
        "p_holm": ("claim",),
    },
}
SHARD_PARAMETERS = ("run_folder", "shard", "groups", "device")  # in which shards of one run may differ
loaded: set[str] = set()  # `networks_of` the trainings whose networks were loaded since the last `Clock` was made


class Clock:
    """Wall time since it was made, for a record's provenance, and the code of then, which may change meanwhile."""

    def __init__(self):
        loaded.clear()
        self.start = time.perf_counter()
        self.commit, self.dirty = _commit()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self.start


def plain_values(namespace: Mapping) -> dict:
    """A notebook's parameters, from its ``globals()`` right after the parameters cell: all names with plain values.

    Raises:
        ValueError: papermill set a parameter that no cell declares; alone, it would only warn.
    """
    hidden = ("In", "Out")
    plain = (str, int, float, list)
    _refuse_undeclared(namespace.get("In", []))
    return {n: v for n, v in namespace.items() if isinstance(v, plain) and not n.startswith("_") and n not in hidden}


def _refuse_undeclared(cells: list[str]) -> None:
    """What papermill's cell, the last of its kind among the executed ones, assigns must be declared with a type."""
    injected = next((cell for cell in reversed(cells) if cell.startswith("# Parameters\n")), "")
    given = {ast.unparse(target) for node in ast.parse(injected).body for target in node.targets}
    declared = set()
    for cell in cells if given else []:
        with suppress(SyntaxError):  # a cell with magics
            declared |= {ast.unparse(node.target) for node in ast.parse(cell).body if isinstance(node, ast.AnnAssign)}
    if unknown := sorted(given - declared):
        raise ValueError(f"the notebook does not declare the parameters {unknown}; it declares {sorted(declared)}")


def provenance(*, profile: str, parameters: Mapping, images: Mapping[str, Images], device: str, clock: Clock) -> dict:
    """Attributes for a data set: where it comes from and how to make it again. Values are strings and numbers only.

    Args:
        profile: name of the profile, or of the run's folder.
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
        "profile": profile,
        "parameters": json.dumps(parameters, sort_keys=True),
        "data_source": first.source,
        "data_digest": json.dumps({split: part.origin for split, part in images.items()}, sort_keys=True),
        "n_classes": len(first.classes),
        **({"networks": "; ".join(sorted(loaded))} if loaded else {}),
        **_made(device, clock),
    }


def derived(results: Mapping[str, xr.Dataset], *, clock: Clock) -> dict:
    """Attributes for a data set that is made from others: their origin, and how it was made itself.

    Args:
        results: data sets by stage.
        clock: started with the work.
    """
    first = next(iter(results.values())).attrs
    kept = {name: first[name] for name in ("profile", "data_source", "data_digest", "n_classes") if name in first}
    made_from = {stage: dataset.attrs.get("created", "") for stage, dataset in results.items()}
    return {**kept, "parameters": json.dumps({"made_from": made_from}, sort_keys=True), **_made("cpu", clock)}


def _made(device: str, clock: Clock) -> dict:
    return {
        "code_commit": clock.commit,
        "code_changed": int(clock.dirty),
        **digests.executed,
        "versions": json.dumps({"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}),
        "device": describe_device(device),
        "wall_seconds": round(clock.seconds, 3),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_device(device: str) -> str:
    """The device in words, such as "cpu, x86_64, 2 cores"."""
    if torch.device(device).type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {platform.machine()}, {os.cpu_count()} cores"


def _commit() -> tuple[str, bool]:
    """Commit of the code and whether files were changed since; "unknown" where this file is in no git repository.

    A copy of the library that `make offline` has made brings a file that tells both.
    """
    if (told := Path(__file__).with_name(COMMIT)).is_file():
        commit, *changed = told.read_text().splitlines()
        return commit, bool(changed)
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # not of another project around an installed copy
        return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain", "--", *(f":/{name}" for name in CODE)))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _git(*command: str) -> str:
    folder = Path(__file__).parent
    return subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def write(dataset: xr.Dataset, path: Path | str, *, stage: str, attrs: Mapping | None = None) -> None:
    """Validate and write a data set atomically.

    Args:
        dataset: variables as in ``SCHEMAS[stage]``, each with ``long_name`` and ``units``.
        path: netCDF file.
        stage: a key of `SCHEMAS`.
        attrs: provenance, see `provenance`.
    """
    dataset = dataset.assign_attrs({"format": FORMAT, "stage": stage, **(attrs or {})})
    _check(dataset, stage, str(path))
    for name, variable in dataset.variables.items():
        if not {"long_name", "units"} <= set(variable.attrs):
            raise ValueError(f"{path}: {name} lacks long_name or units")
    dataset = dataset.drop_encoding()
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UT":  # fixed-length strings are cut when shards are joined
            dataset[name] = variable.astype(object)
    encoding = {
        name: {"zlib": True, "complevel": 4}
        for name, v in dataset.data_vars.items()
        if v.dtype.kind in "fiu" and v.ndim
    }
    # By way of memory: HDF5 does not raise every error of a full disk, and some end the process.
    write_atomically(Path(path), dataset.to_netcdf(engine="h5netcdf", encoding=encoding))


def read(path: Path | str, *, stage: str) -> xr.Dataset:
    """Read a data set that `write` wrote, into memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another stage or format, or not following the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no data set at {path}")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            dataset = file.load().drop_encoding()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a readable netCDF file: {error}") from error
    if dataset.attrs.get("format") != FORMAT:
        raise ValueError(f"{path}: format {dataset.attrs.get('format')!r} instead of {FORMAT!r}")
    _check(dataset, stage, str(path))
    for name in ("parameters", "data_digest", "versions"):
        try:
            json.loads(dataset.attrs.get(name, "{}"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: the attribute {name} is not valid JSON: {error}") from error
    halves = {name: v.astype("float32") for name, v in dataset.data_vars.items() if v.dtype == "float16"}
    return dataset.assign(halves)  # float16 is for storage only


def _check(dataset: xr.Dataset, stage: str, path: str) -> None:
    if stage not in SCHEMAS:
        raise ValueError(f"unknown stage {stage!r}; known are {list(SCHEMAS)}")
    if dataset.attrs.get("stage") != stage:
        raise ValueError(f"{path} is a data set of stage {dataset.attrs.get('stage')!r}, not {stage!r}")
    for name, dims in SCHEMAS[stage].items():
        if name not in dataset:
            raise ValueError(f"{path}: variable {name!r} of stage {stage!r} is missing")
        if set(dataset[name].dims) != set(dims):
            raise ValueError(f"{path}: {name} has dimensions {dataset[name].dims}, not {dims}")
        if name != "verdict" and dataset[name].dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} holds {dataset[name].dtype}, not numbers")
    if "model" in dataset.dims:
        if missing := [label for label in ("model", *LABELS) if label not in dataset.coords]:
            raise ValueError(f"{path}: coordinates {missing} of the networks are missing")
        if not dataset.indexes["model"].is_unique:
            raise ValueError(f"{path}: the same network appears twice")


def concat(paths: Iterable[Path | str], *, stage: str) -> xr.Dataset:
    """Join the shards of a stage along their first dimension.

    Raises:
        ValueError: shards that come from different data, parameters (other than `SHARD_PARAMETERS`) or profiles, or
            that hold the same network twice.
    """
    return join({path: read(path, stage=stage) for path in paths}, stage=stage)


def join(parts: Mapping[Path | str, xr.Dataset], *, stage: str) -> xr.Dataset:
    """Join data sets that are in memory as `concat` does.

    Args:
        parts: data sets by the place that a message should name.
        stage: a key of `SCHEMAS`.
    """
    if not parts:
        raise ValueError(f"no shards of stage {stage!r} to join")
    dim = next(iter(SCHEMAS[stage].values()))[0]
    first, *others = parts
    origin = _origin(parts[first])
    for place in others:
        other = _origin(parts[place])
        for key in sorted(origin.keys() | other.keys()):
            if origin.get(key) != other.get(key):
                raise ValueError(f"{first} and {place} differ in {key}: {origin.get(key)!r} and {other.get(key)!r}")
        for name, index in parts[first].indexes.items():
            if name != dim and not index.equals(parts[place].indexes[name]):
                raise ValueError(f"{first} and {place} differ in {name}")
    datasets = list(parts.values())
    how = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "combine_attrs": "override"}
    joined = xr.concat(datasets, dim=dim, join="exact", **how)
    _check(joined, stage, f"{first} with {len(others)} others")
    return joined.assign_attrs(_together(datasets), shards=sum(data.attrs.get("shards", 1) for data in datasets))


def _together(shards: list[xr.Dataset]) -> dict:
    """Attributes of joined shards: what they have in common, and every commit, device and version if there are more."""
    attrs = [shard.attrs for shard in shards]
    joined = {"parameters": json.dumps(_parameters(shards[0]), sort_keys=True)}
    for name in ("code_commit", "code_digest", "device"):
        if told := [a[name] for a in attrs if name in a]:
            joined[name] = _listed(told)
    if "versions" in attrs[0]:
        versions = [json.loads(a["versions"]) for a in attrs]
        joined["versions"] = json.dumps({name: _listed(v.get(name, "none") for v in versions) for name in versions[0]})
    if shards[0].attrs.get("stage") == "train" or all("networks" in a for a in attrs):
        joined["networks"] = _listed(map(networks_of, shards))
    for name, reduce in (("code_changed", max), ("created", max), ("wall_seconds", sum)):
        if name in attrs[0]:
            joined[name] = reduce(a[name] for a in attrs)
    return joined


def _listed(values: Iterable[str]) -> str:
    """Distinct values; some may be such lists."""
    return "; ".join(dict.fromkeys(each for value in values for each in value.split("; ")))


def _origin(shard: xr.Dataset) -> dict:
    """What all shards of a run have in common."""
    return _parameters(shard) | {key: shard.attrs.get(key) for key in ("profile", "data_digest")}


def _parameters(shard: xr.Dataset) -> dict:
    parameters = json.loads(shard.attrs.get("parameters", "{}"))
    return {name: value for name, value in parameters.items() if name not in SHARD_PARAMETERS}


def networks_of(dataset: xr.Dataset) -> str:
    """Which trainings a data set's networks come from: for each a digest of its parameters, images and code.

    Args:
        dataset: of the stage "train", or one that tells.
    """
    attrs = dataset.attrs
    content = [_parameters(dataset), attrs.get("data_digest"), attrs.get("code_digest")]
    return attrs.get("networks") or hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def misfits(results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Data sets of other networks, images or groups than the one of the stage "train", with what differs in words.

    Args:
        results: data sets by stage; those beside the stages of a run may have other groups.
    """
    train, found = results["train"], {}
    values, images, groups = _parameters(train), _digests(train), set(train.group.values.tolist())
    for stage, dataset in results.items():
        own = _parameters(dataset)
        differ = [name for name in sorted(own.keys() & values.keys() - {"dataset"}) if own[name] != values[name]]
        differ += [f"{split} images" for split, one in _digests(dataset).items() if images.get(split, one) != one]
        if "networks" in dataset.attrs and not _told(dataset) <= _told(train):
            differ.append("the training of the networks")
        if stage in STAGES and (here := set(dataset.group.values.tolist())) != groups:
            differ.append(f"groups ({sorted(here)} beside {sorted(groups)})")
        if differ:
            found[stage] = ", ".join(differ)
    return found


def _told(dataset: xr.Dataset) -> set[str]:
    return set(networks_of(dataset).split("; "))


def _digests(dataset: xr.Dataset) -> dict[str, str]:
    return json.loads(dataset.attrs.get("data_digest", "{}"))


def describe(dataset: xr.Dataset) -> str:
    """Which data set this is, for the metadata of figures drawn from it."""
    told = {"stage": "unknown", "profile": "unknown", "created": "unknown", "code_commit": "unknown"} | dataset.attrs
    digests = json.loads(told.get("data_digest", "{}")).items()
    images = ", ".join((told.get("data_source", "unknown"), *(f"{split} {digest[:12]}" for split, digest in digests)))
    commit = told["code_commit"][:12] + (" and changes to it" if told.get("code_changed") else "")
    return f"{told['stage']}.nc of profile {told['profile']}, made {told['created']} by commit {commit} from {images}"
