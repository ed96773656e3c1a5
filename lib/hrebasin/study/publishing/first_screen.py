"""What a reader sees first: the paper's findings down, settings across, and in each cell what came out."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from ...merging.looks import RIVALS
from ..figures.style import STOPPED as STOPPED_EARLY
from ..groups import PERCENT, count_groups, large, tree, tree_stages
from ..questions.wording import listed
from .ledger_text import MARKS, part_of, sized, trees, turned
from .places import Published

KEY = (
    "Fully merged networks are those of a tree's last stage. MergeMany is Git Re-Basin's own method. FGSM moves every "
    "pixel, in [0, 1], by epsilon: weak means at most 0.005, strong 0.015 to 0.020. Numbers have 95 % intervals. A yes "
    'is significant as the paper says, a no is significant against it. "After correction" marks what is significant '
    "alone, but not once we correct for the number of tests."
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
        size: the part whose effect that is; by default the same.
    """

    text: str
    number: str = ""
    size: str = ""


FINDINGS = {
    "C4a": Finding("Accuracy falls at every stage", "points that the first merge costs", "C11"),
    "C5b fgsm": Finding(
        "Fully merged networks withstand strong FGSM better than unmerged ones", "points by which they lead"
    ),
    "C5a fgsm": Finding(
        "Fully merged networks withstand weak FGSM worse than unmerged ones", "points by which they trail"
    ),
    "C5c fgsm": Finding("Under FGSM of epsilon 0.010 all stages are equally accurate", "points between two stages"),
    "C10a gaussian": Finding("Accuracy under Gaussian noise rises with the stage", "points a stage"),
    "C10b gaussian": Finding(
        "The share of its accuracy that a network keeps under noise rises with the stage", "points a stage"
    ),
    "C7a": Finding("Weight norms fall at every stage"),
    "C7b": Finding("Weight norms fall linearly", "last fall divided by the first; 1 if linear"),
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
    likely = " (as in public code that the paper builds on)" * (attrs["setting"] == LIKELY)
    trained = f"{values['epochs']} epochs {augmented}{likely}"
    return f"`{attrs['setting']}`: {network} on {attrs['data_source']}; {trained}; {several}."


def findings(settings: Mapping[str, Published]) -> tuple[list[str], list[Row]]:
    """The head, a text for each setting, and the rows; first how accurate networks are, then what the paper finds."""
    ledgers = [each.ledger for each in settings.values()]
    merged = {name: each.results["merge"] for name, each in settings.items()}
    heads = [
        f"`{name}`, n = {count_groups(data)} trees of {2 ** max(tree_stages(data))}" for name, data in merged.items()
    ]
    accuracies = [Cell("", "", "", _from_to(data.test_accuracy)) for data in merged.values()]
    rows = [Row("Test accuracy of unmerged networks, and of fully merged ones", "%", "C4", accuracies)]
    for name, finding in FINDINGS.items():
        parts = [(part_of(ledger, name), part_of(ledger, finding.size or name)) for ledger in ledgers]
        cells = [_cell(part, _number(size) if finding.number else "") for part, size in parts]
        rows.append(Row(finding.text, finding.number, parts[0][0].claim.item(), cells))
    return heads, rows


def findings_table(settings: Mapping[str, Published]) -> str:
    """`findings` as Markdown."""
    heads, rows = findings(settings)
    lines = [
        f"| finding (and what the number is) | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for row in rows:
        cells = [f"{cell.mark} {cell.word}{', ' * bool(cell.word and cell.number)}{cell.number}" for cell in row.cells]
        told = f"{row.text} ({row.number})" if row.number else row.text
        lines.append(f"| {told} | {' | '.join(cell.strip() for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(part: xr.Dataset, number: str) -> Cell:
    verdict = part.verdict.item()
    word = HOLDS.get(verdict, verdict)
    if verdict == "not resolved" and bool(part.low > 0 or part.high < 0):
        word += " after correction"  # for the number of parts, which an interval does not know of
    return Cell(MARKS[verdict], verdict, word, number)


def _number(part: xr.Dataset) -> str:
    """An effect with its interval, empty where there is none; of two stages, whichever is ahead."""
    if part.effect.isnull():
        return ""
    if not part.part.item().startswith("C5c"):
        return sized(part)
    stages = " and ".join(sorted(STAGES.findall(part.comparison.item())))
    return f"stages {stages}: {sized(turned(part) if part.effect < 0 else part)}"


def _from_to(accuracy: xr.DataArray) -> str:
    first, *_, last = (PERCENT * float(tree(accuracy, stage).mean()) for stage in tree_stages(accuracy))
    return f"{first:.1f} and {last:.1f}"


def untried(results: Mapping[str, xr.Dataset]) -> str:
    """Whether some way to merge withstands FGSM better than all early-stopped networks, which PGD has not tried."""
    if not {"mergers", "controls"} <= set(results) or "strong_accuracy" not in results["mergers"]:
        return ""
    merged, families = results["mergers"], results["controls"]
    size = int(merged.n_merged[(merged.method == "tree").values].max())
    rows = (merged.n_merged == size) & (merged.order == 0) & merged.method.isin(list(RIVALS))
    by_way = merged.strong_accuracy[rows.values].groupby("method").mean()
    robust = large(families.robust_accuracy.sel(attack="fgsm"))[(families.method == STOPPED_EARLY).values]
    most = float(robust.groupby("strength").mean().max()) if robust.size else np.inf
    ways = [str(way) for way, value in zip(by_way.method.values, by_way.values, strict=True) if value > most]
    if not ways:
        return ""
    names, setting = listed([f"`{way}`" for way in ways]), results["train"].attrs["setting"]
    return (
        f"One question is open in `{setting}`: {size} networks merged by {names} classify up to "
        f"{PERCENT * float(by_way.max()):.0f} % correctly under strong FGSM. Early-stopped networks of any epoch "
        f"classify at most {PERCENT * most:.0f} %, on average. We have not attacked those merged networks with PGD."
    )
