"""Where what is published lies: a folder of data sets a setting; the main setting's figures and then the others'."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import xarray as xr
from matplotlib.figure import Figure

from .. import records
from ..figures import drawable
from ..groups import Results
from ..questions.wording import listed

ORDER = ("augmented", "plain", "fashion", "convolutional", "residual")  # of settings, the main one first
COMPARED = ("fig1_accuracy", "fig2_robust_accuracy", "fig9_controls")  # figures that settings are compared by


class Place(NamedTuple):
    """What is published of a setting: its name, folders of its data sets and figures, names of figures (None: all)."""

    setting: str
    data: Path
    figures: Path
    names: tuple[str, ...] | None


class Published(NamedTuple):
    """What is told of a setting: ledger, answers to open questions if asked, data sets by stage, figures by name."""

    ledger: xr.Dataset
    answers: xr.Dataset | None
    results: Results = {}
    drawn: Mapping[str, Figure] = {}


Settings = Mapping[str, Published]  # by name, the main one first


def quoted(names: Iterable[str]) -> str:
    """Names of settings in a sentence: "`plain` and `fashion`"."""
    return listed([f"`{name}`" for name in names])


def read_published(folder: Path) -> Published:
    """The ledger, answers and data sets of a setting in a folder."""
    ledger, asked = records.read(folder / "ledger.nc", stage="ledger"), folder / "answers.nc"
    answers = records.read(asked, stage="answers") if asked.is_file() else None
    return Published(ledger, answers, records.read_results(folder))


def data_folder(root: Path, setting: str) -> Path:
    """Folder of a setting's published data sets."""
    return root / "data" / "published" / setting


def pages_folder(root: Path, setting: str) -> Path:
    """Folder of the pages of a setting's executed notebooks."""
    return root / "figures" / setting / "notebooks"


def benchmarks_file(root: Path) -> Path:
    """The data set of the benchmarks, which belong to no setting."""
    return root / "data" / "published" / "benchmarks.nc"


def places(root: Path) -> list[Place]:
    """All settings that are published, the main one first; the others draw what no setting before them can.

    Raises:
        FileNotFoundError: none is.
    """
    folder = data_folder(root, "")
    there = sorted(path.parent.name for path in folder.glob("*/ledger.nc"))
    if not there:
        raise FileNotFoundError(f"no setting is published in {folder}")
    found, shown = [], set()
    for name in sorted(there, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        data, figures = data_folder(root, name), root / "figures"
        here = drawable({path.stem for path in data.glob("*.nc")})
        names = tuple(each for each in here if each in COMPARED or each not in shown)
        found.append(Place(name, data, figures / name, names) if found else Place(name, data, figures, None))
        shown |= set(here)
    return found
