"""Published copies of a run's data sets: smaller, of one run or of several joined, whole or not at all."""

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from ...files import only_writer, project_root, sync_folder, temporary_name
from .. import records
from ..claims.ledger import ledger
from ..groups import Results
from ..questions import answers
from ..records import checksums as manifest
from ..stages import EXTRA, QUESTIONS, STAGES
from . import notebook_pages
from .places import data_folder, pages_folder

IMAGE_GROUPS = 16  # groups of which values per image are published, for the sampling error of images; of 100: 40 MB

NAME = re.compile(r"\w[\w.-]*")  # of a setting

PER_IMAGE = ("correct", "perturbation_norm", "success", "robust", "correct_draws", "gradient_norm", "margin")


def publish(
    run: Path | str, folder: Path | str | None = None, *, source: str = "", add: bool = False, replace: bool = False
) -> list[Path]:
    """Copy a finished run's joined data sets to ``folder``, smaller, and enter them into its list of sums.

    Norms and margins per image keep 11 significant bits, and what no figure or claim needs per image (`PER_IMAGE`) is
    kept of the first `IMAGE_GROUPS` groups only: not a number, or -1, in others.

    Args:
        run: folder of the run.
        folder: where the copies go, by default that of the run's setting.
        source: what readers should be told of the images in place of the name of their folder or archive.
        add: the run's groups to those in ``folder``, where the same may have been measured on another machine. The run
            may then hold open questions alone.
        replace: what is in ``folder``, though groups or questions go that the run does not have.

    Returns:
        The data sets written. The run's executed notebooks become pages beside its setting's figures.

    Raises:
        FileNotFoundError: a stage is missing.
        ValueError: groups to add that are there already, or that were measured otherwise; data sets that do not belong
            together, or a run whose conclusions were drawn from others; what would be lost without ``replace``. Nothing
            was written then.
    """
    run, root = Path(run), project_root()
    place = data_folder(root, setting := _setting(run)) if folder is None else Path(folder)
    if place.resolve() in (run.resolve(), (run / "results").resolve()):
        raise ValueError(f"{place} lies in the run itself: copies would take the place of its data sets")
    if place.exists() and not place.is_dir():
        raise ValueError(f"{place} is a file, where a folder of data sets belongs")
    with only_writer(run), only_writer(place):
        written = _publish(run, place, source, add=add, replace=replace)
        if folder is None:
            notebook_pages.keep(run, pages_folder(root, setting), add=add)
    return written


def _setting(run: Path) -> str:
    """Whose values a run has; its own name where they are no setting's."""
    results = records.read_results(run / "results", needed=())
    path = run / "results" / "train.nc"
    first = next(iter(results.values())) if results and not path.is_file() else records.read(path, stage="train")
    if not NAME.fullmatch(setting := first.attrs["setting"]):
        raise ValueError(f"{run} tells the setting {setting!r}, which names no folder")
    return setting


def _publish(run: Path, folder: Path, source: str, *, add: bool, replace: bool) -> list[Path]:
    there = {path.stem for path in (run / "results").glob("*.nc")}
    asked_alone = add and there & set(EXTRA) and not there & set(STAGES)
    results = records.read_results(run / "results", needed=() if asked_alone else STAGES)
    if stopped := _not_concluded(run / "results", results):
        raise ValueError(f"{stopped}; finish the run first")
    if "train" in results and (wrong := _listed(records.misfits(results))):
        raise ValueError(
            f"the data sets of {run} do not go together; other than in train.nc are {wrong}: ask these questions anew, "
            "or remove them"
        )
    if source:
        results = {stage: _renamed(dataset, source) for stage, dataset in results.items()}
    needed = [stage for stage in STAGES if asked_alone or (add and (folder / f"{stage}.nc").is_file())]
    published = records.read_results(folder, needed=needed)
    if add:
        results = _added(results, published, run, folder)
    misfits = records.misfits(published | results)
    gone = [stage for stage in misfits if stage not in results and not add]
    if wrong := _listed({stage: why for stage, why in misfits.items() if stage not in gone}):
        raise ValueError(f"{run} and {folder} do not go together; other than in train.nc are {wrong}")
    if not (add or replace) and (lost := _lost(folder, results, gone)):
        raise ValueError(f"{folder} would lose {lost}, which {run} does not have: add to it (--add) or --replace it")
    together = published | {stage: _smaller(dataset) for stage, dataset in results.items()}
    together = {stage: together[stage] for stage in (*STAGES, *EXTRA) if stage in together.keys() - gone}
    with _all_at_once(folder) as staging:
        for stage in results:
            records.write(together[stage], staging / f"{stage}.nc", stage=stage)
        written = [*(staging / f"{stage}.nc" for stage in results), *_conclude(staging, together)]
    if not set(together) & set(QUESTIONS):
        gone.append("answers")
    for stage in gone:
        (folder / f"{stage}.nc").unlink(missing_ok=True)
    written = [folder / path.name for path in written]
    manifest.enter(written)
    return written


def _listed(misfits: Mapping[str, str]) -> str:
    return ", ".join(f"{stage}.nc ({why})" for stage, why in misfits.items())


def _lost(folder: Path, results: Results, gone: Collection[str]) -> str:
    """What is published and would go, in words."""
    train, groups = folder / "train.nc", []
    if train.is_file():
        there, here = (each.group.values.tolist() for each in (records.read(train, stage="train"), results["train"]))
        groups = [f"the groups {left}"] if (left := sorted({*there} - {*here})) else []
    return " and ".join([*groups, *(f"{stage}.nc" for stage in gone)])


