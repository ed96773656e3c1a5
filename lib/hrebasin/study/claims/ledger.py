"""The claims of the paper, each tested over groups (trees) and entered into a ledger.

One function a claim: it takes the data sets by stage and gives the comparisons that bear on the claim, one value a
group, and which of them decide. `hrebasin.study.claims.verdicts` turns them into verdicts.
"""

from collections.abc import Callable

import xarray as xr

from ..groups import NotMeasuredError, Results
from .accuracy import c1, c2, c3, c4
from .regularity import c7, c8, c9
from .robustness import c5, c6, c10
from .verdicts import Finding, assemble

CLAIMS: dict[str, tuple[str, Callable[[Results], Finding]]] = {
    "C1": ("At 4 models the tree's test accuracy exceeds MergeMany's.", c1),
    "C2": ("At 8 models the advantage is larger, and MergeMany's accuracy collapses.", c2),
    "C3": ("The tree's accuracy varies less across groups than MergeMany's.", c3),
    "C4": ("Accuracy falls with every stage, and the barrier after matching is above zero.", c4),
    "C5": ("Earlier stages are more robust to weak attacks, later ones to strong, equal near 0.01.", c5),
    "C6": ("L2-regularised models have the highest robust accuracy over most of the range.", c6),
    "C7": ("The summed weight norm falls linearly with the stage, and its variance falls.", c7),
    "C8": ("The Lipschitz upper bound falls with the stage, and its variance falls.", c8),
    "C9": ("Which of the two models is permuted makes no significant difference.", c9),
    "C10": ("Robustness to random perturbation rises with the stage.", c10),
}


def ledger(results: Results) -> xr.Dataset:
    """All claims tested on the data sets at hand.

    Args:
        results: data sets by stage ("merge", "attack", "regularity", "ablations"); claims without theirs are "not
            tested".

    Returns:
        One entry a claim and one a component test, see `hrebasin.study.claims.verdicts.assemble`.
    """
    findings = {}
    for claim, (_, function) in CLAIMS.items():
        try:
            findings[claim] = function(results)
        except NotMeasuredError as error:
            findings[claim] = str(error)
    return assemble(findings, {claim: title for claim, (title, _) in CLAIMS.items()})
