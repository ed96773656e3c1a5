"""From comparisons to verdicts.

A claim has parts. A part is reproduced when every comparison that it consists of is significant in the claimed
direction (intersection-union: the largest p counts), contradicted when one is significant in the opposite direction
(Bonferroni over its comparisons), and not resolved otherwise; both after Holm's correction over all parts. Two-sided p
values leave half of the level to each direction. A claim is reproduced where all its parts are, and contradicted where
one of them is. A single group gives numbers and no verdict.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from ..groups import NotMeasuredError, Results
from ..records import columns
from ..statistics import Test, Undefined, holm

ALPHA = 0.05  # the usual level of significance, for all parts together
REPORTED = "reported"  # in place of the verdict of a comparison that no claim hangs on
VERDICTS = ("reproduced", "contradicted", "not resolved", "no verdict", "not measured")

# variable -> long name, units
VARIABLES = {
    "statement": ("what the paper claims", "1"),
    "claim_verdict": (f"verdict on the claim: {', '.join(VERDICTS)}", "1"),
    "title": ("what the part says; empty for a comparison that is only reported", "1"),
    "verdict": (f"verdict on the part: {', '.join(VERDICTS)}, or {REPORTED}", "1"),
    "comparison": ("what is compared; of several that must hold, the one that speaks least for the part", "1"),
    "effect": ("effect, mean over groups", "see units"),
    "low": ("lower end of the 95 % interval of the effect", "see units"),
    "high": ("upper end of the 95 % interval of the effect", "see units"),
    "units": ("units of the effect and its interval", "1"),
    "against": ("value, or range of equivalence, that p is taken against; empty: no effect", "see units"),
    "n": ("groups; of variances, pairs of networks", "1"),
    "images": ("whether images were resampled beside groups: 1 or 0", "1"),
    "p": (
        "two-sided p value of this comparison, from the procedure of its interval; of an equivalence, of lying within "
        "the margin or beyond it, whichever is smaller",
        "1",
    ),
    "p_holm": ("p value of the part after Holm's correction over all parts", "1"),
    "p_sign_flip": ("p value of this comparison from changed signs over groups", "1"),
    "reason": ("why the part was not measured", "1"),
}
UNKNOWN = {"comparison": "", "units": "1", "against": "", "n": 0, "images": np.int8(0), "reason": ""} | dict.fromkeys(
    ("effect", "low", "high", "p", "p_holm", "p_sign_flip"), np.nan
)


class Part(NamedTuple):
    """A part of a claim, or comparisons that stand beside it.

    Attributes:
        claim: such as "C5".
        name: such as "C5a fgsm"; empty where nothing hangs on it.
        title: what it says.
        rule: takes the data sets by stage and gives the comparisons, all of which must hold; its docstring says how.
        short: what the table of settings calls it, ``{}`` as in the title; by default its name.
    """

    claim: str
    name: str
    title: str
    rule: Callable[[Results], list[Test]]
    short: str = ""


def part(name: str, title: str, short: str = "", *, each: Mapping[str, str] | None = None) -> Callable:
    """Mark a function of results, and of what it is taken for if there are several, as the rule of a part of a claim.

    Args:
        name: of the part, such as "C5a".
        title: what the part says; ``{}`` stands for each in words.
        short: the same in a few words, for the table of settings.
        each: of what the rule is taken, such as the attacks, and how that is called.
    """

    def mark(rule: Callable) -> Callable:
        claim = name.rstrip("abc")
        rule.parts = [
            Part(claim, f"{name} {one}", title.format(words), lambda results, one=one: rule(results, one), short)
            for one, words in (each or {}).items()
        ] or [Part(claim, name, title, rule, short)]
        return rule

    return mark


def beside(claim: str) -> Callable:
    """Mark a function of results as one that gives comparisons to be reported beside a claim."""

    def mark(rule: Callable) -> Callable:
        rule.parts = [Part(claim, "", "", rule)]
        return rule

    return mark


def assemble(parts: Iterable[Part], statements: Mapping[str, str], results: Results) -> xr.Dataset:
    """The ledger of claims.

    Args:
        parts: of all claims, in order.
        statements: what the paper claims, by claim.
        results: data sets by stage.

    Returns:
        The variables of `VARIABLES` over ``part``, whose coordinate ``claim`` names the claim. Parts have short names;
        comparisons that are only reported have their own. So ledgers of several settings join with ``xr.concat(...,
        dim="setting", join="outer")``.
    """
    rows = [row for one in parts for row in (_decided(one, results) if one.name else _reported(one, results))]
    adjusted = holm([row.pop("decisive", np.nan) for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
        row["verdict"] = row["verdict"] or ("not resolved" if not p <= ALPHA else row["toward"])
    for row in rows:
        row["statement"] = statements[row["claim"]]
        row["claim_verdict"] = _whole([r["verdict"] for r in rows if r["claim"] == row["claim"]])
    coords = columns(rows, "part", {"part": ("part of a claim, or comparison", "1"), "claim": ("claim", "1")})
    return xr.Dataset(columns(rows, "part", VARIABLES), coords=coords)


def _decided(one: Part, results: Results) -> list[dict]:
    """The row of a part, but for Holm's correction, and rows of the other comparisons that it consists of."""
    row = {"part": one.name, "claim": one.claim, "title": one.title} | UNKNOWN
    try:
        tests = one.rule(results)
    except NotMeasuredError as error:
        return [row | {"verdict": "not measured", "reason": str(error)}]
    if undefined := [test.name for test in tests if isinstance(test, Undefined)]:
        return [row | {"verdict": "not measured", "reason": f"no group has numbers for: {'; '.join(undefined)}"}]
    if not all(test.decidable for test in tests):
        row["verdict"], shown = "no verdict", tests[0]
    else:
        row["verdict"] = ""
        toward, against = max(test.p_for for test in tests), min(test.p_against for test in tests)
        against = min(1.0, len(tests) * against)
        row |= {"toward": "reproduced" if toward <= against else "contradicted", "decisive": min(toward, against)}
        if toward <= against:
            shown = max(tests, key=lambda test: (test.p_for, -test.p_against, -abs(test.mean.value)))
        else:
            shown = min(tests, key=lambda test: (test.p_against, -abs(test.mean.value)))
    others = [_beside(one.claim, test) for test in tests if test is not shown]
    return [row | shown.row(), *others]


def _reported(one: Part, results: Results) -> list[dict]:
    try:
        return [_beside(one.claim, test) for test in one.rule(results)]
    except NotMeasuredError:
        return []


def _beside(claim: str, test: Test) -> dict:
    return {"part": f"{claim}: {test.name}", "claim": claim, "title": "", "verdict": REPORTED} | UNKNOWN | test.row()


def _whole(verdicts: list[str]) -> str:
    """The verdict on a claim from those on its parts."""
    given = {verdict for verdict in verdicts if verdict != REPORTED}
    if len(given) == 1:
        return given.pop()
    return "contradicted" if "contradicted" in given else "no verdict" if "no verdict" in given else "not resolved"


class Whole(NamedTuple):
    """A claim of a ledger: its name, what the paper states, the verdict, and the rows of its parts."""

    claim: str
    statement: str
    verdict: str
    parts: xr.Dataset


def wholes(ledger: xr.Dataset) -> list[Whole]:
    """The claims of a ledger, in its order."""
    told = []
    for claim in dict.fromkeys(ledger.claim.values.tolist()):
        rows = ledger.isel(part=((ledger.claim == claim) & (ledger.verdict != REPORTED)).values)
        first = rows.isel(part=0)
        told.append(Whole(claim, first.statement.item(), first.claim_verdict.item(), rows))
    return told