@contextmanager
def _all_at_once(folder: Path) -> Iterator[Path]:
    """A folder whose files take their places in ``folder`` when the block ends well: what takes long is over then."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = temporary_name(folder / "together")
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            path.replace(folder / path.name)
        sync_folder(folder)
    finally:
        shutil.rmtree(staging)


def _not_concluded(folder: Path, results: Results) -> str:
    """Which conclusion in a folder was not drawn from the data sets there, in words: who wrote there was stopped."""
    for conclusion in ("ledger", "answers"):
        if not (path := folder / f"{conclusion}.nc").is_file():
            continue
        made_from = json.loads(records.read(path, stage=conclusion).attrs.get("parameters", "{}")).get("made_from", {})
        for stage, created in made_from.items():
            if stage in results and results[stage].attrs.get("created", "") != created:
                return f"{path} was not drawn from {stage}.nc beside it"
    return ""


def conclude(folder: Path) -> None:
    """Draw ledger and answers anew from the published data sets in a folder; those that say the same stay."""
    with only_writer(folder), _all_at_once(folder) as staging:
        drawn = _conclude(staging, records.read_results(folder))
        same = [path for path in drawn if _says(path, folder / path.name)]
        for path in same:
            path.unlink()
    manifest.enter([folder / path.name for path in drawn if path not in same])


def _says(path: Path, other: Path) -> bool:
    """Whether a conclusion says what another one does, drawn from the same data sets."""
    if not other.is_file():
        return False
    new, old = (records.read(each, stage=path.stem) for each in (path, other))
    return new.equals(old) and new.attrs.get("parameters") == old.attrs.get("parameters")


def _conclude(folder: Path, results: Results) -> list[Path]:
    """Write the ledger of data sets, and the answers where questions were asked, to a folder; their files."""
    asked = {stage: data for stage, data in results.items() if stage in QUESTIONS}
    concluded = {"ledger": (ledger, results)} | ({"answers": (answers.answer, asked)} if asked else {})
    for stage, (conclude, given) in concluded.items():
        clock = records.Clock()
        found = conclude(given)
        records.write(found, folder / f"{stage}.nc", stage=stage, attrs=records.derived(given, clock=clock))
    return [folder / f"{stage}.nc" for stage in concluded]


def _added(results: Results, published: Results, run: Path, folder: Path) -> dict[str, xr.Dataset]:
    """A run's data sets behind those that are published, where there are some.

    Of an addition that was stopped some data sets are there already; then the others are added.
    """
    joined, new = {}, False
    for stage, dataset in results.items():
        path = folder / f"{stage}.nc"
        if stage in published:
            old = published[stage]
            both = sorted(set(old.group.values.tolist()) & set(dataset.group.values.tolist()))
            if both and not _same(old, dataset, both):
                raise ValueError(f"{path} holds the groups {both} already, which {run} would add")
            parts = {path: old}
            if (more := _of_groups(dataset, both, those=False)).group.size:
                parts[run / "results" / path.name] = more
                new = True
            joined[stage] = records.join(parts, stage=stage)
        else:
            joined[stage], new = dataset, True
    if not new and not _not_concluded(folder, published):
        raise ValueError(f"{folder} holds the groups of {run} already")
    return joined


def _of_groups(dataset: xr.Dataset, groups: list[int], *, those: bool) -> xr.Dataset:
    """Networks (or pairs) of some groups, or of all others."""
    [dim] = dataset.group.dims
    return dataset.isel({dim: (dataset.group.isin(groups) == those).values})


def _same(published: xr.Dataset, dataset: xr.Dataset, groups: list[int]) -> bool:
    """Whether some groups were measured alike, but for values per image, which are published in part."""
    ours, theirs = (_of_groups(data, groups, those=True) for data in (published, dataset))
    names = [name for name, values in theirs.data_vars.items() if "image" not in values.dims]
    return all(ours[name].variable.equals(theirs[name].variable) for name in names)


def _renamed(dataset: xr.Dataset, source: str) -> xr.Dataset:
    """The data set with another name of its images."""
    old = dataset.attrs["data_source"]
    if "version" in dataset.coords:
        names = [source if name == old else name for name in dataset.version.values.tolist()]
        dataset = dataset.assign_coords(version=dataset.version.copy(data=np.array(names, dtype=object)))
    return dataset.assign_attrs(data_source=source)


def _smaller(dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.copy()
    kept = dataset["group"].isin(np.unique(dataset["group"])[:IMAGE_GROUPS])
    for name, variable in dataset.data_vars.items():
        if not {"model", "image"} <= set(variable.dims):
            continue
        if name in PER_IMAGE and not kept.all():
            blank = np.nan if variable.dtype.kind == "f" else -1
            needed = kept
            if name == "gradient_norm":  # stands beside the local bounds, on their images
                bounded = dataset.local_lipschitz.notnull().all(["model", "radius"])
                needed = kept | bounded | ~bounded.any()  # alone where there are none
            variable = variable.where(needed, blank).astype(variable.dtype).transpose(*variable.dims)
            variable.attrs = dataset[name].attrs | {"comment": f"per image for the first {IMAGE_GROUPS} groups only"}
        dataset[name] = variable.copy(data=_rounded(variable.values)) if variable.dtype.kind == "f" else variable
    return dataset


def _rounded(values: np.ndarray) -> np.ndarray:
    """The nearest float32 with 11 significant bits, as many as float16 has, which netCDF has not; zeros compress."""
    values = values.astype(np.float32)
    bits = values.view(np.uint32)
    even = (bits >> np.uint32(13)) & np.uint32(1)  # halves go to the even neighbour
    rounded = ((bits + np.uint32(0xFFF) + even) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(values), rounded, values)
