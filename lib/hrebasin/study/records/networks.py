"""Networks of a run, read for its later stages: only together with the images that they were trained on."""

import json
from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from ...bank import Bank
from ...bank_files import read_origin
from ...images.sources import Images
from .. import records
from ..stages import WEIGHTS

TOGETHER = ("data_digest", "parameters", "created")  # what weights and the data set beside them have in common
STAGES = {part: stage for stage, part in WEIGHTS.items()}  # part of the networks -> the stage that writes it


def load_networks(
    folder: Path | str, shard: int, parts=("unmerged", "merged"), *, images: Mapping[str, Images], device="cpu"
) -> Bank:
    """The networks of a shard, in one bank.

    Weights stand beside the data set of the stage that wrote them, which says what they were made from.

    Args:
        folder: of the run.
        shard: its number.
        parts: keys of `STAGES`.
        images: by split, what the networks are to be used with.
        device: where they go.

    Raises:
        FileNotFoundError: no weights, or no data set beside them.
        ValueError: weights or data set damaged or of another version; networks trained on other images, for other
            classes, of another architecture, or not those of the data set, or not written together with it. Files are
            named.
    """
    banks = []
    for part in parts:
        path = Path(folder) / "weights" / f"{part}-{shard:03d}.safetensors"
        record = Path(folder) / STAGES[part] / f"shard-{shard:03d}.nc"
        banks.append(Bank.load(path, device=device))
        try:
            _check_networks(banks[-1], banks[0], images)
            made_with = records.read(record, stage=STAGES[part])
            _check_origin(banks[-1], read_origin(path), made_with, images)
        except ValueError as error:
            raise ValueError(f"{path} (made with {record}): {error}") from error
        if part == "unmerged":
            records.loaded.add(records.networks_of(made_with))
    return Bank.concat(banks)


def _check_networks(bank: Bank, first: Bank, images: Mapping[str, Images]) -> None:
    if bank.architecture != first.architecture:
        raise ValueError(f"networks of different architectures: {bank.architecture} and {first.architecture}")
    for split, part in images.items():
        if (bank.architecture.image_shape, bank.architecture.n_classes) != (part.shape, len(part.classes)):
            raise ValueError(
                f"networks for images {bank.architecture.image_shape} of {bank.architecture.n_classes} classes, but "
                f"the {split} images, {part.source}, are {part.shape} of {len(part.classes)} classes"
            )


def _check_origin(bank: Bank, origin: Mapping, record: xr.Dataset, images: Mapping[str, Images]) -> None:
    lacking = [name for name in ("data_digest", "data_source", "created") if name not in record.attrs]
    if lacking:
        raise ValueError(f"the data set does not tell {', '.join(lacking)}")
    digests = json.loads(record.attrs["data_digest"])
    for split, part in images.items():
        if digests.get(split) != part.origin:
            raise ValueError(
                f"networks of other images: {split} digest {digests.get(split)} ({record.attrs['data_source']}), "
                f"but given are {part.origin} ({part.source})"
            )
    for name in TOGETHER:
        ours, theirs = origin.get(name), record.attrs.get(name)
        if origin and ours != theirs:
            raise ValueError(f"weights and data set were not written together: {name} {ours} and {theirs}")
    if strange := sorted(set(bank.coords["model"].values) - set(record.model.values)):
        raise ValueError(f"{len(strange)} networks are not in the data set, such as {strange[0]}")
