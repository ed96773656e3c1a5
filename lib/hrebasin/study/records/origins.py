"""Which trainings, images and groups data sets come from, and whether they belong together."""

import hashlib
import json
from collections.abc import Mapping

import xarray as xr

from ..stages import STAGES

SHARD_PARAMETERS = ("run_folder", "shard", "neighbour", "groups", "device")  # in which shards of one run may differ


def _origin(shard: xr.Dataset) -> dict:
    """What all shards of a run have in common."""
    # data sets that do not tell were made when there were only MLPs
    return {"network": "mlp"} | _parameters(shard) | {key: shard.attrs.get(key) for key in ("setting", "data_digest")}


def _parameters(shard: xr.Dataset) -> dict:
    parameters = json.loads(shard.attrs.get("parameters", "{}"))
    return {name: value for name, value in parameters.items() if name not in SHARD_PARAMETERS}


def networks_of(dataset: xr.Dataset) -> str:
    """Which trainings the networks come from of a data set of the stage "train", or one that tells.

    For each a digest of its parameters, images and code.
    """
    attrs = dataset.attrs
    content = [_parameters(dataset), attrs.get("data_digest"), attrs.get("code_digest")]
    return attrs.get("networks") or hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def misfits(results: Mapping[str, xr.Dataset]) -> dict[str, str]:
    """Data sets of other networks, images or groups than the one of the stage "train", with what differs in words.

    Those beside the stages of a run may have other groups.
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


def seconds(dataset: xr.Dataset) -> float:
    """What a stage took; training also counts what earlier runs, which left checkpoints, had done."""
    took = dataset.attrs.get("wall_seconds", float("nan"))
    if dataset.attrs["stage"] != "train":
        return took
    return max(took, float(dataset.seconds[(dataset.method != "stopped").values].sum()))


def describe(dataset: xr.Dataset) -> str:
    """Which data set this is, for the metadata of figures drawn from it."""
    told = {"stage": "unknown", "setting": "unknown", "created": "unknown", "code_commit": "unknown"} | dataset.attrs
    digests = [f"{split} {digest[:12]}" for split, digest in _digests(dataset).items()]
    images = ", ".join([told.get("data_source", "unknown"), *digests])
    commit = told["code_commit"][:12] + (" and changes to it" if told.get("code_changed") else "")
    return f"{told['stage']}.nc of setting {told['setting']}, made {told['created']} by commit {commit} from {images}"
