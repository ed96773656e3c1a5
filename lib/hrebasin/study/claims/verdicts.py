"""From comparisons to verdicts.

A claim is reproduced when every component that decides is significant in the claimed direction (intersection-union: the
largest p counts), contradicted when one is significant in the opposite direction (Bonferroni over the components), and
inconclusive otherwise; both after Holm's correction over the claims. Two-sided p values leave half of the level to each
direction. A single group gives a number and no verdict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..groups import Results
from ..records import columns
from ..statistics import Test, holm

ALPHA = 0.05  # the usual level of significance, for all claims together
SMALLEST_P = 1e-6  # smaller p values rest on tails that a few groups cannot support; printed as "<"
AGAINST, NOT_SHOWN = "against it: ", "not shown: "  # what stands before the tests that a claim failed on
VERDICTS = ("reproduced", "contradicted", "inconclusive", "no verdict", "not tested")

# variable -> long name, units
CLAIM_VARIABLES = {
    "title": ("the claim", "1"),
    "statistic": ("what the effect is", "1"),
    "effect_units": ("units of the effect and its interval", "1"),
    "verdict": (f"verdict: {', '.join(VERDICTS)}", "1"),
    "effect": ("effect, mean over groups", "see effect_units"),
    "low": ("lower end of the 95 % interval of the effect", "see effect_units"),
    "high": ("upper end of the 95 % interval of the effect", "see effect_units"),
    "n": ("groups, the fewest over the tests that decide", "groups"),
    "p": ("p value over the tests that decide, in the direction that they point", "1"),
    "p_holm": ("p value after Holm's correction over the claims", "1"),
    "sentence": ("interpretation", "1"),
}
TEST_VARIABLES = {
    "test_name": ("what is compared", "1"),
    "test_units": ("units of the effect and its interval", "1"),
    "test_effect": ("effect, mean over groups", "see test_units"),
    "test_low": ("lower end of the 95 % interval of the effect", "see test_units"),
    "test_high": ("upper end of the 95 % interval of the effect", "see test_units"),
    "test_n": ("groups", "groups"),
    "test_p": ("p value: two-sided, or of an equivalence test", "1"),
    "test_decides": ("whether the verdict hangs on this test", "1"),
}


@dataclass(frozen=True, eq=False)
class Finding:
    """What was found about a claim: its tests, the headline among them, and what they mean in words."""

    tests: list[Test]
    headline: Test
    reading: str = ""


# What a claim is tested by: takes the data sets by stage, gives the comparisons, one value a group, that bear on the
# claim, and which of them decide; its docstring says the rule.
Rule = Callable[[Results], Finding]


def claim(name: str, statement: str) -> Callable[[Rule], Rule]:
    """Mark a rule as that of a claim; it has the attributes ``claim`` and ``statement`` then.

    Args:
        name: of the claim, such as "C1".
        statement: of the paper, in a sentence.
    """

    def mark(rule: Rule) -> Rule:
        rule.claim, rule.statement = name, statement
        return rule

    return mark


def assemble(findings: Mapping[str, Finding | str], titles: Mapping[str, str]) -> xr.Dataset:
    """The ledger of claims.

    Args:
        findings: what was found for each claim, or in words why it was not tested.
        titles: each claim in a sentence.

    Returns:
        The variables of `CLAIM_VARIABLES` over ``claim`` and of `TEST_VARIABLES` over ``test``, whose coordinate
        ``test_claim`` names the claim.
    """
    tested = {claim: finding for claim, finding in findings.items() if isinstance(finding, Finding)}
    sides = {claim: _p_values(finding) for claim, finding in tested.items()}
    p = {claim: np.nan if np.isnan(side).all() else np.nanmin(side) for claim, side in sides.items()}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    rows = []
    for claim, finding in findings.items():
        row = {"title": titles[claim]}
        if claim not in tested:
            row |= {"statistic": "", "effect_units": "1", "verdict": "not tested", "n": 0}
            row |= dict.fromkeys(("effect", "low", "high", "p", "p_holm"), np.nan)
            row["sentence"] = f"Not tested: {finding}."
        else:
            headline = finding.headline
            low, high = headline.interval(claim)
            row |= {"statistic": headline.name, "effect_units": headline.units, "effect": headline.effect}
            row |= {"low": low, "high": high, "n": _groups(finding), "p": p[claim], "p_holm": adjusted[claim]}
            row["verdict"] = _verdict(row["n"], *sides[claim], adjusted[claim])
            row["sentence"] = _sentence(row, finding)
        rows.append(row)
    tests = [
        {f"test_{name}": value for name, value in test.row(claim).items()}
        | {"test_decides": np.int8(test.decides), "test_claim": claim}
        for claim, finding in tested.items()
        for test in finding.tests
    ]
    variables = columns(rows, "claim", CLAIM_VARIABLES) | columns(tests, "test", TEST_VARIABLES)
    coords = columns([{"claim": name} for name in findings], "claim", {"claim": ("claim", "1")})
    coords |= columns(tests, "test", {"test_claim": ("claim that the test belongs to", "1")})
    return xr.Dataset(variables, coords=coords)


def _p_values(finding: Finding) -> tuple[float, float]:
    """P value for the claim and against it, over the tests that decide."""
    deciding = [test for test in finding.tests if test.decides]
    toward = max((test.p_for for test in deciding), key=lambda p: np.inf if np.isnan(p) else p)
    against = [test.p_against for test in deciding if not np.isnan(test.p_against)]
    return toward, min(1.0, len(deciding) * min(against)) if against else np.nan


def _groups(finding: Finding) -> int:
    return min(test.n for test in finding.tests if test.decides)


def _verdict(n: int, toward: float, against: float, adjusted: float) -> str:
    if n == 1:
        return "no verdict"
    if not adjusted <= ALPHA:  # also when there is no p
        return "inconclusive"
    # not (toward > against): a claim of equality can be met although a difference is significant
    return "contradicted" if np.isnan(toward) or toward > max(against, ALPHA) else "reproduced"


def _sentence(row: Mapping, finding: Finding) -> str:
    value = f"{row['statistic'][0].upper()}{row['statistic'][1:]}: {row['effect']:.3g}{_unit(row['effect_units'])}"
    if row["n"] == 1:
        return f"n = 1: no verdict; {value}; {finding.reading}."
    spread = f"95 % interval {row['low']:.3g} to {row['high']:.3g}, n = {row['n']} groups"
    return f"{value} ({spread}, {_p_text(row['p_holm'])}); {finding.reading}{_hurdles(row, finding)}."


def _hurdles(row: Mapping, finding: Finding) -> str:
    """The tests that a claim with several failed on."""
    deciding = [test for test in finding.tests if test.decides]
    if len(deciding) == 1 or row["verdict"] == "reproduced":
        return ""
    if row["verdict"] == "contradicted":
        label, failed = AGAINST, [t for t in deciding if t.p_against * len(deciding) <= ALPHA]
    else:
        label, failed = NOT_SHOWN, [t for t in deciding if not t.p_for <= ALPHA] or deciding
    return f"; {label}" + ", ".join(f"{t.name} ({t.effect:.3g}{_unit(t.units)})" for t in failed)


def _p_text(p: float) -> str:
    if np.isnan(p):
        return "no p value"
    return f"Holm-adjusted p = {p:.2g}" if p >= SMALLEST_P else f"Holm-adjusted p < {SMALLEST_P:g}"


def _unit(units: str) -> str:
    return "" if units == "1" else f" {units.removeprefix('1 ')}"
