"""The ledger in words: how many claims hold and which, and the tables of claims, parts and settings."""

from collections.abc import Mapping

import xarray as xr

from ..claims.verdicts import REPORTED, VERDICTS, wholes
from ..groups import count_groups, tree_stages

# verdict -> the sign that stands beside its colour
MARKS = {"reproduced": "✓", "contradicted": "✗", "not resolved": "~", "no verdict": "–", "not measured": "–"}
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
        "id": name if verdict != REPORTED else part.claim.item(),
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


def _number(value: xr.DataArray, digits: str = ".3g") -> str:
    return "–" if value.isnull() else f"{value.item():{digits}}"


def tally(ledger: xr.Dataset) -> dict[str, list[str]]:
    """Verdict -> the claims that got it, for the verdicts that some claim got."""
    given = {verdict: [whole.claim for whole in wholes(ledger) if whole.verdict == verdict] for verdict in VERDICTS}
    return {verdict: names for verdict, names in given.items() if names}


def answer(ledger: xr.Dataset, results: Mapping[str, xr.Dataset]) -> str:
    """The answer in two sentences: how many claims got which verdict, and what was measured."""
    found = tally(ledger)
    counts = [f"{len(names)} {verdict.replace('no verdict', 'without verdict')}" for verdict, names in found.items()]
    if len(found) > 1:
        counts = [f"{count} ({', '.join(names)})" for count, names in zip(counts, found.values(), strict=True)]
    merge = results["merge"]
    outcome = f"Of the paper's {sum(map(len, found.values()))} claims: {', '.join(counts)}."
    return f"{outcome} Measured on {trees(merge)} (images: {merge.attrs['data_source']})."


def trees(merge: xr.Dataset) -> str:
    """How many trees were measured, and of how many networks each."""
    groups, leaves = count_groups(merge), 2 ** max(tree_stages(merge))
    return f"{groups} trees of {leaves} networks" if groups > 1 else f"one tree of {leaves}, which gives no interval"


def ledger_table(ledger: xr.Dataset) -> str:
    """The ledger as a Markdown table: claims, and for each part its effect with 95 % interval and p values."""
    lines = [
        "| claim, part | what is said | measured: effect (95 % interval) | n | p | Holm | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows(ledger):
        if not row["part"]:
            lines.append(f"| **{row['id']}** | **{row['title']}** | | | | | **{row['verdict']}** |")
            continue
        spread = "" if row["interval"] == "–" else f" ({row['interval']})"
        effect = "" if row["effect"] == "–" else f": {row['effect']}{spread}"
        numbers = f"{row['n']} | {row['p']} | {row['p_holm']}"
        lines.append(f"| {row['id']} | {row['title']} | {row['measured']}{effect} | {numbers} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def settings_table(ledgers: Mapping[str, xr.Dataset]) -> str:
    """Claims down, settings across, a verdict in each cell, as Markdown; a dash where a ledger lacks the claim.

    Args:
        ledgers: by the name of the setting.
    """
    verdicts = {name: {whole.claim: whole.verdict for whole in wholes(ledger)} for name, ledger in ledgers.items()}
    statements = {whole.claim: whole.statement for ledger in ledgers.values() for whole in wholes(ledger)}
    heads = [f"`{name}`, n = {ledger.n.max().item()}" for name, ledger in ledgers.items()]
    lines = [f"| claim | the paper says | {' | '.join(heads)} |", "|---" * (2 + len(ledgers)) + "|"]
    for claim, statement in statements.items():
        cells = [f"{MARKS[v[claim]]} {v[claim]}" if claim in v else "–" for v in verdicts.values()]
        lines.append(f"| {claim} | {statement} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
