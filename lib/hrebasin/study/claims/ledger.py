"""The ledger: every claim of the paper tested over groups (trees). This is the one place that computes it."""

import numpy as np
import xarray as xr

from ..groups import Results
from . import accuracy, regularity, robustness
from .verdicts import Part, assemble

_MODULES = (accuracy, robustness, regularity)


def _number(claim: str) -> int:
    return int(claim[1:])


# claim -> what the paper states
CLAIMS: dict[str, str] = dict(
    sorted(((c, s) for module in _MODULES for c, s in module.STATEMENTS.items()), key=lambda pair: _number(pair[0]))
)
_FOUND = [part for module in _MODULES for rule in vars(module).values() for part in getattr(rule, "parts", ())]
# all parts of claims, and what stands beside them, claim by claim
PARTS: list[Part] = sorted(_FOUND, key=lambda part: (_number(part.claim), not part.name))


def ledger(results: Results) -> xr.Dataset:
    """All claims tested on the data sets at hand.

    Args:
        results: data sets by stage ("merge", "attack", "regularity", "ablations"); parts without theirs are "not
            measured".

    Returns:
        One row a part, see `hrebasin.study.claims.verdicts.assemble`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not defined says so in its row
        return assemble(PARTS, CLAIMS, results)
