"""The ledger in words: how many claims hold and which, and the table of them."""

import re
from collections.abc import Mapping

import xarray as xr

from ..claims.verdicts import AGAINST, NOT_SHOWN, VERDICTS
from ..groups import count_groups, tree_stages

# verdict -> the sign that stands beside its colour
MARKS = {"reproduced": "✓", "contradicted": "✗", "inconclusive": "~", "no verdict": "–", "not tested": "–"}


def rows(claims: xr.Dataset) -> list[dict[str, str]]:
    """The claims of a ledger as texts, numbers with three digits and a dash where there is none."""
    return [_row(claims.sel(claim=name)) for name in claims.claim.values]


def _row(claim: xr.Dataset) -> dict[str, str]:
    def number(name):
        value = float(claim[name])
        return "–" if value != value else f"{value:.3g}"

    texts = ("title", "statistic", "verdict", "sentence")
    return {
        "id": str(claim.claim.values),
        **{name: str(claim[name].values) for name in texts},
        **{name: number(name) for name in ("effect", "low", "high", "n", "p_holm")},
        "unit": "" if str(claim.effect_units.values) == "1" else str(claim.effect_units.values).removeprefix("1 "),
        "mark": MARKS[str(claim.verdict.values)],
    }


def tally(claims: xr.Dataset) -> dict[str, list[str]]:
    """Verdict -> the claims that got it, for the verdicts that some claim got."""
    given = {verdict: claims.claim.values[claims.verdict.values == verdict].tolist() for verdict in VERDICTS}
    return {verdict: names for verdict, names in given.items() if names}


def answer(claims: xr.Dataset, results: Mapping[str, xr.Dataset]) -> str:
    """The answer in two sentences: how many claims got which verdict, and what was measured."""
    found = tally(claims)
    counts = [f"{len(names)} {verdict.replace('no verdict', 'without verdict')}" for verdict, names in found.items()]
    if len(found) > 1:
        counts = [f"{count} ({', '.join(names)})" for count, names in zip(counts, found.values(), strict=True)]
    merge = results["merge"]
    outcome = f"Of the paper's {claims.sizes['claim']} claims: {', '.join(counts)}."
    return f"{outcome} Measured on {trees(merge)} (images: {merge.attrs['data_source']})."


def trees(merge: xr.Dataset) -> str:
    """How many trees were measured, and of how many networks each."""
    groups, leaves = count_groups(merge), 2 ** max(tree_stages(merge))
    return f"{groups} trees of {leaves} networks" if groups > 1 else f"one tree of {leaves}, which gives no interval"


def ledger_table(claims: xr.Dataset) -> str:
    """The ledger as a Markdown table: claim, effect with its 95 % interval over groups, n, verdict, failed tests."""
    lines = [
        "| claim | the paper says | measured: effect (95 % interval), n | verdict | what it failed on |",
        "|---|---|---|---|---|",
    ]
    for row in rows(claims):
        unit = f" {row['unit']}" if row["unit"] else ""
        spread = "" if row["low"] == "–" else f" ({row['low']} to {row['high']})"
        measured = f"{row['statistic']}: {row['effect']}{unit}{spread}, n = {row['n']}"
        lines.append(f"| {row['id']} | {row['title']} | {measured} | {row['verdict']} | {_hurdles(row['sentence'])} |")
    return "\n".join(lines) + "\n"


def _hurdles(sentence: str) -> str:
    """The end of a claim's sentence: the tests that it failed on, where it has several."""
    found = re.search(f"(?:{AGAINST}|{NOT_SHOWN}).*(?=\\.$)", sentence)
    return found[0] if found else ""
