"""Are merged networks more robust than others as accurate? Every family at its clean and its strong-attack accuracy."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...evaluation import evaluate
from ...images.sources import Images
from ...merging.distances import CONVERGENCE
from ...merging.ensemble import ensemble
from ...merging.methods import merge_sets
from ...progress import track
from ...robustness.attacks import along, attack
from ...robustness.strong import STEPS, pgd
from ...training.recipe import Recipe
from ..figures.captions import behind_attacks, captioned
from ..groups import PERCENT, NotMeasuredError, is_strong, strong, tree_stages
from ..statistics import Test, by_sign
from .control_networks import narrow, noised
from .equal_accuracy import Comparison, compare, robust_by_image
from .family_figure import draw_families, left_out
from .wording import amount, listed, signed, within

TITLE = "Are networks merged in a tree more robust than early-stopped ones of the same accuracy?"
SCHEMA = {"model": "test_accuracy", "model attack epsilon": "robust_accuracy"}
# Beside them may be ``withstood`` (model attack image) and ``zero_gradients`` (model), which data sets published first
# lack: they hold medians, and shares of images that several networks get right, instead
LEVELS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.9)  # of weight noise, in standard deviations of a layer's weights
OTHERS = {  # families that were not merged, and what a sentence calls them
    "stopped": "early-stopped networks",
    "narrow": "narrower networks",
    "noised": "networks with noisy weights",
    "l1": "L1-regularised networks",
    "l2": "L2-regularised networks",
}
NOT_COMPARABLE = "Not comparable"  # where others are more than a point more or less accurate
MERGED = {
    "tree": "the tree",
    "activations": "the tree by activations",
    "merge-many": "MergeMany",
    "merge-many-from-tree": "MergeMany from the tree",
}
ATTACKS = {"fgsm": "FGSM", "pgd-margin": "PGD on the margin"}
Key = tuple[str, str, int, str]  # attack, method, stage, family of the others


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
    matched: int,
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
        matched: the first training images, by whose activations leaves are matched.
        steps: of PGD, from one random start.
        device: where to train and attack.
    """
    sizes = sorted({0.0, *epsilons, *searched}), [size for size in searched if is_strong(size)]
    parts, few = [], test_set.first(attacked)
    for group in dict.fromkeys(bank.labels["group"].tolist()):
        members = replace(bank.where(group=group), history=None)
        leaves, first = members.where(method="unmerged"), members.where(method="unmerged", node=0)
        banks = [few_of(members, sets), noised(first, LEVELS)]
        banks += narrow(first, train_set, recipe, shares, device=device)
        sizes_merged = [2**k for k in range(1, int(np.log2(len(leaves))) + 1)]
        banks += [ensemble(leaves.select(slice(size))) for size in sizes_merged]
        banks += by_activations(leaves, sizes_merged, sets, train_set.first(matched))
        for each in track(banks, label="families", unit="bank"):
            found = _attacked(each.to(device), few, *sizes, steps, device)
            accuracy = evaluate(each, test_set, device=device).accuracy.rename("test_accuracy")
            parts.append(found.assign(test_accuracy=accuracy.assign_attrs(long_name="test accuracy")))
    return xr.concat(parts, dim="model", combine_attrs="override").drop_attrs(deep=False)


