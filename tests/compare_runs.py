"""Whether two runs found the same: python tests/compare_runs.py OLD NEW. Durations and provenance may differ."""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from safetensors.numpy import load_file


def differences(old: Path, new: Path) -> tuple[int, list[str]]:
    """How many variables and weights were compared bit for bit, and which differ or are missing."""
    compared, found = 0, []
    for path in sorted([*old.rglob("*.nc"), *old.rglob("*.safetensors")]):
        other = new / path.relative_to(old)
        if not other.is_file():
            found.append(f"{path.relative_to(old)} is missing")
            continue
        ours, theirs = contents(path), contents(other)
        compared += len(ours)
        for name in ours.keys() | theirs.keys():
            if name not in ours or name not in theirs or not same(ours[name], theirs[name]):
                found.append(f"{path.relative_to(old)}: {name}")
    return compared, found


def contents(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file but durations, and comparisons of them."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with xr.open_dataset(path, engine="h5netcdf") as data:
        if "comparison" in data:  # the answers to open questions
            data = data.isel(row=~data.comparison.str.startswith("time of")).drop_vars("sentence")
        return {name: values.values for name, values in data.load().variables.items() if name != "seconds"}


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are equal; not a number equals itself."""
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


if __name__ == "__main__":
    compared, found = differences(*map(Path, sys.argv[1:3]))
    print(f"{compared} variables and weights compared bit for bit, {len(found)} differ", *found, sep="\n")
    sys.exit(bool(found))
