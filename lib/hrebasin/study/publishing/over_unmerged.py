"""Merged networks beside unmerged ones: which ways to merge make networks more robust, and under which attacks."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import product

from ...merging.distances import CONVERGENCE
from ..groups import NotMeasuredError, sweeps_in_words, tree_stages
from ..questions.equal_accuracy import over_unmerged
from ..questions.families import MERGED
from ..questions.ways_beside_the_tree import NAMES, beside_unmerged
from ..questions.wording import amount, way_in_words, within
from ..statistics import Test, by_sign
from .places import Settings, quoted

PGD = "pgd-margin"
Key = tuple[str, str, int]  # setting, method, how many networks were merged
# ways that are families of networks too, as `beside_unmerged` calls them -> method
FAMILY_OF = {NAMES["merge-many-from-tree"]: "merge-many-from-tree", NAMES["activations"]: "activations"}
FAMILY_OF |= {f"MergeMany, {sweeps_in_words(CONVERGENCE)}": "merge-many"}


def other_ways_lead(settings: Settings) -> Iterator[str]:
    """Where networks merged in other ways are more robust than unmerged ones, and where none is."""
    found = {
        name: beside_unmerged(each.results["mergers"]) for name, each in settings.items() if "mergers" in each.results
    }
    ahead = {name: leading for name, tests in found.items() if (leading := by_sign(tests)[1])}
    elsewhere = _families({name: each for name, each in settings.items() if name not in found}, "fgsm") if ahead else {}
    for name, leading in ahead.items():
        best = max(leading, key=lambda way: found[name][way].effect)
        behind = len(by_sign(found[name])[-1])
        yield (
            f"The way of merging matters: in `{name}`, {len(leading)} of {len(found[name])} other ways lead unmerged "
            f"networks under FGSM, {way_in_words(best)} most, by {amount(found[name][best])} "
            f"{within(found[name][best])}{f', and {behind} trail' * bool(behind)}."
        )
        of_most = {other: test for (other, method, _), test in elsewhere.items() if method == FAMILY_OF.get(best)}
        for other, test in of_most.items():
            if test.sign:
                beside = f"{amount(test)} {within(test, mirrored=test.sign < 0)}"
                yield f"In `{other}`, {way_in_words(best)} {'leads' if test.sign > 0 else 'trails'} them by {beside}."
    if none := [name for name, tests in found.items() if tests and name not in ahead]:
        yield f"No other way leads them in {quoted(none)}."


def under_pgd(settings: Settings) -> Iterator[str]:
    """In how many comparisons networks merged in the tree, and in other ways, lead unmerged ones under PGD."""
    tests = _families(settings, PGD)
    tree = {key: test for key, test in tests.items() if key[1] == "tree"}
    rest = {key: test for key, test in tests.items() if key not in tree}
    if tree:
        yield f"Under PGD, networks merged in the tree lead unmerged ones {_ahead(tree)}."
    if rest:
        yield f"Networks merged in other ways lead them {_ahead(rest)}."


def _ahead(tests: Mapping[Key, Test]) -> str:
    """In how many comparisons they lead, where and by how much at most, and in how many they trail."""
    signs, told = by_sign(tests), []
    for sign, count in ((1, f"in {{}} of {len(tests)} comparisons"), (-1, "and trail in {}")):
        keys = signs[sign]
        where = quoted(dict.fromkeys(setting for setting, *_ in keys))
        most = max((tests[key] for key in keys), key=lambda test: abs(test.effect), default=None)
        sizes = f" ({where}, by at most {amount(most)})" if most else ""
        told.append(f"{count.format(len(keys) or 'none')}{sizes}")
    return " ".join(told)


def _families(settings: Settings, kind: str) -> dict[Key, Test]:
    """(setting, method, number) -> merged networks minus unmerged ones under an attack, where that was tried."""
    found = {}
    for name, each in settings.items():
        data = each.results.get("controls")
        for method, stage in product(MERGED, [] if data is None else tree_stages(data)[1:]):
            if stage > 1 or "MergeMany" not in MERGED[method]:  # which of two is the pair merge
                with suppress(NotMeasuredError):
                    if test := over_unmerged(data, kind, {"method": method, "stage": stage}):
                        found[name, method, 2**stage] = test
    return found
