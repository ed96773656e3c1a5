"""Where what is published lies: a folder of data sets a setting; the main setting's figures and then the others'."""

from pathlib import Path
from typing import NamedTuple

ORDER = ("plain", "augmented", "fashion", "convolutional", "residual")  # of settings, the main one first
COMPARED = ("fig1_accuracy", "fig2_robust_accuracy", "fig9_controls")  # figures that settings are compared by


class Place(NamedTuple):
    """What is published of a setting.

    Attributes:
        setting: its name.
        data: folder of its data sets.
        figures: folder of its figures.
        names: of the figures that are drawn; None for all.
    """

    setting: str
    data: Path
    figures: Path
    names: tuple[str, ...] | None


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
    """All settings that are published, the main one first.

    Raises:
        FileNotFoundError: none is.
    """
    folder = data_folder(root, "")
    there = sorted(path.parent.name for path in folder.glob("*/ledger.nc"))
    if not there:
        raise FileNotFoundError(f"no setting is published in {folder}")
    first, *others = sorted(there, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    figures = root / "figures"
    return [
        Place(first, data_folder(root, first), figures, None),
        *(Place(name, data_folder(root, name), figures / name, COMPARED) for name in others),
    ]
