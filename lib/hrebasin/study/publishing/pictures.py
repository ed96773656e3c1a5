"""What the page shows of a figure: its picture, its words and numbers, and where its data, notebooks and files are."""

import re
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from ..figures.alt_text import alt_text, curve_values

CLAIM_FIGURES = {  # claim -> the figures that show it
    **dict.fromkeys(("C1", "C2", "C3"), ("fig1_accuracy",)),
    "C4": ("fig1_accuracy", "fig5_barriers"),
    **dict.fromkeys(("C5", "C6", "C12"), ("fig2_robust_accuracy",)),
    **dict.fromkeys(("C9", "C11"), ("fig5_barriers",)),
    "C7": ("fig3_weight_norm",),
    "C8": ("fig4_lipschitz",),
    "C10": ("fig7_noise",),
}
INCH = 96  # pixels of a page


def title(name: str) -> str:
    """A heading for a figure.

    >>> title("fig2_robust_accuracy")
    'Figure 2: robust accuracy'
    """
    kind, number, words = re.fullmatch("(fig|bench|table)([0-9]+)_(.*)", name).groups()
    kinds = {"fig": "Figure", "bench": "Benchmark", "table": "Table"}
    return f"{kinds[kind]} {number}: {words.replace('_', ' ')}"


def picture(name: str, figure: Figure, caption: str, *, files: Path, seen: str = "", where: str = "") -> dict:
    """What the page shows of a figure, whose PNG lies in the folder ``files`` from the page's.

    Args:
        seen: what it shows, in a sentence, for its heading.
        where: the setting, if it is not the main one.
    """
    number, _, words = title(name).partition(": ")
    heading = f"{number}: {seen.rstrip('.') or words}"
    return {
        "name": name,
        "id": f"{where}-{name}" if where else name,
        "number": number,
        "title": f"{heading} ({where})" if where else heading,
        "file": quote((files / f"{name}.png").as_posix()),
        "size": [round(inches * INCH) for inches in figure.get_size_inches()],
        "alt": f"{where}: {alt_text(figure)}" if where else alt_text(figure),
        "caption": caption,
        "numbers": curve_values(figure),
    }
