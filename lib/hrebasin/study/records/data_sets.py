"""Data sets: what each stage writes, with units and provenance, written whole and read back validated.

All networks lie along one dimension ``model`` with the coordinates of `hrebasin.bank.LABELS`; pairs of an ablation lie
along ``pair``. So every comparison is a ``groupby`` and shards of groups join along their first dimension.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from ...bank import LABELS
from ...files import write_atomically
from ...merging.looks import LOOKS, PAPER
from ..stages import EXTRA, STAGES
from .origins import _origin, _parameters, networks_of
from .schemas import schema

FORMAT = "hrebasin-record/1"
MANY = 500  # values of a network
FORMER = {"cpu": "plain"}  # names of settings in data sets that tell them as "profile", as they did once


def write(dataset: xr.Dataset, path: Path | str, *, stage: str, attrs: Mapping | None = None) -> None:
    """Validate and write a data set atomically.

    Args:
        dataset: variables as in ``schema(stage)``, each with ``long_name`` and ``units``.
        path: netCDF file.
        stage: that `schema` knows.
        attrs: provenance, see `provenance`.

    Raises:
        ValueError: not following the schema, or of a type that netCDF-4 does not have.
    """
    dataset = dataset.assign_attrs({"format": FORMAT, "stage": stage, **(attrs or {})})
    _check(dataset, stage, str(path))
    if "method" in dataset.coords:  # who draws need not know the methods that were registered here
        added = {name: LOOKS[name] for name in dict.fromkeys(dataset.method.values) if name in set(LOOKS) - set(PAPER)}
        if added:
            dataset.method.attrs["looks"] = json.dumps(added)
    for name, variable in dataset.variables.items():
        if not {"long_name", "units"} <= set(variable.attrs):
            raise ValueError(f"{path}: {name} lacks long_name or units")
    _check_types(dataset, str(path))
    dataset = dataset.drop_encoding()
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UT":  # fixed-length strings are cut when shards are joined
            dataset[name] = variable.astype(object)
    encoding = {name: _packed(v) for name, v in dataset.data_vars.items() if v.dtype.kind in "fiu" and v.ndim}
    # By way of memory: HDF5 does not raise every error of a full disk, and some end the process.
    write_atomically(Path(path), dataset.to_netcdf(engine="h5netcdf", encoding=encoding))


def _packed(variable: xr.DataArray) -> dict:
    """How a variable is compressed. Many values are packed network by network: when others are added, those that were
    there keep their bytes, which version control then stores once."""
    packed = {"zlib": True, "complevel": 4, "shuffle": variable.dtype == "float32"}  # last bits may be 0, see publish
    values = int(np.prod(variable.shape[1:]))
    return packed | ({"chunksizes": (1, *variable.shape[1:])} if variable.dims[0] == "model" and values >= MANY else {})


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
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is not a readable netCDF file: {error}") from error
    if str(dataset.attrs.get("format")) != FORMAT:
        raise ValueError(f"{path}: format {dataset.attrs.get('format')!r} instead of {FORMAT!r}")
    _check(dataset, stage, str(path))
    _check_attributes(dataset, str(path))
    if "profile" in dataset.attrs:
        former = dataset.attrs.pop("profile")
        dataset.attrs["setting"] = FORMER.get(former, former)
    halves = {name: v.astype("float32") for name, v in dataset.data_vars.items() if v.dtype == "float16"}
    return dataset.assign(halves)  # written until netCDF's types were checked: HDF5 has float16, netCDF does not


def _check_attributes(dataset: xr.Dataset, path: str) -> None:
    """Raise ValueError where an attribute that is read later is no text, or no JSON object."""
    for name in ("networks", "setting", "code_commit", "code_digest", "data_source", "device", "created"):
        if not isinstance(told := dataset.attrs.get(name, ""), str):
            raise ValueError(f"{path}: the attribute {name} is no text but {told!r}")
    for name in ("code_changed", "shards", "wall_seconds", "n_classes"):
        if not np.isscalar(told := dataset.attrs.get(name, 0)) or isinstance(told, str):
            raise ValueError(f"{path}: the attribute {name} is no number but {told!r}")
    for name in ("parameters", "data_digest", "versions"):
        try:
            told = json.loads(dataset.attrs.get(name, "{}"))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: the attribute {name} is not valid JSON: {error}") from error
        if not isinstance(told, dict):
            raise ValueError(f"{path}: the attribute {name} is no JSON object but {told!r}")


def _check_types(dataset: xr.Dataset, path: str) -> None:
    """Raise ValueError where a variable or an attribute has a type that readers of netCDF-4 do not know."""
    values = {name: variable.values for name, variable in dataset.variables.items()}
    for owner, attrs in (("", dataset.attrs), *((f"{name}.", v.attrs) for name, v in dataset.variables.items())):
        values |= {f"attribute {owner}{name}": np.asarray(value) for name, value in attrs.items()}
    for name, array in values.items():
        kind = array.dtype.kind
        text = kind in "UT" or (kind == "O" and all(isinstance(value, str) for value in array.flat))
        if not text and (kind not in "fiu" or array.dtype.itemsize > 8 or array.dtype == "float16"):
            raise ValueError(f"{path}: {name} is {array.dtype}, which netCDF-4 does not have")


def _check(dataset: xr.Dataset, stage: str, path: str) -> None:
    expected = schema(stage)
    if dataset.attrs.get("stage") != stage:
        raise ValueError(f"{path} is a data set of stage {dataset.attrs.get('stage')!r}, not {stage!r}")
    for name, dims in expected.items():
        if name not in dataset:
            raise ValueError(f"{path}: variable {name!r} of stage {stage!r} is missing")
        if set(dataset[name].dims) != set(dims):
            raise ValueError(f"{path}: {name} has dimensions {dataset[name].dims}, not {dims}")
        if name != "verdict" and dataset[name].dtype.kind not in "fiu":
            raise ValueError(f"{path}: {name} holds {dataset[name].dtype}, not numbers")
    if "model" in dataset.dims:
        if missing := [label for label in ("model", *LABELS) if label not in dataset.coords]:
            raise ValueError(f"{path}: coordinates {missing} of the networks are missing")
        for label, (default, _) in LABELS.items():
            if dataset[label].dtype.kind not in ("OUT" if isinstance(default, str) else "iuf"):
                raise ValueError(f"{path}: the coordinate {label} holds {dataset[label].dtype}, like no {default!r}")
        if not dataset.indexes["model"].is_unique:
            raise ValueError(f"{path}: the same network appears twice")


def concat(paths: Iterable[Path | str], *, stage: str) -> xr.Dataset:
    """Join the shards of a stage along their first dimension.

    Raises:
        ValueError: shards that come from different data, parameters (other than `SHARD_PARAMETERS`) or settings, or
            that hold the same network twice.
    """
    return join({path: read(path, stage=stage) for path in paths}, stage=stage)


def join(parts: Mapping[Path | str, xr.Dataset], *, stage: str) -> xr.Dataset:
    """Join data sets that are in memory, by the place that a message should name, as `concat` does."""
    if not parts:
        raise ValueError(f"no shards of stage {stage!r} to join")
    dim = next(iter(schema(stage).values()))[0]
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


def read_results(folder: Path | str, *, needed: Collection[str] = STAGES) -> dict[str, xr.Dataset]:
    """The joined data sets ``<folder>/<stage>.nc`` of a finished or published run, without the ledger.

    Args:
        folder: of the data sets.
        needed: stages that must be there, by default all of a run; those of `EXTRA` are read where they are there.

    Raises:
        FileNotFoundError: a stage is missing.
    """
    extra = [stage for stage in EXTRA if (Path(folder) / f"{stage}.nc").is_file()]
    return {stage: read(Path(folder) / f"{stage}.nc", stage=stage) for stage in (*needed, *extra)}
