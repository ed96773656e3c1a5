"""Figures and the page of a run, and the published copies: drawn from data sets alone, never from weights.

python -m hrebasin.page publish data/runs/cpu data/published
python -m hrebasin.page figures data/published figures
"""

import argparse
import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
import xarray as xr
from PIL import Image

from . import figures, records
from .claims import ledger
from .files import write_atomically

Results = Mapping[str, xr.Dataset]
IMAGE_GROUPS = 8  # groups of which values per image are published; of 100 they would take 40 MB
EXTRA = ("versions",)  # data sets that a run may have beside its stages
PER_IMAGE = ("correct", "perturbation_norm", "success", "gradient_norm", "margin")
SCREEN = 1.3  # figures are drawn for print; on a screen they are read from further away


def read_results(folder: Path | str) -> dict[str, xr.Dataset]:
    """The joined data sets ``<folder>/<stage>.nc`` of a finished or published run, without the ledger.

    Those of `EXTRA` are read where they are there.

    Raises:
        FileNotFoundError: a stage is missing.
    """
    extra = [stage for stage in EXTRA if (Path(folder) / f"{stage}.nc").is_file()]
    return {stage: records.read(Path(folder) / f"{stage}.nc", stage=stage) for stage in (*records.STAGES, *extra)}


def write_page(path: Path | str, results: Results, claims: xr.Dataset, drawn: Path | str) -> None:
    """One HTML file with figures, ledger and provenance; it loads nothing from elsewhere."""
    images = []
    for name in figures.drawable(results):
        png = (Path(drawn) / f"{name}.png").read_bytes()
        with Image.open(Path(drawn) / f"{name}.png") as image:
            width = round(image.width / image.info["dpi"][0] * 25.4 * SCREEN)
        caption = (Path(drawn) / f"{name}.md").read_text().strip()
        images.append({"name": name, "data": base64.b64encode(png).decode(), "caption": caption, "width": width})
    attrs = results["merge"].attrs
    origin = [
        {
            "stage": stage,
            "seconds": dataset.attrs.get("wall_seconds", float("nan")),
            "n": dataset.sizes.get("model", dataset.sizes.get("pair")),
            **{key: str(dataset.attrs.get(key, "")) for key in ("code_commit", "device", "created")},
            "digests": ", ".join(f"{split} {digest[:8]}" for split, digest in _digests(dataset).items()),
            "changed": bool(dataset.attrs.get("code_changed", 0)),
        }
        for stage, dataset in results.items()
    ]
    environment = jinja2.Environment(loader=jinja2.PackageLoader("hrebasin", "."), autoescape=True)
    html = environment.get_template("page.html").render(
        profile=attrs["profile"],
        source=attrs["data_source"],
        n_groups=len(set(results["merge"].group.values.tolist())),
        n_networks=int((results["merge"].method == "unmerged").sum()),
        claims=[_row(claims.sel(claim=name)) for name in claims.claim.values],
        figures=images,
        origin=origin,
        versions=json.loads(attrs["versions"]),
    )
    write_atomically(Path(path), html)


def _digests(dataset: xr.Dataset) -> dict[str, str]:
    return json.loads(dataset.attrs.get("data_digest", "{}"))


def ledger_table(claims: xr.Dataset) -> str:
    """The ledger as a Markdown table: claim, effect with its 95 % interval over groups, n and verdict."""
    rows = ["| claim | the paper says | measured: effect (95 % interval), n | verdict |", "|---|---|---|---|"]
    for name in claims.claim.values:
        row = _row(claims.sel(claim=name))
        units = "" if row["effect_units"] == "1" else f" {row['effect_units'].removeprefix('1 ')}"
        spread = "" if row["low"] == "–" else f" ({row['low']} to {row['high']})"
        measured = f"{row['statistic']}: {row['effect']}{units}{spread}, n = {row['n']}"
        rows.append(f"| {row['id']} | {row['title']} | {measured} | {row['verdict']} |")
    return "\n".join(rows) + "\n"


def _row(claim: xr.Dataset) -> dict:
    def number(name):
        value = float(claim[name])
        return "–" if value != value else f"{value:.3g}"

    return {
        "id": str(claim.claim.values),
        **{name: str(claim[name].values) for name in ("title", "statistic", "effect_units", "verdict", "sentence")},
        **{name: number(name) for name in ("effect", "low", "high", "n", "p_holm")},
    }


def publish(run: Path | str, folder: Path | str, *, source: str = "") -> list[Path]:
    """Copy a finished run's joined data sets to ``folder``, smaller.

    Norms and margins per image become float16, and what no figure or claim needs per image (`PER_IMAGE`) is kept of the
    first `IMAGE_GROUPS` groups only: not a number, or -1, in others.

    Args:
        run: folder of the run.
        folder: where the copies go.
        source: what readers should be told of the images in place of the name of their folder or archive.

    Returns:
        The files written.
    """
    run, folder, clock, written = Path(run), Path(folder), records.Clock(), []
    for stage, dataset in read_results(run / "results").items():
        path = folder / f"{stage}.nc"
        records.write(_smaller(_renamed(dataset, source) if source else dataset), path, stage=stage)
        written.append(path)
    path = folder / "ledger.nc"
    results = read_results(folder)
    records.write(ledger(results), path, stage="ledger", attrs=records.derived(results, clock=clock))
    return [*written, path]


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
    results = read_results(published)
    claims = records.read(Path(published) / "ledger.nc", stage="ledger")
    figures.draw_all(results, folder)
    write_atomically(Path(folder) / "ledger.md", ledger_table(claims))
    write_page(Path(folder) / "index.html", results, claims, folder)
    if (path := Path(published) / "benchmarks.nc").is_file():
        figures.draw_benchmarks(records.read(path, stage="benchmarks"), folder)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m hrebasin.page", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("figures", "publish"))
    parser.add_argument("source", type=Path, help="data sets: published ones, or a run's folder for publish")
    parser.add_argument("target", type=Path, help="folder to write to")
    parser.add_argument("--images", default="", help="for publish: what readers are told of the images")
    given = parser.parse_args(arguments)
    try:
        if given.action == "figures":
            redraw(given.source, given.target)
        else:
            publish(given.source, given.target, source=given.images)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
