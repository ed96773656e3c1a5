"""The ledger: every claim of the paper tested over groups (trees). This is the one place that computes it."""

import xarray as xr

from ..groups import NotMeasuredError, Results
from . import accuracy, regularity, robustness
from .verdicts import Rule, assemble

_RULES = [
    rule for module in (accuracy, regularity, robustness) for rule in vars(module).values() if hasattr(rule, "claim")
]
# claim -> its rule, in the paper's order
CLAIMS: dict[str, Rule] = {rule.claim: rule for rule in sorted(_RULES, key=lambda rule: int(rule.claim[1:]))}


def ledger(results: Results) -> xr.Dataset:
    """All claims tested on the data sets at hand.

    Args:
        results: data sets by stage ("merge", "attack", "regularity", "ablations"); claims without theirs are "not
            tested".

    Returns:
        One entry a claim and one a component test, see `hrebasin.study.claims.verdicts.assemble`.
    """
    findings = {}
    for claim, rule in CLAIMS.items():
        try:
            findings[claim] = rule(results)
        except NotMeasuredError as error:
            findings[claim] = str(error)
    return assemble(findings, {claim: rule.statement for claim, rule in CLAIMS.items()})
