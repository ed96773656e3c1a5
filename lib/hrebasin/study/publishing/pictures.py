"""What the page shows of a figure: the drawing, its words and numbers, and where its data, notebooks and files are."""

import re
from urllib.parse import quote

from matplotlib.figure import Figure

from ..figures.alt_text import alt_text, curve_values
from ..figures.style import svg

CLAIM_FIGURES = {  # claim -> the figures that show it
    **dict.fromkeys(("C1", "C2", "C3"), ("fig1_accuracy",)),
    "C4": ("fig1_accuracy", "fig5_barriers"),
    **dict.fromkeys(("C5", "C6", "C12"), ("fig2_robust_accuracy",)),
    **dict.fromkeys(("C9", "C11"), ("fig5_barriers",)),
    "C7": ("fig3_weight_norm",),
    "C8": ("fig4_lipschitz",),
    "C10": ("fig7_noise",),
}
PLAIN = " !$&'()*+,-./:;=?@_~<>"  # characters that an address of data may hold as they are


def title(name: str) -> str:
    """A heading for a figure.

    >>> title("fig2_robust_accuracy")
    'Figure 2: robust accuracy'
    """
    kind, number, words = re.fullmatch("(fig|bench|table)([0-9]+)_(.*)", name).groups()
    kinds = {"fig": "Figure", "bench": "Benchmark", "table": "Table"}
    return f"{kinds[kind]} {number}: {words.replace('_', ' ')}"


def picture(name: str, figure: Figure, caption: str, *, seen: str = "", where: str = "") -> dict:
    """What the page shows of a figure.

    Args:
        name: of its files.
        figure: as drawn.
        caption: below it.
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
        "svg": quote(_shorter(svg(figure)), safe=PLAIN),
        "alt": f"{where}: {alt_text(figure)}" if where else alt_text(figure),
        "caption": caption,
        "numbers": curve_values(figure),
    }


def _shorter(drawing: str) -> str:
    """An SVG element whose paths have two decimals, a hundredth of a point: a third less to load."""
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), drawing)