def by_activations(leaves: Bank, sizes: Sequence[int], sets: int, images: Images) -> list[Bank]:
    """Trees of each size whose pairs are matched by their activations on images; the first ``sets``."""
    places = [(size, node) for size in sizes for node in range(min(sets, len(leaves) // size))]
    parts = [leaves.select(slice(node * size, (node + 1) * size)) for size, node in places]
    merged = merge_sets(parts, ["activations"], images=images)
    return [one.relabel(node=node) for one, (_, node) in zip(merged, places, strict=True)]


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
    pairs = _pairs(data, [*_attacks(data)])
    tests = {key: pair.test(_name(key, pair)) for key, pair in pairs.items()}
    return list(tests.values()), " ".join(_sentences(pairs, tests, tree_stages(data)[-1]))


def _pairs(data: xr.Dataset, kinds: Sequence[str], methods: Iterable[str] = MERGED) -> dict[Key, Comparison]:
    """Comparisons by attack, method, stage and family of the others; MergeMany beside early-stopped networks alone."""
    found = {}
    robust, methods = {kind: robust_by_image(data, kind) for kind in kinds}, {*methods} & {*data.method.values}
    for key in product(kinds, [name for name in MERGED if name in methods], tree_stages(data)[1:], OTHERS):
        kind, method, stage, family = key
        if method == "tree" or family == "stopped":
            with suppress(NotMeasuredError):
                found[key] = compare(data, robust[kind], {"method": method, "stage": stage}, family)
    if not found:
        raise NotMeasuredError("no network that was not merged stands beside the tree's")
    return found


def _attacks(data: xr.Dataset) -> dict[str, str]:
    """The attacks that were tried, and what a reader calls them."""
    return {kind: name for kind, name in ATTACKS.items() if kind in data.attack.values}


def _headline(pairs: dict[Key, Comparison]) -> Key:
    """The last stage that has early-stopped networks as accurate, or the last stage; under the first attack."""
    beside = [key for key in pairs if key[1] == "tree"]
    beside = [key for key in beside if key[0] == beside[0][0] and key[3] == beside[0][3]]
    return max(beside, key=lambda key: (pairs[key].equal, key[2]))


def _name(key: Key, pair: Comparison) -> str:
    kind, method, stage, family = key
    at = "at equal accuracy" if pair.equal else f"beside the nearest, {_gap(pair)}"
    return f"{ATTACKS[kind]}, strong, {at}: {method} of {2**stage} minus {OTHERS[family]}"


def _sentences(pairs: dict[Key, Comparison], tests: dict[Key, Test], top: int) -> Iterator[str]:
    """The answer, and what else was tried."""
    key = _headline(pairs)
    kind, _, stage, family = key
    pair = pairs[key]
    if not pair.near:
        others = f"The {_end(pair)} {OTHERS[family]} are {_gap(pair)} than networks merged from {2**stage}."
        yield f"{NOT_COMPARABLE}. {others}"
        return
    own, others = (PERCENT * side.mean() for side in (pair.own, pair.others))
    at = f"At the same accuracy ({PERCENT * pair.accuracy.mean():.0f} %), networks" if pair.equal else "Networks"
    kept = f"{at} merged from {2**stage} classify {own:.0f} % of images correctly under strong {ATTACKS[kind]}"
    beside = OTHERS[family].replace("networks", "ones") if pair.equal else f"{_nearest(pair, family)},"
    yield f"{_verdict(pairs, tests, key)}. {kept} and {beside} {others:.0f} %."
    yield f"The difference is {signed(tests[key])}."
    kinds = [kind, *(each for each in ATTACKS if each != kind and (each, *key[1:]) in tests)]
    for other in kinds[1:]:
        yield f"Under {ATTACKS[other]} it is {signed(tests[other, *key[1:]])}."
    sizes = [k[2] for k in tests if (k[0], k[1], k[3]) == (kind, "tree", family) and k != key]
    for each in kinds:
        alike = {str(2**size): tests[k] for size in sizes if pairs[k := (each, "tree", size, family)].equal}
        yield from _sizes(alike, ATTACKS[each])
    for k in ((kind, "tree", size, family) for size in sizes if pair.equal):
        yield from _unequal(k, pairs[k], tests[k], ATTACKS[kind])
    for method, name in MERGED.items():
        for each in kinds:
            if (many := (each, method, top, family)) in tests and method != "tree":
                yield _beside(f"{name} of {2**top}", ATTACKS[each], pairs[many], tests[many], family)
    near = {OTHERS[k[3]]: tests[k] for k in pairs if k[:3] == key[:3] and k != key and pairs[k].near}
    signs = {1: "more robust than", -1: "less robust than", 0: "not resolved against"}
    told = [f"{signs[sign]} {listed(names)}" for sign, names in by_sign(near).items() if names]
    if told:
        merged = f"those merged from {2**stage} are {', '.join(told)}"
        yield f"Among networks within 1 point of their accuracy, {merged} under {ATTACKS[kind]}."


def _sizes(tests: dict[str, Test], attack_name: str) -> Iterator[str]:
    """How networks merged from other numbers stand beside early-stopped networks of the same accuracy."""
    words = {1: "lead", -1: "trail"}
    for sign, names in by_sign(tests).items():
        merged = f"networks merged from {listed(names)}"
        if sign and names:
            by = listed([f"{abs(tests[name].effect):.1f}" for name in names])
            yield f"Under {attack_name}, {merged} {words[sign]} by {by} points."
        elif names:
            sizes = listed([f"{tests[name].effect:.1f}" for name in names])
            yield f"For {merged}, the difference under {attack_name} is not resolved ({sizes} points)."


def _unequal(key: Key, pair: Comparison, test: Test, attack_name: str) -> Iterator[str]:
    """Of merged networks that have none as accurate beside them: how near the nearest are, and who is ahead."""
    merged, others = f"Networks merged from {2 ** key[2]}", OTHERS[key[3]]
    if pair.near and not pair.equal:
        gap = f"{abs(PERCENT * pair.beyond.mean()):.1f} points {'less' if pair.beyond.mean() > 0 else 'more'} accurate"
        under = f"the difference under {attack_name} is not resolved: {signed(test)}"
        if test.sign:
            more, spread = "more" if test.sign > 0 else "less", within(test, mirrored=test.sign < 0)
            under = f"under {attack_name} {amount(test)} {more} robust {spread}"
        yield f"{merged} are {gap} than the nearest {others}, and {under}."
    elif (pair.beyond > 0).all():
        yield f"{merged} are less accurate than all {others}, so we cannot compare them."


def _beside(name: str, attack_name: str, pair: Comparison, test: Test, family: str) -> str:
    """How much more or less some networks keep than others as accurate, or than the nearest in accuracy."""
    others = f"{OTHERS[family]} of the same accuracy" if pair.equal else _nearest(pair, family)
    if not test.sign:
        keeps = f"whether {name} keeps more or less than {others}: {signed(test)}"
        return f"Under {attack_name}, it is not resolved {keeps}."
    more, spread = "more" if test.sign > 0 else "less", within(test, mirrored=test.sign < 0)
    return f"Under {attack_name}, {name} keeps {amount(test)} {more} {spread} than {others}."


def _nearest(pair: Comparison, family: str) -> str:
    """The others that are nearest in accuracy, where none is equal."""
    return f"the {_end(pair)} {OTHERS[family]}, which are {_gap(pair)}"


def _end(pair: Comparison) -> str:
    return "least accurate" if pair.beyond.mean() > 0 else "most accurate"


def _verdict(pairs: dict[Key, Comparison], tests: dict[Key, Test], key: Key) -> str:
    """Of the headline; "Partly" where another stage or attack says the opposite."""
    alike = {k: tests[k] for k in pairs if k[1] == "tree" and k[3] == key[3] and pairs[k].equal == pairs[key].equal}
    signs = by_sign(alike)
    return "Partly" if signs[1] and signs[-1] else tests[key].yes_or_no()


def _gap(pair: Comparison) -> str:
    gap = PERCENT * pair.beyond.mean()
    return f"{abs(gap):.1f} points {'more' if gap > 0 else 'less'} accurate"


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    pairs = _pairs(data, [*_attacks(data)][:1], ["tree"])
    key = _headline(pairs)
    merged = f"networks merged from {2 ** key[2]} in a tree"
    if not pairs[key].near:
        return f"No {OTHERS[key[3]]} have the accuracy of {merged}."
    word = {"Yes": "better", "No": "worse"}.get(pairs[key].test("").yes_or_no())
    others = f"{OTHERS[key[3]]}{' of equal accuracy' if pairs[key].equal else ''}"
    if word is None:
        return f"It is not resolved whether {merged} withstand strong attacks better than {others}."
    return f"{merged.capitalize()} withstand strong attacks {word} than {others}."


@captioned(
    "Every family of networks at its test accuracy and at the share of attacked images that it still classifies "
    "correctly under strong attack (L-infinity, mean over sizes from 0.015 to 0.02, pixels in [0, 1]), a panel per "
    "attack. Each curve starts at the unmerged networks and runs through more merged "
    "networks, or a stronger change (fewer epochs, larger penalty, fewer units, more noise). Numbers count the "
    "networks that the tree merged. Above and to the right is better.",
    about=lambda data: [*behind_attacks(data), *left_out(data)],
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """Accuracy under strong attack over test accuracy, a curve per family, a panel per attack."""
    return draw_families(data, _attacks(data), _seen(data))
