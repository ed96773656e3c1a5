"""What a reader sees first: the paper's findings down, settings across, and in each cell what came out."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

from ..claims.verdicts import ALPHA
from ..groups import PERCENT, count_groups, tree, tree_stages
from .ledger_text import MARKS, markdown_table, part_of, sized, trees, turned
from .places import Settings, quoted

KEY = (
    "Stage s holds networks merged from 2^s; those of a tree's last stage are fully merged. Early-stopped ones are "
    "unmerged networks from before the end of their training; their robustness at a merged network's accuracy is "
    "interpolated between the epochs that were kept. MergeMany is Git Re-Basin's method for many networks. "
    "FGSM moves every pixel, in [0, 1], by epsilon: weak is the mean over sizes above 0 up to 0.005, strong that over "
    "0.015 to 0.020. PGD takes many small steps within epsilon; on the margin, it lowers the lead of the right class. "
    'Parentheses hold 95 % intervals. "Yes" and "no" are significant for and against what the paper says, after '
    'Holm\'s correction for the number of tests. "Not resolved after correction" means that p is at most 0.05 before '
    "it, but not after it."
)
LIKELY = "augmented"  # the setting with most in common with public code that the paper builds on
STAGES = re.compile(r"stage (\d+)")
# verdict -> whether a part of a claim holds
HOLDS = {"reproduced": "yes", "contradicted": "no"}


class Finding(NamedTuple):
    """A part of a claim in plain words.

    Attributes:
        text: what the paper finds.
        number: what the number beside the verdict is; empty for none.
    """

    text: str
    number: str = ""


FINDINGS = {
    "C11": Finding("Merging two networks costs more than 1 point of accuracy", "points that it costs"),
    "C4a": Finding("Accuracy falls at every stage", "cost of the least certain stage, points"),
    "C5b fgsm": Finding(
        "Fully merged networks withstand strong FGSM better than unmerged ones", "points by which they lead"
    ),
    "C5a fgsm": Finding(
        "Fully merged networks withstand weak FGSM worse than unmerged ones", "points by which they trail"
    ),
    "C5c fgsm": Finding(
        "Under FGSM of epsilon 0.010 all stages are equally accurate", "points between the two that differ most surely"
    ),
    "C10a gaussian": Finding("Accuracy under Gaussian noise rises with the stage", "points per stage"),
    "C10b gaussian": Finding(
        "The share of its accuracy that a network keeps under noise rises with the stage", "points per stage"
    ),
    "C7a": Finding("Weight norms fall at every stage"),
    "C7b": Finding("Weight norms fall linearly", "last fall divided by the first; linear between 0.8 and 1.25"),
    "C8a": Finding("Lipschitz bounds fall at every stage"),
    "C1a": Finding("The tree of 4 is more accurate than converged MergeMany", "points by which it leads"),
    "C1b": Finding("The tree of 4 is more accurate than MergeMany after one sweep", "points by which it leads"),
}


class Cell(NamedTuple):
    """What came out under a setting: the sign and name of a verdict, in a word, and how much."""

    mark: str
    verdict: str
    word: str
    number: str


class Row(NamedTuple):
    """A finding, what its numbers are, its claim, and a cell for each setting."""

    text: str
    number: str
    claim: str
    cells: list[Cell]


def recipe(results: Mapping[str, xr.Dataset]) -> str:
    """A setting's networks and training, in a line."""
    attrs, several = results["train"].attrs, trees(results["merge"])
    if "parameters" not in attrs:  # of data sets that no notebook wrote
        return f"`{attrs['setting']}`: {several}."
    values = json.loads(attrs["parameters"])
    widths = "-".join(map(str, values["widths"]))
    network = f"MLPs with hidden layers of {widths} units"
    if (kind := values.get("network", "mlp")) != "mlp":
        network = f"{kind} networks of {widths} channels"
    augmented = "with crop and flip" if values.get("crop_padding") or values.get("flip") else "without augmentation"
    likely = ", our best guess at the paper's recipe, from public code that it builds on" * (attrs["setting"] == LIKELY)
    trained = f"{values['epochs']} epochs {augmented}{likely}"
    attacked = json.loads(results["attack"].attrs["parameters"])["attacked_images"]
    about = [f"{network} on {attrs['data_source']}", trained, several, f"{attacked} images attacked"]
    return f"`{attrs['setting']}`: {'; '.join(about)}."


