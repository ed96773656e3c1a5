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
from .answers_text import by_question
from .first_screen import Cell
from .ledger_text import NOTHING, markdown_table, sized
from .places import Published, Settings, quoted

STOPPED = "Are networks merged in a tree more robust than early-stopped ones of the same accuracy?"
HEADS = ("Setting", "Merged from", "Accuracy (%)", *(f"Lead under strong {name} (points)" for name in ATTACKS.values()))
NOTE = (
    "Networks trail where the 95 % interval of their lead lies below zero, which is not corrected for the number of "
    "comparisons. Accuracies are those of the compared networks, a few per tree."
)
CONTROLS = ("narrow", "noised")  # families that lose accuracy in other ways than by a shorter training
REGULARISED = ("l1", "l2")
BESIDE = re.compile(
    r"(.+), strong, (?:at equal accuracy|beside the nearest, ([\d.]+) points (more|less) accurate): "
    r"(\S+) of (\d+) minus (.+)"
)


class Beside(NamedTuple):
    """A comparison of networks merged by a method with others that were not merged.

    Attributes:
        attack: as readers know it.
        method: that merged.
        size: networks that were merged.
        others: family of the networks beside them.
        gap: percentage points by which the others are more accurate; 0 where they are as accurate.
        row: of the answers.
    """

    attack: str
    method: str
    size: int
    others: str
    gap: float
    row: xr.Dataset

    @property
    def sign(self) -> int:
        """1 where the interval of their lead lies above zero, -1 below, 0 where it does not tell."""
        return int(self.row.low.item() > 0) - int(self.row.high.item() < 0)


class Line(NamedTuple):
    """Networks merged from a number of others: the setting with n, the number, their accuracy, a cell per attack."""

    setting: str
    size: str
    accuracy: str
    cells: list[Cell]


def comparisons(of: Published, *families: str) -> Iterator[Beside]:
    """All comparisons with families of networks, by default the early-stopped ones, that a setting's answers hold."""
    named = {OTHERS[family]: family for family in families or ("stopped",)}
    for k, name in enumerate([] if of.answers is None else of.answers.comparison.values.tolist()):
        if (found := BESIDE.fullmatch(name)) and found[6] in named:
            attack, gap, more, method, size, others = found.groups()
            gap = float(gap or 0) * (1 if more == "more" else -1)
            yield Beside(attack, method, int(size), named[others], gap, of.answers.isel(row=k))


def early_stopped(settings: Settings) -> tuple[str, list[str]]:
    """The answer to `STOPPED`: a word where all settings say the same, and what other ways to merge do."""
    asked = by_question(settings).get("controls", {})
    found = {name: answer["lead"].split(". ")[0] for name, answer in asked.items()}
    if not found:
        return "Not measured yet.", []
    words = list(dict.fromkeys(word for word in found.values() if word != NOT_COMPARABLE))
    unless = ", where they can be compared" * (NOT_COMPARABLE in found.values())
    alike = f"{words[0]}, for trees matched by weights as in the paper{unless}." if len(words) == 1 else ""
    told = {name: told_other_ways(each) for name, each in settings.items()}
    return alike, [f"In `{name}`, {text[0].lower()}{text[1:]}" for name, text in told.items() if text]


def table(settings: Settings) -> list[Line]:
    """For each setting and number of networks merged in a tree: how far they lead early-stopped networks, or trail.

    Settings in which no comparison is possible are left out, see `beside_the_table`.
    """
    lines = []
    for name, each in settings.items():
        found = {(one.size, one.attack): one for one in comparisons(each) if one.method == "tree"}
        families, comparable = each.results.get("controls"), any(near(one) for one in found.values())
        for stage in tree_stages(families)[1:] if comparable else ():
            asked, trees = (count_groups(data) for data in (families, each.results["merge"]))
            n = f"n = {asked} trees" if asked == trees else f"n = {asked} of {trees} trees"
            accuracy = PERCENT * float(tree(families.test_accuracy, stage).mean())
            cells = [_cell(found.get((2**stage, attack))) for attack in ATTACKS.values()]
            lines.append(Line(f"`{name}`, {n}", str(2**stage), f"{accuracy:.1f}", cells))
    return lines


def near(one: Beside) -> bool:
    """Whether the others are about as accurate."""
    return abs(one.gap) <= NEAR * PERCENT


