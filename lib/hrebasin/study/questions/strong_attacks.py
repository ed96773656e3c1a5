"""Is the crossing an artefact of weak attacks? Networks under PGD, images of other networks, and a random search."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..figures.captions import captioned
from ..figures.style import draw_legend, draw_stage_curves, stacked
from ..groups import (
    BROKEN,
    PERCENT,
    POINTS,
    TOLERANCE,
    NotMeasuredError,
    count_groups,
    crossings,
    differences,
    large,
    of_stage,
    tree,
    tree_stages,
)
from ..statistics import Test, by_sign, defined
from .equal_accuracy import compare, lead, robust_by_image
from .strong_measures import FLOAT32, SOURCE_SEED, chosen, last_stage, measure
from .wording import signed

__all__ = ["SCHEMA", "SOURCE_SEED", "TITLE", "answer", "chosen", "draw", "last_stage", "measure"]
TITLE = "Does a stronger attack than FGSM change how merged and unmerged networks compare?"
SCHEMA = {"model attack epsilon": "robust_accuracy", "model": "zero_gradients"}
# Beside them may be ``withstood`` (model attack image), ``zero_gradients_float32``, ``searched`` and ``found`` (model),
# which data sets published first lack: these hold FGSM on rescaled logits and images of networks of the same tree
OWN_IMAGES = "transfer-tree-4"  # of those: no transfer for the last stage
IN_WORDS = {
    "fgsm": "FGSM",
    "fgsm-float32": "FGSM in float32",
    "fgsm-float64": "FGSM in float64",
    "pgd-cross-entropy": "PGD on the cross-entropy",
    "pgd-margin": "PGD on the margin",
    "transfer-fgsm": "FGSM images of an unmerged network outside all trees",
    "transfer-pgd": "PGD images of an unmerged network outside all trees",
    "transfer-merged-fgsm": "FGSM images of another tree's last stage",
    "transfer-merged-pgd": "PGD images of another tree's last stage",
    "transfer-unmerged-0": "FGSM images of another leaf",
    OWN_IMAGES: "FGSM images of the tree's own last stage",
    "worst": "the worst of all",
}
HEADLINE = "pgd-margin"
PANELS = (HEADLINE, "transfer-pgd", "transfer-merged-pgd", "transfer-unmerged-0")  # of them those that there are
SMALL = 0.05  # points and % that one decimal does not show
LARGEST_SHOWN = 0.05  # epsilons above it only show that attacks work; they would squeeze the curves


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """The last stage minus stage 0 under strong attack and where they cross, by attack; and what attacks leave."""
    top, tests, crossing = tree_stages(data)[-1], {}, {}
    standing = data.robust_accuracy.sel(epsilon=data.epsilon < BROKEN - TOLERANCE)  # where all is broken, curves meet
    gains = {str(kind): _gain(data, str(kind), top) for kind in data.attack.values}
    for kind, gain in gains.items():
        tests[f"gain, {kind}"] = gain
        found = crossings(standing.sel(attack=kind), 0, top)
        if there := np.count_nonzero(np.isfinite(found)):
            name = f"{IN_WORDS.get(kind, kind)}: crossing of stages 0 and {top} ({there} of {len(found)})"
            crossing[kind] = defined(name, found, "pixel range")
    for stage in (0, top):
        tests |= _left(data, stage)
    for family in ("stopped", "l2"):
        with suppress(NotMeasuredError):
            tests[family] = _beside(data, top, family)
    many = {"method": "merge-many", "n_merged": 2**top}
    with suppress(NotMeasuredError):
        tests["many"] = _apart(data, HEADLINE, many, of_stage(0), f"MergeMany of {2**top} minus stage 0")
    said = " ".join(_sentences(data, gains, tests, crossing, top))
    return [*tests.values(), *crossing.values()], said


def _gain(data: xr.Dataset, kind: str, top: int) -> Test:
    """The last stage minus stage 0 under strong attack of a kind."""
    return _apart(data, kind, of_stage(top), of_stage(0), f"stage {top} minus stage 0")


def _apart(data: xr.Dataset, kind: str, first: Mapping, second: Mapping, about: str) -> Test:
    """Networks with the labels ``first`` minus those with ``second`` under strong attack of a kind."""
    return lead(data, kind, first, second, f"{IN_WORDS.get(kind, kind)}, strong: {about}")


def _left(data: xr.Dataset, stage: int) -> dict[str, Test]:
    """Images without gradient, and what is left of a stage where everything must break."""
    tests = {}
    for name, kind in (("zero_gradients", ""), ("zero_gradients_float32", " in float32")):
        if name in data:
            share = tree(data[name], stage).values * PERCENT
            tests[f"{name}, {stage}"] = defined(f"images without any gradient{kind}, stage {stage}", share, "%")
    broken = tree(data.robust_accuracy.sel(attack="worst").sel(epsilon=BROKEN, method="nearest"), stage)
    tests[f"broken, {stage}"] = defined(f"worst case at {BROKEN:g}, stage {stage}", broken.values * PERCENT, "%")
    if {"fgsm", FLOAT32} <= set(data.attack.values):
        kept = tree(large(data.robust_accuracy), stage)
        flattered = differences(kept.sel(attack=FLOAT32), kept.sel(attack="fgsm")) * PERCENT
        title = f"{IN_WORDS[FLOAT32]} minus FGSM, strong, stage {stage}"
        tests[f"float32, {stage}"] = defined(title, flattered, POINTS)
    return tests


def _beside(data: xr.Dataset, top: int, family: str) -> Test:
    """The last stage minus networks as accurate that were not merged."""
    clean = data.robust_accuracy.sel(attack="fgsm").sel(epsilon=0, drop=True).drop_vars("attack")
    robust = robust_by_image(data, HEADLINE)
    pair = compare(data.assign(test_accuracy=clean), robust, {"method": "tree", "stage": top}, family)
    gap = PERCENT * pair.beyond.mean()
    at = "at equal accuracy" if pair.equal else f"beside the nearest, {abs(gap):.1f} points off in accuracy"
    return pair.test(f"{IN_WORDS[HEADLINE]}, strong, {at}: stage {top} minus {family}")


def _sentences(data: xr.Dataset, gains: dict, tests: dict, crossing: dict, top: int) -> Iterator[str]:
    headline = HEADLINE if HEADLINE in gains else "fgsm"
    fair = {kind: gain for kind, gain in gains.items() if not kind.startswith("fgsm") and kind != OWN_IMAGES}
    signs = by_sign(fair)
    hard, looks = gains[headline].sign, gains["fgsm"].sign if "fgsm" in gains else 1
    word = "Not resolved" if not hard or not looks else "No" if hard == looks else "Yes"
    if signs[1] and signs[-1]:
        word = "Partly"
    late, early = (PERCENT * tree(large(data.robust_accuracy.sel(attack=headline)), s).mean().item() for s in (top, 0))
    images = json.loads(data.attrs.get("parameters", "{}")).get("strong_images")
    on = f" on the first {images:,} images" if images else ""
    yield (
        f"{word}. Under {IN_WORDS[headline]}{on}, networks merged from {2**top} are right on {late:.1f} % and unmerged "
        f"ones on {early:.1f} %, a difference of {signed(gains[headline])}."
    )
    if "fgsm" in gains and headline != "fgsm":
        yield f"Under FGSM the difference is {signed(gains['fgsm'])}."
    if headline in crossing:
        yield f"The two cross at an epsilon of {signed(crossing[headline])}."
        if "fgsm" in crossing and headline != "fgsm":
            yield f"Under FGSM they cross at {crossing['fgsm'].effect:.4f}."
    for kind in dict.fromkeys((*signs[-looks], "transfer-pgd", "transfer-merged-pgd")):
        if kind in gains and kind != headline:
            yield f"Under {IN_WORDS.get(kind, kind)} the difference is {signed(gains[kind])}."
    if "many" in tests:
        yield f"Under {IN_WORDS[HEADLINE]}, MergeMany of {2**top} minus unmerged networks is {signed(tests['many'])}."
    if "zero_gradients_float32, 0" in tests:
        single, double = (tests[f"zero_gradients{name}, 0"].effect for name in ("_float32", ""))
        if max(abs(tests["float32, 0"].effect), single, double) < SMALL:
            yield "Gradients in float32 would have given the same."
        else:
            yield f"A gradient in float32 flatters unmerged networks by {signed(tests['float32, 0'])}."
            yield f"It is exactly zero for {single:.1f} % of images, in float64 for {double:.1f} %."
    if "found" in data:
        found, searched = int(data.found.sum()), int(data.searched.sum())
        yield f"A random search, which needs no gradient, breaks {found:,} of {searched:,} images that others leave."


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    top = tree_stages(data)[-1]
    ahead, before = (_gain(data, kind, top).sign for kind in (HEADLINE, "fgsm"))
    if not ahead:
        return f"It is not resolved whether stage {top} leads stage 0 under a stronger attack than FGSM."
    word = "ahead of" if ahead > 0 else "behind"
    return f"Under a stronger attack than FGSM, stage {top} is {'still ' * (ahead == before)}{word} stage 0."


@captioned(
    "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]), of the first networks of each stage: "
    "under projected gradient descent on the margin, and on images that were made to fool another network.",
    seen=_seen,
)
def draw(data: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack, a panel per attack, a curve per stage."""
    kinds = [kind for kind in PANELS if kind in data.attack.values]
    figure, panels = stacked(len(kinds), sharey=True)
    few = data.robust_accuracy.isel(epsilon=(data.epsilon <= LARGEST_SHOWN).values)
    for axes, kind in zip(panels, kinds, strict=True):
        draw_stage_curves(axes, few.epsilon.values, few.sel(attack=kind))
        axes.set(title=IN_WORDS[kind], ylabel="robust accuracy (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    panels[-1].locator_params(axis="x", nbins=5)
    return draw_legend(figure, count_groups(data), columns=2)
