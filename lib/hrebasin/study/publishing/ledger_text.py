"""The ledger in words: how many claims hold and which, and the tables of claims, parts and settings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import xarray as xr

from ..claims.ledger import PARTS
from ..claims.robustness import DECIDING, NOISES
from ..claims.verdicts import REPORTED, VERDICTS, Whole, wholes
from ..figures.alt_text import told
from ..groups import count_groups, tree_stages
from ..statistics import chance, rounded
from .places import Settings

# verdict -> the sign that stands beside its colour
MARKS = {"reproduced": "✓", "contradicted": "✗", "not resolved": "~", "no verdict": "–", "not measured": "–"}
OVER_SETS = "C3"  # its n counts the sets of networks that were merged, that of all others trees
SHORT = {part.name: part.short for part in PARTS if part.short}
CALLED = DECIDING | NOISES  # attacks and noises, as names of parts have them and as readers know them
NOTHING = "not measured"
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
    verdict = part.verdict.item()
    effect, low, high = rounded(part.effect.item(), part.low.item(), part.high.item())
    unit = "" if part.units.item() == "1" else part.units.item()
    name = part.part.item()
    counts = " sets" if part.claim == OVER_SETS else " and images" if part.images else ""  # unless trees alone
    return {
        "id": _called(name) if verdict != REPORTED else part.claim.item(),
        "part": name,
        "title": part.title.item(),
        "verdict": verdict,
        "mark": MARKS.get(verdict, ""),
        "measured": _measured(part),
        "effect": "–" if part.effect.isnull() else f"{effect} {unit}".strip(),
        "interval": "–" if part.low.isnull() else f"{low} to {high}",
        "n": f"{part.n.item()}{counts}" if part.n else "–",
        **{name: chance(part[name].item()) for name in ("p", "p_holm", "p_sign_flip")},
    }


def _measured(part: xr.Dataset) -> str:
    """What was compared, and with which value unless with none; or why it was not measured."""
    against = part.against.item() if "against" in part else ""  # ledgers before 0.2.0 have none
    return f"{part.comparison.item()}{f', tested against {against}' * bool(against)}" or part.reason.item()


def _called(part: str) -> str:
    """The name of a part with attacks and noises as readers know them."""
    return " ".join(CALLED.get(word, word) for word in part.split())


def tally(ledger: xr.Dataset) -> dict[str, list[str]]:
    """Verdict -> the claims that got it, for the verdicts that some claim got."""
    claims = wholes(ledger)
    given = {verdict: [whole.claim for whole in claims if whole.verdict == verdict] for verdict in VERDICTS}
    return {verdict: names for verdict, names in given.items() if names}


def counted(ledger: xr.Dataset, results: Mapping[str, xr.Dataset]) -> str:
    """How many claims got which verdict, and what was measured."""
    found, merge = tally(ledger), results["merge"]
    counts = [f"{len(names)} {verdict.replace('no verdict', 'without verdict')}" for verdict, names in found.items()]
    if len(found) > 1:
        counts = [f"{count} ({', '.join(names)})" for count, names in zip(counts, found.values(), strict=True)]
    total = f"Of the paper's {sum(map(len, found.values()))} claims: {', '.join(counts)}."
    return f"{total} Measured on {trees(merge)} (images: {merge.attrs['data_source']})."


def trees(merge: xr.Dataset) -> str:
    """How many trees were measured, and of how many networks each."""
    groups, leaves = count_groups(merge), 2 ** max(tree_stages(merge))
    return f"{groups} trees of {leaves} networks" if groups > 1 else f"one tree of {leaves}, which gives no interval"


def ledger_table(ledger: xr.Dataset) -> str:
    """The ledger as a Markdown table: claims, and for each part its effect with 95 % interval and p values."""
    heads = "claim, part", "what is said", "measured: effect (95 % interval)", "n", "p (of signs)", "Holm", "verdict"
    lines = []
    for row in rows(ledger):
        if not row["part"]:
            lines.append([f"**{row['id']}**", f"**{row['title']}**", "", "", "", "", f"**{row['verdict']}**"])
            continue
        spread = "" if row["interval"] == "–" else f" ({row['interval']})"
        effect = "" if row["effect"] == "–" else f": {row['effect']}{spread}"
        signs = "" if row["p_sign_flip"] == "–" else f" ({row['p_sign_flip']})"
        numbers = row["n"], f"{row['p']}{signs}", row["p_holm"]
        lines.append([row["id"], row["title"], f"{row['measured']}{effect}", *numbers, row["verdict"]])
    return markdown_table(heads, lines)


class Cell(NamedTuple):
    """A claim under a setting: sign and verdict, empty where it has none, and the parts that were not reproduced."""

    mark: str
    verdict: str
    failed: str


def by_setting(settings: Settings) -> list[tuple[str, str, list[Cell]]]:
    """Each claim: its name, what the paper says, and a cell for each setting."""
    claims = [{whole.claim: whole for whole in wholes(each.ledger)} for each in settings.values()]
    statements = {name: whole.statement for ledger in claims for name, whole in ledger.items()}
    return [(claim, said, [_cell(of.get(claim)) for of in claims]) for claim, said in statements.items()]


def _cell(whole: Whole | None) -> Cell:
    if whole is None:
        return Cell("–", "", "")
    names, verdicts = whole.parts.part.values, whole.parts.verdict.values
    failed = _shortly(names[verdicts == whole.verdict].tolist())
    if whole.verdict not in ("contradicted", "not resolved") or len(names) == 1:
        failed = ""
    elif (verdicts == "reproduced").any() and set(verdicts) == {whole.verdict, "reproduced"}:
        failed += "; the rest reproduced"
    return Cell(MARKS[whole.verdict], whole.verdict, failed)


def _shortly(parts: list[str]) -> str:
    """Parts in a word or two each, as their claims call them: "strong FGSM and DeepFool, equal at 0.010"."""
    words: dict[str, list[str]] = {}
    for name in parts:
        part, _, of = name.partition(" ")
        words.setdefault(SHORT.get(name, part), []).append(CALLED.get(of, of))
    return ", ".join(short.format(" and ".join(of)) for short, of in words.items())


def settings_table(settings: Settings) -> str:
    """Claims down, settings across, a verdict in each cell with the parts that decided it, as Markdown."""
    heads = ["claim", "the paper says"]
    for name, (ledger, *_) in settings.items():
        heads.append(f"`{name}`, n = {ledger.n[(ledger.claim != OVER_SETS).values].max().item()}")
    lines = [
        [claim, statement, *(f"{c.mark} {c.verdict}{f' ({c.failed})' * bool(c.failed)}".strip() for c in cells)]
        for claim, statement, cells in by_setting(settings)
    ]
    return markdown_table(heads, lines)


def markdown_table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Texts as a Markdown table."""
    head, *rows = ("|".join(["", *(f" {text} " if text else " " for text in cells), ""]) for cells in (heads, *lines))
    return "\n".join([head, "|---" * len(heads) + "|", *rows]) + "\n"


def part_of(ledger: xr.Dataset, name: str) -> xr.Dataset:
    """The part of a claim of that name."""
    return ledger.isel(part=ledger.part.values.tolist().index(name))


def turned(part: xr.Dataset) -> xr.Dataset:
    """The same comparison the other way round."""
    return part.assign(effect=-part.effect, low=-part.high, high=-part.low)


def sized(part: xr.Dataset) -> str:
    """An effect with its interval, such as "-1.9 (-2.8 to -1.0)"; `NOTHING` where there is none."""
    if part.effect.isnull():
        return NOTHING
    return told(part.effect.item(), None if part.low.isnull() else (part.low.item(), part.high.item()))