def beside_the_table(settings: Settings) -> list[str]:
    """Where no early-stopped network is as inaccurate, and how the tree stands beside other unmerged networks."""
    told = []
    for name, each in settings.items():
        found = [one for one in comparisons(each) if one.method == "tree"]
        if found and not any(map(near, found)):
            told.append(
                f"In `{name}`, networks merged in the tree are on average at least {min(one.gap for one in found):.1f} "
                "points less accurate than every early-stopped network, so we do not compare them."
            )
    for families in (CONTROLS, REGULARISED):
        others = listed([OTHERS[family] for family in families])
        counts = [count for attack in ATTACKS.values() if (count := _counted(settings, attack, families))]
        if counts:
            said = " It leads ".join(f"{count}." for count in counts)
            told.append(f"Beside {others} of about the same accuracy, the tree leads {said}")
    return told


def _counted(settings: Settings, attack: str, families: tuple[str, ...]) -> str:
    """In how many comparisons with others about as accurate the tree leads and trails under an attack, and where."""
    leads, trails, n = [], [], 0
    for name, each in settings.items():
        beside = (one for one in comparisons(each, *families) if (one.method, one.attack) == ("tree", attack))
        signs = [one.sign for one in beside if near(one)]
        n += len(signs)
        leads += [name] * signs.count(1)
        trails += [name] * signs.count(-1)
    lead, trail = (f"{len(names)} ({quoted(dict.fromkeys(names))})" if names else "none" for names in (leads, trails))
    return f"in {lead} of {n} comparisons under strong {attack}, and trails in {trail}" if n else ""


def _cell(one: Beside | None) -> Cell:
    if one is None:
        return Cell("–", NOTHING, NOTHING, "")
    more = f"{abs(one.gap):.1f} points {'more' if one.gap > 0 else 'less'} accurate"
    if not near(one):
        nearest = "least" if one.gap > 0 else "most"
        return Cell("–", NOTHING, "not comparable", f"the {nearest} accurate early-stopped networks are {more}")
    mark, verdict, word = {
        1: ("✓", "reproduced", "lead"),
        -1: ("✗", "contradicted", "trail"),
        0: ("~", "not resolved", "not resolved"),
    }[one.sign]
    return Cell(mark, verdict, word, f"{sized(one.row)}{f', beside networks {more}' * bool(one.gap)}")


def markdown(settings: Settings) -> str:
    """`table` and what its marks mean, as Markdown."""
    lines = [
        [*line[:3], *(f"{cell.mark} {cell.word}{', ' * bool(cell.number)}{cell.number}" for cell in line.cells)]
        for line in table(settings)
    ]
    return "\n".join([NOTE, "", markdown_table(HEADS, lines), *beside_the_table(settings)]) + "\n"


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


def told_other_ways(of: Published) -> str:
    """How other ways to merge stand beside early-stopped networks as accurate, and what PGD does to such leads."""
    tests = other_ways(of.results)
    if not tests:
        return ""
    size, signs = int(of.results["mergers"].n_merged.max()), by_sign(tests)
    of_which = f"Of other ways to merge {size} networks, under strong FGSM "
    said = [told for sign in (1, -1) if (told := _ahead({way: tests[way] for way in signs[sign]}, sign))]
    if open_ways := [way_in_words(RIVALS[way][0]) for way in signs[0]]:
        said.append(f"{listed(open_ways)} {'are' if len(open_ways) > 1 else 'is'} not resolved.")
    said = [f"{of_which}{said[0]}", *(f"{told[0].upper()}{told[1:]}" for told in said[1:])]
    if signs[1]:
        said.append(f"These intervals resample trees alone. {_untried(of)}")
    return " ".join(said)


def _ahead(tests: Mapping[str, Test], sign: int) -> str:
    """Ways that lead (1) or trail (-1), by how much; with intervals where they lead, or where it is one."""
    verb, exactly, told = {1: "leads", -1: "trails"}[sign], sign > 0 or len(tests) == 1, []
    for way, test in tests.items():
        size = f"by {amount(test)}{f' {within(test, mirrored=sign < 0)}' * exactly}"
        told.append(f"{way_in_words(RIVALS[way][0])} {size if told else f'{verb} {size}'}")
    n = "" if exactly or not tests else f" (n = {next(iter(tests.values())).n} trees)"
    return f"{listed(told)}{n}." if told else ""


def _untried(of: Published) -> str:
    """That PGD has not tried some ways, and what it does to the lead of others."""
    alike = [one for one in comparisons(of) if not one.gap]
    fgsm, pgd = (
        {(one.method, one.size): one.row.effect.item() for one in alike if one.attack == attack}
        for attack in ATTACKS.values()
    )
    falls = [fgsm[key] - pgd[key] for key in fgsm.keys() & pgd.keys()]
    if not falls or min(falls) <= 0:
        return "We have not attacked these with PGD."
    return (
        "We have not attacked these with PGD. All other merged networks fare worse beside early-stopped ones under PGD "
        f"than under FGSM, by {min(falls):.1f} to {max(falls):.1f} points, so these leads may not survive it."
    )
