"""The ledger in words: how many claims hold and which, and the tables of claims, parts and settings."""

from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

from ..claims.robustness import DECIDING, NOISES
from ..claims.verdicts import REPORTED, VERDICTS, Whole, wholes
from ..groups import count_groups, tree_stages

# verdict -> the sign that stands beside its colour
MARKS = {"reproduced": "✓", "contradicted": "✗", "not resolved": "~", "no verdict": "–", "not measured": "–"}
# part -> what the answer says where it is reproduced, contradicted, not resolved
SENTENCES = {
    "C4a": (
        "Merging costs accuracy at every stage.",
        "Accuracy does not fall at every stage.",
        "It is not resolved whether accuracy falls at every stage.",
    ),
    "C5b fgsm": (
        "Under strong attack (FGSM, pixel changes of 0.015 to 0.020) fully merged networks are {size} more accurate "
        "than unmerged ones (95 % interval {interval}).",
        "Under strong attack (FGSM, pixel changes of 0.015 to 0.020) fully merged networks are {size} less accurate "
        "than unmerged ones (95 % interval {interval}).",
        "It is not resolved whether merging helps under strong attack (FGSM, pixel changes of 0.015 to 0.020).",
    ),
    "C5a fgsm": (
        "Under weak attack (up to 0.005) they are {size} less accurate ({interval}).",
        "Under weak attack (up to 0.005) too they are {size} more accurate ({interval}).",
        "Under weak attack the difference is not resolved.",
    ),
    "C5c fgsm": (
        "At 0.010 all stages are equally robust within 1 point, as the paper has it.",
        "At 0.010, where the paper has all stages equally robust, two of them differ by {size} ({interval}).",
        "It is not resolved whether the stages are equally robust at 0.010, as the paper has it.",
    ),
    "C10a gaussian": (
        "Accuracy under Gaussian noise rises by {size} ({interval}).",
        "Accuracy under Gaussian noise falls by {size} ({interval}).",
        "It is not resolved whether accuracy under Gaussian noise rises.",
    ),
    "C10b gaussian": (
        "The share of accuracy that survives the noise rises by {size} ({interval}).",
        "The share of accuracy that survives the noise falls by {size} ({interval}).",
        "It is not resolved whether the share of accuracy that survives the noise rises.",
    ),
    "C7a": (
        "Weight norms fall at every stage.",
        "Weight norms do not fall at every stage.",
        "It is not resolved whether weight norms fall at every stage.",
    ),
    "C8a": (
        "Lipschitz bounds fall at every stage.",
        "Lipschitz bounds do not fall at every stage.",
        "It is not resolved whether Lipschitz bounds fall at every stage.",
    ),
    "C1a": (
        "The tree merges 4 networks into one that is {size} more accurate ({interval}) than that of MergeMany, Git "
        "Re-Basin's own method.",
        "MergeMany, Git Re-Basin's own method, merges 4 networks into one that is {size} more accurate ({interval}) "
        "than the tree's.",
        "It is not resolved whether the tree of 4 networks is more accurate than MergeMany, Git Re-Basin's own method.",
    ),
}
CALLED = DECIDING | NOISES  # attacks and noises, as names of parts have them and as readers know them
NUMBERS = ("effect", "interval", "n", "p", "p_holm", "p_sign_flip")  # that parts have and claims have not


def rows(ledger: xr.Dataset) -> list[dict[str, str]]:
    """Claims, each before its parts, as texts: numbers with three digits and a dash where there is none."""
    told = []
    for whole in wholes(ledger):
        texts = {"id": whole.claim, "title": whole.statement, "verdict": whole.verdict, "mark": MARKS[whole.verdict]}
        told.append(texts | {"part": "", "measured": ""} | dict.fromkeys(NUMBERS, ""))
        told += [_row(whole.parts.isel(part=k)) for k in range(whole.parts.sizes["part"])]
    return told


def reported(ledger: xr.Dataset) -> list[dict[str, str]]:
    """The comparisons that no claim hangs on, as `rows` tells the parts."""
    beside = ledger.isel(part=(ledger.verdict == REPORTED).values)
    return [_row(beside.isel(part=k)) for k in range(beside.sizes["part"])]


def _row(part: xr.Dataset) -> dict[str, str]:
    verdict, low = part.verdict.item(), _number(part.low)
    unit = "" if part.units.item() == "1" else part.units.item()
    name = part.part.item()
    return {
        "id": _called(name) if verdict != REPORTED else part.claim.item(),
        "part": name,
        "title": part.title.item(),
        "verdict": verdict,
        "mark": MARKS.get(verdict, ""),
        "measured": part.comparison.item() or part.reason.item(),
        "effect": f"{_number(part.effect)} {unit}".strip(),
        "interval": "–" if low == "–" else f"{low} to {_number(part.high)}",
        "n": f"{part.n.item()}{' and images' * bool(part.images)}" if part.n else "–",
        **{name: _number(part[name], ".2g") for name in ("p", "p_holm", "p_sign_flip")},
    }


def _called(part: str) -> str:
    """The name of a part with attacks and noises as readers know them."""
    return " ".join(CALLED.get(word, word) for word in part.split())


def _number(value: xr.DataArray, digits: str = ".3g") -> str:
    return "–" if value.isnull() else f"{value.item():{digits}}"


