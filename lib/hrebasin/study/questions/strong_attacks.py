"""Is the crossing an artefact of weak attacks? Networks under PGD, transfer, float64 and rescaled logits."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...images.sources import Images
from ...robustness.attacks import along, attack
from ...robustness.strong import LOSSES, RESTARTS, STEPS, pgd, transferred
from ..figures.style import captioned, draw_legend, draw_stage_curves, stacked
from ..groups import BROKEN, PERCENT, POINTS, count_groups, crossings, large, minus, tree, tree_stages
from ..statistics import Test, by_sign, not_resolved

TITLE = "Is the crossing an artefact of weak attacks?"
SCHEMA = {"model attack epsilon": "robust_accuracy", "model": "zero_gradients"}
IN_WORDS = {
    "fgsm": "FGSM",
    "fgsm-float32": "FGSM in float32",
    "fgsm-float64": "FGSM in float64",
    "pgd-cross-entropy": "PGD on the cross-entropy",
    "pgd-margin": "PGD on the margin",
    "worst": "the worst of all",
}
PANELS = {
    "fgsm": "FGSM",
    "pgd-cross-entropy": "PGD, cross-entropy",
    "pgd-margin": "PGD, margin",
    "worst": "every attack together",
}
LARGEST_SHOWN = 0.05  # epsilons above it only show that attacks work; they would squeeze the curves


def measure(
    bank: Bank,
    images: Images,
    *,
    epsilons: Sequence[float],
    sources: Sequence[Bank],
    steps: int = STEPS,
    restarts: int = RESTARTS,
    device: str = "cpu",
) -> xr.Dataset:
    """Every attack of `hrebasin.robustness.strong` as one data set of stage ``strong``.

    ``worst`` counts an image as robust that no attack breaks, transferred ones included.

    Args:
        bank, epsilons, steps, restarts, device: as in `hrebasin.robustness.strong.pgd`.
        images: that are attacked.
        sources: networks whose images are tried on all others, one bank of one network each.
    """
    bank, given = bank.to(device), (images.pixels.to(device), images.labels.to(device))
    fgsm = {
        kind: attack(bank, *given, kind=kind, epsilons=epsilons, device=device) for kind in ("fgsm", "fgsm-float32")
    }
    each = {kind: found.robust for kind, found in fgsm.items()}
    search = {"epsilons": epsilons, "steps": steps, "restarts": restarts, "device": device}
    each |= {f"pgd-{loss}": pgd(bank, *given, loss=loss, **search) for loss in LOSSES}
    for source in sources:
        name = f"transfer-{source.labels['method'][0]}-{source.labels['stage'][0]}"
        each[name] = transferred(bank, source, *given, epsilons=epsilons)
    each["worst"] = along(each, "attack").min("attack")
    robust = along({kind: one.mean("image") for kind, one in each.items()}, "attack").rename("robust_accuracy")
    robust.attrs = {"long_name": "accuracy under attack", "units": "1"}
    ordered = robust.transpose("model", "attack", "epsilon")
    return xr.Dataset({"robust_accuracy": ordered, "zero_gradients": fgsm["fgsm"].zero_gradients})


def attack_in_words(kind: str) -> str:
    """An attack as a sentence calls it.

    >>> attack_in_words("fgsm-rescaled-10"), attack_in_words("transfer-tree-4"), attack_in_words("transfer-unmerged-0")
    ('FGSM on logits x 10', 'transfer from stage 4', 'transfer from stage 0')
    """
    start, _, last = kind.rpartition("-")
    if start == "fgsm-rescaled":
        return f"FGSM on logits x {last}"
    return f"transfer from stage {last}" if start.startswith("transfer-") else IN_WORDS.get(kind, kind)


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """The last stage minus stage 0 under strong attack and where they cross, by attack; then what attacks leave."""
    top, tests, words, gains = tree_stages(data)[-1], [], [], {}
    crossing = crossings(data).sel(comparison=f"0-{top}")
    for kind in data.attack.values:
        robust, name = large(data.robust_accuracy.sel(attack=kind)), attack_in_words(kind)
        gain = minus(tree(robust, top), tree(robust, 0)) * PERCENT
        gains[name] = Test(f"{kind}, strong: stage {top} minus stage 0", gain, POINTS)
        tests.append(gains[name])
        found = crossing.crossing.sel(attack=kind).values
        crossed = found[np.isfinite(found)]
        if len(crossed):
            about = f"{kind}: crossing of stages 0 and {top} ({len(crossed)} of {len(found)} groups)"
            tests.append(Test(about, crossed, "pixel range"))
        few = f"; {len(crossed)} of {len(found)} groups" if 0 < len(crossed) < len(found) else ""
        words.append(f"{f'{crossed.mean():.4f}' if len(crossed) else 'no size'} ({name}{few})")
    for stage in (0, top):
        share = tree(data.zero_gradients, stage).values * PERCENT
        tests.append(Test(f"images without any gradient, stage {stage}", share, "%"))
        broken = tree(data.robust_accuracy.sel(attack="worst").sel(epsilon=BROKEN, method="nearest"), stage)
        tests.append(Test(f"worst case at {BROKEN:g}, stage {stage}", broken.values * PERCENT, "%"))
    repeats, kept = {}, tree(large(data.robust_accuracy), top)
    for kind in [kind for kind in data.attack.values if str(kind).startswith("fgsm-")]:
        change = minus(kept.sel(attack=kind), kept.sel(attack="fgsm")) * PERCENT
        repeats[attack_in_words(kind)] = Test(f"{kind} minus fgsm, strong, stage {top}", change, POINTS)
    signs = {1: "ahead of", -1: "behind", 0: "not resolved from"}
    told = ", ".join(
        f"{signs[sign]} stage 0 under " + ("every strong attack" if len(kinds) == len(gains) else ", ".join(kinds))
        for sign, kinds in by_sign(gains).items()
        if kinds
    )
    said = f"stage {top} is {told}; the two cross at {', '.join(words)}; against FGSM {not_resolved(repeats)}"
    return [*tests, *repeats.values()], said


@captioned(
    "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]) under FGSM, under projected gradient "
    "descent with two losses, and where an image counts as robust only if no attack of the notebook breaks it; of the "
    "first networks of each stage."
)
def draw(data: xr.Dataset) -> Figure:
    """Robust accuracy by size of the attack, a panel an attack, a curve a stage."""
    kinds = [kind for kind in PANELS if kind in data.attack.values]
    figure, panels = stacked(len(kinds), sharey=True)
    few = data.robust_accuracy.isel(epsilon=(data.epsilon <= LARGEST_SHOWN).values)
    for axes, kind in zip(panels, kinds, strict=True):
        draw_stage_curves(axes, few.epsilon.values, few.sel(attack=kind))
        axes.set(title=PANELS[kind], ylabel="robust accuracy (%)")
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel("size of the attack, L-infinity (pixel range)")
    panels[-1].locator_params(axis="x", nbins=5)
    return draw_legend(figure, count_groups(data), columns=2)
