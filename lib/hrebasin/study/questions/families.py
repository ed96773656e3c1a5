"""Are merged networks more robust than others as accurate? Every family at its clean and its strong-attack accuracy."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.distances import CONVERGENCE
from ...merging.ensemble import ensemble
from ...progress import track
from ...robustness.attacks import along, attack
from ...robustness.strong import STEPS, pgd
from ...training.recipe import Recipe
from ..figures.style import captioned
from ..groups import PERCENT, NotMeasuredError, strong, tree_stages
from ..statistics import Test, by_sign
from .control_networks import narrow, noised
from .equal_accuracy import Comparison, compare
from .family_figure import draw_families

TITLE = "Are merged networks more robust than others as accurate?"
SCHEMA = {"model": "test_accuracy", "model attack epsilon": "robust_accuracy"}
# Beside them may be ``withstood`` (model attack image) and ``zero_gradients`` (model), which data sets published first
# lack: they hold medians, and shares of images that several networks get right, instead
LEVELS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.9)  # of weight noise, in standard deviations of a layer's weights
OTHERS = {  # families that were not merged, and what a sentence calls them
    "stopped": "early-stopped ones",
    "narrow": "narrower ones",
    "noised": "ones with noise on their weights",
    "l1": "L1-regularised ones",
    "l2": "L2-regularised ones",
}
ATTACKS = {"fgsm": "FGSM", "pgd-margin": "PGD on the margin"}


def measure(
    bank: Bank,
    train_set: Images,
    test_set: Images,
    recipe: Recipe,
    *,
    shares: Sequence[float],
    sets: int,
    attacked: int,
    epsilons: Sequence[float],
    searched: Sequence[float],
    steps: int = STEPS,
    device: str = "cpu",
) -> xr.Dataset:
    """Every family of networks under the same attacks on the same images: a data set of stage ``controls``.

    Args:
        bank: trees with their leaves, early-stopped and regularised networks, and whatever else was merged from them.
        train_set: what the leaves were trained on.
        test_set: images to be accurate on; the first ``attacked`` are attacked.
        recipe: of the leaves.
        shares: of the leaves' widths, for narrow networks.
        sets: merged networks of each size and method, and leaves, the first ones. Early-stopped and regularised
            networks are all taken; narrow and noised ones are made of the first leaf.
        epsilons: of FGSM, pixel range.
        searched: sizes of PGD on the margin, whose strong ones are taken; not a number at others.
        steps: of PGD, from one random start.
        device: where to train and attack.
    """
    sizes = sorted({0.0, *epsilons, *searched}), [size for size in searched if strong_size(size)]
    parts, few = [], test_set.first(attacked)
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = replace(bank.where(group=group), history=None)
        leaves, first = members.where(method="unmerged"), members.where(method="unmerged", node=0)
        banks = [few_of(members, sets), noised(first, LEVELS)]
        banks += narrow(first, train_set, recipe, shares, device=device)
        banks += [ensemble(leaves.select(slice(2**k))) for k in range(1, int(np.log2(len(leaves))) + 1)]
        for each in track(banks, label="families", unit="bank"):
            found = _attacked(each.to(device), few, *sizes, steps, device)
            accuracy = evaluate(each, test_set, device=device).accuracy.rename("test_accuracy")
            parts.append(found.assign(test_accuracy=accuracy.assign_attrs(long_name="test accuracy")))
    return xr.concat(parts, dim="model", combine_attrs="override").drop_attrs(deep=False)


def strong_size(size: float) -> bool:
    """Whether an attack of this size counts as strong."""
    return strong(xr.DataArray([0.0], coords={"epsilon": [size]}, dims="epsilon")).size > 0


def few_of(members: Bank, sets: int) -> Bank:
    """The networks of a group of which `measure` tells, see there; MergeMany at convergence alone."""
    labels = members.labels
    single = (labels["n_merged"] == 1) & (labels["method"] != "unmerged")
    return members.select((single | (labels["node"] < sets)) & np.isin(labels["sweeps"], [0, CONVERGENCE]))


def _attacked(bank, images, sizes, searched, steps, device) -> xr.Dataset:
    given = bank, images.pixels, images.labels
    found = attack(*given, kind="fgsm", epsilons=sizes, device=device)
    search = {"loss": "margin", "steps": steps, "restarts": 1, "device": device}
    flags = {"fgsm": found.robust, "pgd-margin": pgd(*given, epsilons=sorted({0.0, *searched}), **search)}
    accuracy = along({kind: each.mean("image").reindex(epsilon=sizes) for kind, each in flags.items()}, "attack")
    accuracy.attrs = {"long_name": "accuracy under attack", "units": "1"}
    withstood = along({kind: strong(each).sum("epsilon") for kind, each in flags.items()}, "attack").astype(np.int8)
    withstood.attrs = {"long_name": "strong sizes at which the image is still classified correctly", "units": "sizes"}
    columns = {"robust_accuracy": accuracy.transpose("model", "attack", "epsilon")}
    columns["withstood"] = withstood.transpose("model", "attack", "image")
    return xr.Dataset(columns | {"zero_gradients": found.zero_gradients})


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """Merged networks minus others as accurate, under strong attack, by attack, stage and family."""
    top, kinds = tree_stages(data)[-1], [kind for kind in ATTACKS if kind in data.attack.values]
    tests, found = [], {}
    methods = [name for name in ("tree", "merge-many", "merge-many-from-tree") if name in data.method.values]
    for kind in kinds:
        for method in methods:
            for stage in tree_stages(data)[1:]:
                for family in OTHERS if method == "tree" else ["stopped"]:
                    try:
                        pair = compare(data, kind, {"method": method, "stage": stage}, family)
                    except NotMeasuredError:
                        continue
                    found[kind, method, stage, family] = pair
                    at = "at equal accuracy" if pair.equal else f"at the nearest accuracy ({_gap(pair)})"
                    name = f"{kind}, strong, {at}: {method} of {2**stage} minus {OTHERS[family]}"
                    tests.append(pair.test(name))
    if not found:
        raise NotMeasuredError("no network that was not merged stands beside the tree's")
    kept = dict(zip(found, tests, strict=True))
    return tests, " ".join(_sentences(found, kept, kinds, top))


def _sentences(found: dict, tests: dict, kinds: list[str], top: int):
    """The answer: at the last stage where there are early-stopped networks as accurate, or at the last."""
    stopped = {key: pair for key, pair in found.items() if key[3] == "stopped" and key[1] == "tree"}
    here = {key: pair for key, pair in (stopped or found).items() if key[0] == kinds[0]}
    key = max(here, key=lambda k: (here[k].equal, k[2]))
    pair, test, other = here[key], tests[key], OTHERS[key[3]]
    signs = by_sign({k: tests[k] for k in (stopped or found) if found[k].equal or not pair.equal})
    word = "Partly" if signs[1] and signs[-1] else test.yes_or_no()
    own, others = (PERCENT * side.mean() for side in (pair.own, pair.others))
    equal = f"At equal accuracy ({PERCENT * pair.accuracy.mean():.1f} %), networks merged from {2 ** key[2]}"
    if not pair.equal:
        equal = (
            f"None of the {other.removesuffix(' ones')} networks is as accurate as those merged from {2 ** key[2]} "
            f"({_gap(pair)}); these"
        )
    kind = ATTACKS[kinds[0]]
    yield (
        f"{word}. {equal} keep {own:.1f} % under strong {kind} and {other} {others:.1f} %: {test.told()}."
        if word != "Not resolved"
        else f"{word}: {equal[0].lower()}{equal[1:]} keep {own:.1f} % under strong {kind} and {other} {others:.1f} %, "
        f"a difference of {test.told()}."
    )
    for again in kinds[1:]:
        if (again, *key[1:]) in tests:
            yield f"Under {ATTACKS[again]} the difference is {tests[again, *key[1:]].told()}."
    for method, name in {"merge-many": "MergeMany", "merge-many-from-tree": "MergeMany from the tree"}.items():
        if (many := (kinds[0], method, top, "stopped")) in tests and found[many].equal:
            yield f"{name} of {2**top} beside {OTHERS['stopped']} as accurate: {tests[many].told()}."
    beside = {OTHERS[k[3]]: tests[k] for k in found if k[:3] == key[:3] and k[3] != key[3]}
    about = {1: "more than", -1: "less than", 0: "not resolved from"}
    told = [f"{about[sign]} {', '.join(names)}" for sign, names in by_sign(beside).items() if names]
    if told:
        yield f"Of the others nearest in accuracy, the tree of {2 ** key[2]} keeps {'; '.join(told)}."


def _gap(pair: Comparison) -> str:
    gap = PERCENT * pair.beyond.mean()
    return f"nearest: {abs(gap):.1f} points {'more' if gap > 0 else 'less'} accurate"


@captioned(
    "Every family of networks at its test accuracy and at the share of attacked images that it still classifies "
    "correctly under strong attack (L-infinity, mean over sizes from 0.015 to 0.02, pixels in [0, 1]): FGSM, and "
    "projected gradient descent on the margin. Connected with the unmerged networks are 2, 4, 8 and more merged ones, "
    "and what strength changes in a family: epochs, penalty, width, noise. Above and to the right is better."
)
def draw(data: xr.Dataset) -> Figure:
    """Accuracy under strong attack over test accuracy, a curve a family, a panel an attack."""
    return draw_families(data, {kind: name for kind, name in ATTACKS.items() if kind in data.attack.values})
