"""Figures and the page of a run, and the published copies: drawn from data sets alone, never from weights.

python -m hrebasin.page publish data/runs/cpu data/published
python -m hrebasin.page figures data/published figures
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import answers, figures, manifest, records
from .claims import ledger
from .drawing import svg
from .files import project_root, temporary_name, write_atomically
from .folders import only_writer
from .in_words import alt_text, curve_values
from .layout import EXTRA, NOTEBOOKS, QUESTIONS
from .verdicts import MARKS, answer, ledger_table, rows, tally
from .vision import VISIONS

Results = Mapping[str, xr.Dataset]
IMAGE_GROUPS = 8  # groups of which values per image are published; of 100 they would take 40 MB
PER_IMAGE = ("correct", "perturbation_norm", "success", "gradient_norm", "margin")


def read_results(folder: Path | str, *, needed: Collection[str] = records.STAGES) -> dict[str, xr.Dataset]:
    """The joined data sets ``<folder>/<stage>.nc`` of a finished or published run, without the ledger.

    Args:
        folder: of the data sets.
        needed: stages that must be there, by default all of a run; those of `EXTRA` are read where they are there.

    Raises:
        FileNotFoundError: a stage is missing.
    """
    extra = [stage for stage in EXTRA if (Path(folder) / f"{stage}.nc").is_file()]
    return {stage: records.read(Path(folder) / f"{stage}.nc", stage=stage) for stage in (*needed, *extra)}


def write_page(
    path: Path | str,
    results: Results,
    claims: xr.Dataset,
    drawn: Mapping[str, Figure],
    *,
    data: Path | str = "results",
    notebooks: Path | str = "notebooks",
    files: Path | str = "figures",
    asked: xr.Dataset | None = None,
    benchmarks: xr.Dataset | None = None,
) -> None:
    """One HTML file with the answer, figures, ledger and provenance; it loads nothing, and links to what is near.

    Args:
        path: of the page.
        results: data sets by stage.
        claims: the ledger.
        drawn: figures by name, as `hrebasin.figures.draw_all` returns them; the first one is the main figure.
        data, notebooks, files: folders of data sets, notebooks and figures, from the page's folder.
        asked: the answers to open questions, where the page should show them too.
        benchmarks: their data set, where the page should show them too.
    """
    folder, pictures = Path(path).parent, []
    for name, figure in drawn.items():
        links = []
        for stage in figures.FIGURES[name][1]:
            links.append((f"data {stage}.nc", Path(data, f"{stage}.nc")))
            pattern = f"{(NOTEBOOKS | EXTRA)[stage]}*.ipynb"  # executed ones are a shard each
            made_by = sorted((folder / notebooks).glob(pattern))
            links += [(f"notebook {found.stem}", Path(notebooks, found.name)) for found in made_by[:1]]
        shown = _picture(name, figure, figures.caption(name, results), links, files)
        pictures.append(shown | {"numbers": curve_values(figure)})
    speed = []
    if benchmarks is not None:
        links = [("data benchmarks.nc", Path(data, "benchmarks.nc"))]
        for name, (draw, _) in figures.BENCHMARKS.items():
            text = figures.benchmark_caption(name, benchmarks)
            speed.append(_picture(name, draw(benchmarks), text, links, files))
    attrs = results["merge"].attrs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hrebasin", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("page.html").render(
        answer=answer(claims, results),
        tally=[(verdict, MARKS[verdict], len(names)) for verdict, names in tally(claims).items()],
        claims=rows(claims),
        questions=[] if asked is None else answers.sentences(asked),
        figures=pictures,
        benchmarks=speed,
        visions={name: matrix.tolist() for name, matrix in VISIONS.items() if name != "full colour"},
        origin=[_origin(stage, dataset) for stage, dataset in results.items()],
        profile=attrs["profile"],
        source=attrs["data_source"],
        versions=json.loads(attrs["versions"]),
    )
    write_atomically(Path(path), html)


def title(name: str) -> str:
    """A heading for a figure.

    >>> title("fig2_robust_accuracy")
    'Figure 2: robust accuracy'
    """
    kind, number, words = re.fullmatch("(fig|bench)([0-9]+)_(.*)", name).groups()
    return f"{'Figure' if kind == 'fig' else 'Benchmark'} {number}: {words.replace('_', ' ')}"


def _picture(name: str, figure: Figure, caption: str, links: list, files: Path | str) -> dict:
    """What the page shows of a figure; links as (text, path)."""
    links = [*links, *((ending.upper(), Path(files, f"{name}.{ending}")) for ending in ("pdf", "png"))]
    return {
        "name": name,
        "title": title(name),
        "svg": quote(svg(figure), safe=" !$&'()*+,-./:;=?@_~<>"),
        "alt": alt_text(figure),
        "caption": caption,
        "links": [(text, quote(target.as_posix())) for text, target in links],
    }


def _origin(stage: str, dataset: xr.Dataset) -> dict:
    """Where a data set comes from, a row of the page's table."""
    attrs, digests = dataset.attrs, json.loads(dataset.attrs.get("data_digest", "{}"))
    return {
        "stage": stage,
        "seconds": attrs.get("wall_seconds", float("nan")),
        "n": dataset.sizes.get("model", dataset.sizes.get("pair")),
        **{key: str(attrs.get(key, "")) for key in ("code_commit", "device", "created")},
        "digests": ", ".join(f"{split} {digest[:8]}" for split, digest in digests.items()),
        "changed": bool(attrs.get("code_changed", 0)),
    }