def tally(ledger: xr.Dataset) -> dict[str, list[str]]:
    """Verdict -> the claims that got it, for the verdicts that some claim got."""
    given = {verdict: [whole.claim for whole in wholes(ledger) if whole.verdict == verdict] for verdict in VERDICTS}
    return {verdict: names for verdict, names in given.items() if names}


def answer(ledger: xr.Dataset, results: Mapping[str, xr.Dataset]) -> str:
    """What holds and what does not, in plain sentences with effects, then how many claims got which verdict."""
    return " ".join([*(sentence for sentence, _ in sentences(ledger)), counted(ledger, results)])


def sentences(ledger: xr.Dataset) -> list[tuple[str, str]]:
    """What holds and what does not, a sentence a part that was measured, each with its claim."""
    parts = {name: ledger.isel(part=k) for k, name in enumerate(ledger.part.values.tolist()) if name in SENTENCES}
    said = [
        (_said(parts[name], *texts), parts[name].claim.item()) for name, texts in SENTENCES.items() if name in parts
    ]
    return [(sentence, claim) for sentence, claim in said if sentence]


def counted(ledger: xr.Dataset, results: Mapping[str, xr.Dataset]) -> str:
    """How many claims got which verdict, and what was measured."""
    found, merge = tally(ledger), results["merge"]
    counts = [f"{len(names)} {verdict.replace('no verdict', 'without verdict')}" for verdict, names in found.items()]
    if len(found) > 1:
        counts = [f"{count} ({', '.join(names)})" for count, names in zip(counts, found.values(), strict=True)]
    total = f"Of the paper's {sum(map(len, found.values()))} claims: {', '.join(counts)}."
    return f"{total} Measured on {trees(merge)} (images: {merge.attrs['data_source']})."


def _said(part: xr.Dataset, holds: str, fails: str, open_question: str) -> str:
    """A sentence on a part by its verdict; nothing where it was not measured."""
    verdict, row = part.verdict.item(), _row(part)
    text = {"reproduced": holds, "contradicted": fails, "not resolved": open_question}.get(verdict, "")
    size = _number(abs(part.effect)) + row["effect"][len(_number(part.effect)) :]
    low, high = (_number(abs(end)) for end in (part.low, part.high))
    if part.effect < 0:
        low, high = high, low
    return text.format(size=size.replace("percentage points", "points"), interval=f"{low} to {high}")


def trees(merge: xr.Dataset) -> str:
    """How many trees were measured, and of how many networks each."""
    groups, leaves = count_groups(merge), 2 ** max(tree_stages(merge))
    return f"{groups} trees of {leaves} networks" if groups > 1 else f"one tree of {leaves}, which gives no interval"


def ledger_table(ledger: xr.Dataset) -> str:
    """The ledger as a Markdown table: claims, and for each part its effect with 95 % interval and p values."""
    lines = [
        "| claim, part | what is said | measured: effect (95 % interval) | n | p (of signs) | Holm | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(ledger):
        if not row["part"]:
            lines.append(f"| **{row['id']}** | **{row['title']}** | | | | | **{row['verdict']}** |")
            continue
        spread = "" if row["interval"] == "–" else f" ({row['interval']})"
        effect = "" if row["effect"] == "–" else f": {row['effect']}{spread}"
        signs = "" if row["p_sign_flip"] == "–" else f" ({row['p_sign_flip']})"
        numbers = f"{row['n']} | {row['p']}{signs} | {row['p_holm']}"
        lines.append(f"| {row['id']} | {row['title']} | {row['measured']}{effect} | {numbers} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


class Cell(NamedTuple):
    """A claim under a setting: sign and verdict, empty where it has none, and the parts that were not reproduced."""

    mark: str
    verdict: str
    failed: str


def by_setting(ledgers: Mapping[str, xr.Dataset]) -> list[tuple[str, str, list[Cell]]]:
    """Each claim: its name, what the paper says, and a cell for each setting.

    Args:
        ledgers: by the name of the setting.
    """
    claims = [{whole.claim: whole for whole in wholes(ledger)} for ledger in ledgers.values()]
    statements = {whole.claim: whole.statement for ledger in ledgers.values() for whole in wholes(ledger)}
    return [(claim, said, [_cell(of.get(claim)) for of in claims]) for claim, said in statements.items()]


def _cell(whole: Whole | None) -> Cell:
    if whole is None:
        return Cell("–", "", "")
    failed = whole.parts.part.values[(whole.parts.verdict == whole.verdict).values].tolist()
    several = whole.verdict in ("contradicted", "not resolved") and whole.parts.sizes["part"] > 1
    return Cell(MARKS[whole.verdict], whole.verdict, ", ".join(map(_called, failed)) if several else "")


def settings_table(ledgers: Mapping[str, xr.Dataset]) -> str:
    """Claims down, settings across, a verdict in each cell with the parts that decided it, as Markdown.

    Args:
        ledgers: by the name of the setting.
    """
    # C3 counts pairs of networks, all others groups
    heads = [
        f"`{name}`, n = {ledger.n[(ledger.claim != 'C3').values].max().item()}" for name, ledger in ledgers.items()
    ]
    lines = [f"| claim | the paper says | {' | '.join(heads)} |", "|---" * (2 + len(ledgers)) + "|"]
    for claim, statement, cells in by_setting(ledgers):
        told = " | ".join(f"{c.mark} {c.verdict}{f' ({c.failed})' * bool(c.failed)}".strip() for c in cells)
        lines.append(f"| {claim} | {statement} | {told} |")
    return "\n".join(lines) + "\n"