def key(settings: Settings) -> str:
    """`KEY`, and whose intervals leave out that images are a sample too."""
    parts = {name: part_of(each.ledger, "C5b fgsm") for name, each in settings.items()}
    parts = {name: part for name, part in parts.items() if not part.low.isnull()}
    narrow = [name for name, part in parts.items() if not part.images.item()]
    if len(narrow) == len(parts):
        return KEY
    alone = f" In {quoted(narrow)}, intervals under FGSM and noise resample trees alone and are too narrow."
    where = "Elsewhere" if narrow else "Under FGSM and noise"
    said = f"{KEY}{alone * bool(narrow)} {where} they resample images too; of few trees, they rest mostly on images."
    ways = "Those of other ways to merge beside unmerged networks resample trees alone everywhere."
    return f"{said} {ways}" if any("mergers" in each.results for each in settings.values()) else said


def findings(settings: Settings) -> tuple[list[str], list[Row]]:
    """The head, a text for each setting, and the rows; first how accurate networks are, then what the paper finds."""
    ledgers = [each.ledger for each in settings.values()]
    merged = {name: each.results["merge"] for name, each in settings.items()}
    heads = [
        f"`{name}`, n = {(n := count_groups(data))} tree{'s' * (n > 1)} of {2 ** max(tree_stages(data))}"
        for name, data in merged.items()
    ]
    ends = [ends_of_tree(data.test_accuracy) for data in merged.values()]
    accuracies = [Cell("", "", "", f"{first:.1f} and {last:.1f}") for first, last in ends]
    rows = [Row("Test accuracy of unmerged networks, and of fully merged ones", "%", "C4", accuracies)]
    for name, finding in FINDINGS.items():
        parts = [part_of(ledger, name) for ledger in ledgers]
        cells = [_cell(part, _number(part) if finding.number else "") for part in parts]
        rows.append(Row(finding.text, finding.number, parts[0].claim.item(), cells))
    return heads, rows


def findings_table(settings: Settings) -> str:
    """`findings` as Markdown."""
    heads, rows = findings(settings)
    lines = []
    for row in rows:
        cells = [f"{cell.mark} {cell.word}{', ' * bool(cell.word and cell.number)}{cell.number}" for cell in row.cells]
        told = f"{row.text} ({row.number})" if row.number else row.text
        lines.append([told, *(cell.strip() for cell in cells)])
    return markdown_table(["finding (and what the number is)", *heads], lines)


def _cell(part: xr.Dataset, number: str) -> Cell:
    verdict = part.verdict.item()
    word = HOLDS.get(verdict, verdict)
    if verdict == "not resolved" and part.p <= ALPHA:
        word += " after correction"  # for the number of parts, and of comparisons of a part that one would refute
    return Cell(MARKS[verdict], verdict, word, number)


def _number(part: xr.Dataset) -> str:
    """An effect with its interval, empty where there is none; of two stages, whichever is ahead."""
    if part.effect.isnull():
        return ""
    if not part.part.item().startswith("C5c"):
        return sized(part)
    ahead, behind = STAGES.findall(part.comparison.item())
    if part.effect < 0:
        ahead, behind, part = behind, ahead, turned(part)
    return f"stage {ahead} leads {behind} by {sized(part)}"


def ends_of_tree(accuracy: xr.DataArray) -> tuple[float, float]:
    """Mean accuracy of unmerged and of fully merged networks, in percent."""
    first, *_, last = (PERCENT * float(tree(accuracy, stage).mean()) for stage in tree_stages(accuracy))
    return first, last