def publish(run: Path | str, folder: Path | str, *, source: str = "", add: bool = False) -> list[Path]:
    """Copy a finished run's joined data sets to ``folder``, smaller, and enter them into its list of sums.

    Norms and margins per image become float16, and what no figure or claim needs per image (`PER_IMAGE`) is kept of the
    first `IMAGE_GROUPS` groups only: not a number, or -1, in others.

    Args:
        run: folder of the run.
        folder: where the copies go.
        source: what readers should be told of the images in place of the name of their folder or archive.
        add: the run's groups to those in ``folder``, where the same may have been measured on another machine. The run
            may then hold open questions alone. Otherwise they take the place of those in ``folder``, and questions to
            other networks go.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: a stage is missing.
        ValueError: groups to add that are there already, or that were measured otherwise; data sets that do not belong
            together, or a run whose conclusions were drawn from others. Nothing was written then.
    """
    run, folder = Path(run), Path(folder)
    with only_writer(run):
        return _publish(run, folder, source, add)


def _publish(run: Path, folder: Path, source: str, add: bool) -> list[Path]:
    there = {path.stem for path in (run / "results").glob("*.nc")}
    asked_alone = add and there & set(EXTRA) and not there & set(records.STAGES)
    results = read_results(run / "results", needed=() if asked_alone else records.STAGES)
    if stopped := _not_concluded(run / "results", results):
        raise ValueError(f"{stopped}; finish the run first")
    if source:
        results = {stage: _renamed(dataset, source) for stage, dataset in results.items()}
    needed = [stage for stage in records.STAGES if asked_alone or (add and (folder / f"{stage}.nc").is_file())]
    published = read_results(folder, needed=needed)
    if add:
        results = _added(results, published, run, folder)
    misfits = records.misfits(published | results)
    gone = [stage for stage in misfits if stage not in results and not add]
    if wrong := [f"{stage}.nc ({why})" for stage, why in misfits.items() if stage not in gone]:
        raise ValueError(f"{run} and {folder} do not go together; other than in train.nc are {', '.join(wrong)}")
    kept = set(published) - set(results) - set(gone)
    with _all_at_once(folder) as staging:
        for stage, dataset in results.items():
            records.write(_smaller(dataset), staging / f"{stage}.nc", stage=stage)
        for stage in kept:
            (staging / f"{stage}.nc").symlink_to((folder / f"{stage}.nc").resolve())
        written = [*(staging / f"{stage}.nc" for stage in results), *_conclude(staging)]
    if not (kept | set(results)) & set(QUESTIONS):
        gone.append("answers")
    for stage in gone:
        (folder / f"{stage}.nc").unlink(missing_ok=True)
    written = [folder / path.name for path in written]
    manifest.enter(written)
    return written


@contextmanager
def _all_at_once(folder: Path) -> Iterator[Path]:
    """A folder whose files take their places in ``folder`` when the block ends well: what takes long is over then."""
    folder.mkdir(parents=True, exist_ok=True)
    staging = temporary_name(folder / "together")
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            if not path.is_symlink():
                path.replace(folder / path.name)
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


def _conclude(folder: Path) -> list[Path]:
    """Write the ledger, and the answers where questions were asked, of the data sets in a folder; their files."""
    clock, results = records.Clock(), read_results(folder)
    asked = {stage: data for stage, data in results.items() if stage in QUESTIONS}
    concluded = {"ledger": (ledger, results)} | ({"answers": (answers.answer, asked)} if asked else {})
    for stage, (conclude, given) in concluded.items():
        attrs = records.derived(given, clock=clock)
        records.write(conclude(given), folder / f"{stage}.nc", stage=stage, attrs=attrs)
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
                needed = kept | dataset.local_lipschitz.notnull().all(["model", "radius"])
            variable = variable.where(needed, blank).astype(variable.dtype).transpose(*variable.dims)
            variable.attrs = dataset[name].attrs | {"comment": f"per image for the first {IMAGE_GROUPS} groups only"}
        dataset[name] = variable.astype("float16") if variable.dtype.kind == "f" else variable
    return dataset


def redraw(published: Path | str, folder: Path | str) -> None:
    """Redraw all figures, the ledger's table and the page in ``folder`` from published data sets.

    Benchmarks are drawn if they are there.
    """
    published, folder = Path(published), Path(folder)
    results = read_results(published)
    claims = records.read(published / "ledger.nc", stage="ledger")
    drawn, asked, benchmarks = figures.draw_all(results, folder), None, None
    tables = {"ledger.md": ledger_table(claims)}
    if (path := published / "answers.nc").is_file():
        asked = records.read(path, stage="answers")
        tables["answers.md"] = answers.table(asked)
    for name, text in tables.items():
        write_atomically(folder / name, text)
    if (path := published / "benchmarks.nc").is_file():
        benchmarks = records.read(path, stage="benchmarks")
        figures.draw_benchmarks(benchmarks, folder)
    nearby = {"data": published, "notebooks": project_root() / "notebooks"}
    nearby = {name: os.path.relpath(place, folder) for name, place in nearby.items()}
    also = {"asked": asked, "benchmarks": benchmarks}
    write_page(folder / "index.html", results, claims, drawn, **nearby, files=".", **also)
    manifest.enter([*(folder / name for name in tables), folder / "index.html"])


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hrebasin.page", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("figures", "publish"))
    parser.add_argument("source", type=Path, help="data sets: published ones, or a run's folder for publish")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--images", default="", help="for publish: what readers are told of the images")
    parser.add_argument("--add", action="store_true", help="for publish: beside the groups that are there")
    given = parser.parse_args(arguments)
    try:
        with only_writer(given.target):
            if given.action == "figures":
                redraw(given.source, given.target)
            else:
                publish(given.source, given.target, source=given.images, add=given.add)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
