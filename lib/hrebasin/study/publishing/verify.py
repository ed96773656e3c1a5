"""Whether published files are those that were written, and say what their data say."""

from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.backends.backend_pdf import pdfRepr
from PIL import Image

from .. import records
from ..claims.ledger import ledger
from ..figures import registry as figures
from ..questions import answers
from ..records import checksums as manifest
from ..stages import EXTRA, QUESTIONS, STAGES
from .notebook_pages import FOLDER
from .places import benchmarks_file, data_folder, pages_folder, places


def verify_all(root: Path) -> tuple[list[str], list[str]]:
    """Check what is published in a project of every setting, and the benchmarks; as `verify`."""
    checked, settings = [], places(root)
    there = {place.data for place in settings}
    lists = data_folder(root, "").glob(f"*/{manifest.NAME}")
    wrong = [f"{path.parent / 'ledger.nc'} is missing" for path in sorted(lists) if path.parent not in there]
    for place in settings:
        found = verify(place.data, place.figures, setting=place.setting)
        checked += [f"{place.setting}: {line}" for line in found[0]]
        wrong += found[1]
    executed = [pages_folder(root, place.setting) for place in settings]
    for pages in (root / "figures" / FOLDER, *(each for each in executed if each.is_dir())):
        wrong += manifest.compare(pages, "*.html", "*.css")[1]
    path = benchmarks_file(root)
    wrong += manifest.compare(path.parent, "*.nc")[1]
    if path.is_file():
        try:
            benchmarks = records.read(path, stage="benchmarks")
            wrong += [f"{path} {problem}" for problem in _origin_problems(benchmarks)]
            wrong += _drawn_from_others(root / "figures", {"benchmarks": benchmarks})
        except ValueError as error:
            wrong.append(str(error))
    return checked, wrong


def verify(published: Path, drawn: Path, *, setting: str) -> tuple[list[str], list[str]]:
    """Check a setting's published data sets and the figures drawn from them.

    Args:
        published: folder of data sets, the ledger among them, with their sums.
        drawn: folder of figures, with theirs.
        setting: whose they must be.

    Returns:
        What was checked, and what is wrong, each in a sentence that names the file.
    """
    data, wrong = manifest.compare(published, "*.nc")
    files, others = manifest.compare(drawn, "*.pdf", "*.png", "*.md", "*.html")
    wrong += others if drawn.is_dir() else [f"{drawn} is missing: `make figures` draws what is published"]
    checked = [f"{len(data)} data sets and {len(files)} files of figures have the SHA-256 sums that were written down"]
    results = {}
    for path in sorted(published.glob("*.nc")):
        try:
            results[path.stem] = records.read(path, stage=path.stem)
        except (ValueError, OSError) as error:  # also of a folder, or a link that leads nowhere
            wrong.append(str(error))
            continue
        wrong += [f"{path} {problem}" for problem in _origin_problems(results[path.stem])]
    checked.append(f"{len(results)} data sets follow their schema and say where they come from")
    named = results["train"].attrs.get("setting") if "train" in results else setting
    if named != setting:
        wrong.append(f"{published / 'train.nc'} is of the setting {named!r}, not of {setting!r}")
    if missing := [f"{published / stage}.nc cannot be used" for stage in (*STAGES, "ledger") if stage not in results]:
        return checked, wrong + missing
    together = {stage: results[stage] for stage in (*STAGES, *EXTRA) if stage in results}
    wrong += [
        f"{published / stage}.nc differs from train.nc in {why}" for stage, why in records.misfits(together).items()
    ]
    checked.append(f"{len(together)} data sets are of the same networks, images and parameters")
    drawn_anew = {"ledger": (claims := ledger({stage: results[stage] for stage in STAGES}))}
    if "answers" in results:
        asked = answers.answer({stage: results[stage] for stage in QUESTIONS if stage in results})
        drawn_anew["answers"] = asked
        checked.append(f"the answers to {asked.sizes['asked']} open questions follow from the data")
    wrong += [
        f"{published / conclusion}.nc: {name} of {', '.join(where)} does not follow from the data sets"
        for conclusion, again in drawn_anew.items()
        for name, where in _differences(results[conclusion], again).items()
    ]
    n = len(set(claims.claim.values.tolist()))
    checked.append(f"the {n} claims of the ledger and their {claims.sizes['part']} comparisons follow from the data")
    wrong += _drawn_from_others(drawn, results)
    checked.append("figures were drawn from these data sets")
    return checked, wrong


def _origin_problems(dataset: xr.Dataset) -> list[str]:
    lacking = [name for name in records.PROVENANCE if dataset.attrs.get(name, "") == ""]
    problems = [f"does not tell {', '.join(lacking)}"] if lacking else []
    if dataset.attrs.get("code_changed") or "unknown" in dataset.attrs.get("code_commit", ""):
        problems.append("was made by code that is in no commit")
    return problems


def _differences(published: xr.Dataset, again: xr.Dataset) -> dict[str, list[str]]:
    """Variables of the ledger or the answers that differ, each with the claims or questions concerned."""
    found, names = {}, {"part": "claim", "asked": "asked", "row": "question"}
    for name, values in again.data_vars.items():
        claim = again[names[values.dims[0]]].values
        if name not in published or published[name].shape != values.shape:
            found[name] = ["all"]
        elif values.dtype.kind == "f":
            # another processor sums in another order
            same = np.isclose(published[name], values, rtol=1e-6, atol=1e-9, equal_nan=True)
            found[name] = claim[~same].tolist()
        else:
            found[name] = claim[published[name].values != values.values].tolist()
    return {name: list(dict.fromkeys(where)) for name, where in found.items() if where}


def _drawn_from_others(drawn: Path, results: dict[str, xr.Dataset]) -> list[str]:
    wrong = []
    drawings = {name: stages for name, (_, stages) in figures.FIGURES.items()}
    for name, stages in (drawings | dict.fromkeys(figures.BENCHMARKS, ("benchmarks",))).items():
        if not set(stages) <= set(results):
            continue
        source = figures.source(results, stages)
        for path in (drawn / f"{name}.png", drawn / f"{name}.pdf"):
            try:
                if path.is_file() and not _names(path, source):  # missing files are found by their sums
                    wrong.append(f"{path} was drawn from other data sets than those published; run `make figures`")
            except (OSError, SyntaxError) as error:  # as PIL's readers of pictures raise
                wrong.append(f"{path} cannot be read as a picture: {error}")
    return wrong


def _names(path: Path, source: str) -> bool:
    """Whether a figure's metadata name what it was drawn from."""
    if path.suffix == ".pdf":
        return b"/Subject " + pdfRepr(source) in path.read_bytes()
    with Image.open(path) as image:
        return image.info.get("Description") == source
