"""Merged networks beside early-stopped ones of the same accuracy, under each setting: an answer and a table."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import xarray as xr

from ...merging.looks import RIVALS
from ..groups import PERCENT, Results, count_groups, tree, tree_stages
from ..questions.equal_accuracy import NEAR, beside_stopped
from ..questions.families import ATTACKS, NOT_COMPARABLE, OTHERS
from ..questions.wording import amount, listed, way_in_words, within
from ..statistics import Test, by_sign
from .answers_text import lead
from .first_screen import Cell
from .ledger_text import NOTHING, sized
from .places import Published

STOPPED = "Are networks merged in a tree more robust than early-stopped ones of the same accuracy?"
HEADS = ("setting", "merged from", "accuracy (%)", *(f"lead under strong {name} (points)" for name in ATTACKS.values()))
BESIDE = re.compile(
    r"(.+), strong, (?:at equal accuracy|beside the nearest, ([\d.]+) points (more|less) accurate): "
    r"(\S+) of (\d+) minus early-stopped networks"
)


class Beside(NamedTuple):
    """A comparison of networks merged by a method with early-stopped ones.

    Attributes:
        attack: as readers know it.
        method: that merged.
        size: networks that were merged.
        gap: percentage points by which the early-stopped networks are more accurate; 0 where they are as accurate.
        row: of the answers.
    """

    attack: str
    method: str
    size: int
    gap: float
    row: xr.Dataset


class Line(NamedTuple):
    """Networks merged from a number of others: the setting with n, the number, their accuracy, a cell an attack."""

    setting: str
    size: str
    accuracy: str
    cells: list[Cell]


def comparisons(of: Published) -> Iterator[Beside]:
    """All comparisons with early-stopped networks that a setting's answers hold."""
    for k, name in enumerate([] if of.answers is None else of.answers.comparison.values.tolist()):
        if found := BESIDE.fullmatch(name):
            attack, gap, more, method, size = found.groups()
            gap = float(gap or 0) * (1 if more == "more" else -1)
            yield Beside(attack, method, int(size), gap, of.answers.isel(row=k))


def early_stopped(settings: Mapping[str, Published]) -> tuple[str, list[str]]:
    """The answer to `STOPPED`: a word where all settings say the same, and what other ways to merge do."""
    found = {name: text.split(". ")[0] for name, each in settings.items() if (text := _lead(each))}
    if not found:
        return "Not measured yet.", []
    words = list(dict.fromkeys(word for word in found.values() if word != NOT_COMPARABLE))
    unless = ", where they can be compared" * (NOT_COMPARABLE in found.values())
    alike = f"{words[0]}, for trees matched by weights as in the paper{unless}." if len(words) == 1 else ""
    told = {name: told_other_ways(each.results) for name, each in settings.items()}
    return alike, [f"In `{name}`, {text[0].lower()}{text[1:]}" for name, text in told.items() if text]


def _lead(of: Published) -> str:
    return "" if of.answers is None else lead(of.answers, "controls")


def table(settings: Mapping[str, Published]) -> list[Line]:
    """For each setting and number of networks merged in a tree: how far they lead early-stopped networks, or trail."""
    lines = []
    for name, each in settings.items():
        found = {(one.size, one.attack): one for one in comparisons(each) if one.method == "tree"}
        families = each.results.get("controls") if found else None
        for stage in tree_stages(families)[1:] if found else ():
            asked, trees = (count_groups(data) for data in (families, each.results["merge"]))
            n = f"n = {asked} trees" if asked == trees else f"n = {asked} of {trees} trees"
            accuracy = PERCENT * float(tree(families.test_accuracy, stage).mean())
            cells = [_cell(found.get((2**stage, attack))) for attack in ATTACKS.values()]
            lines.append(Line(f"`{name}`, {n}", str(2**stage), f"{accuracy:.1f}", cells))
    return lines


def _cell(one: Beside | None) -> Cell:
    if one is None:
        return Cell("–", NOTHING, NOTHING, "")
    more = f"{abs(one.gap):.1f} points {'more' if one.gap > 0 else 'less'} accurate"
    if abs(one.gap) > NEAR * PERCENT:
        nearest = "least" if one.gap > 0 else "most"
        return Cell("–", NOTHING, "not comparable", f"the {nearest} accurate early-stopped networks are {more}")
    low, high = one.row.low.item(), one.row.high.item()
    mark, verdict, word = "~", "not resolved", "not resolved"
    if low > 0:
        mark, verdict, word = "✓", "reproduced", "lead"
    elif high < 0:
        mark, verdict, word = "✗", "contradicted", "trail"
    return Cell(mark, verdict, word, f"{sized(one.row)}{f', beside networks {more}' * bool(one.gap)}")


def markdown(settings: Mapping[str, Published]) -> str:
    """`table` as Markdown."""
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for line in table(settings):
        cells = [f"{cell.mark} {cell.word}{', ' * bool(cell.number)}{cell.number}" for cell in line.cells]
        lines.append(f"| {' | '.join([*line[:3], *cells])} |")
    return "\n".join(lines) + "\n"


def other_ways(results: Results) -> dict[str, Test]:
    """Ways to merge most networks: accuracy under strong FGSM minus that of early-stopped networks as accurate.

    By way, but for those that stand among the families, which PGD has tried too; empty where none was measured.
    """
    if not {"mergers", "controls"} <= set(results) or "strong_accuracy" not in results["mergers"]:
        return {}
    merged, families, found = results["mergers"], results["controls"], {}
    size = int(merged.n_merged[(merged.method == "tree").values].max())
    for way in [way for way in RIVALS if way not in families.method]:
        here = (merged.method == way) & (merged.n_merged == size) & (merged.order == 0)
        here &= merged.strong_accuracy.notnull()
        if here.any():
            pair = beside_stopped(merged.isel(model=here.values), families)
            if pair.equal:
                found[way] = pair.test(f"{way} of {size} minus {OTHERS['stopped']}")
    return found


def told_other_ways(results: Results) -> str:
    """Which other ways to merge are ahead of early-stopped networks as accurate, which PGD has not tried."""
    tests = other_ways(results)
    if not tests:
        return ""
    size, ahead = int(results["mergers"].n_merged.max()), by_sign(tests)[1]
    if not ahead:
        ways = listed([way_in_words(RIVALS[way][0]) for way in tests])
        return (
            f"Other ways to merge {size} networks that we can compare do not lead early-stopped networks of the same "
            f"accuracy under FGSM: {ways}."
        )
    leads = [f"{way_in_words(RIVALS[way][0])} by {amount(tests[way])} {within(tests[way])}" for way in ahead]
    return (
        f"Of {len(tests)} other ways to merge {size} networks, {len(ahead)} lead early-stopped networks of the same "
        f"accuracy under FGSM: {listed(leads)}. We have not attacked these with PGD."
    )
