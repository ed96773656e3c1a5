"""Which figure is drawn from which data sets, and the caption of each, written from the data."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from ...files import write_atomically
from .. import records
from ..benchmarks import plots as benchmark_plots
from ..groups import SAME_CHOICE, count_groups, tree, tree_stages
from ..questions import question_plots
from ..records import checksums as manifest
from . import catalogue
from . import paper as plots
from .style import FEWEST, describe_spread

MODULES = {"plots": plots, "question_plots": question_plots}


def _function(place: str) -> Callable[..., Figure]:
    module, _, name = place.partition(".")
    return getattr(MODULES[module], name)


# file name -> function, the stages whose data sets it takes
FIGURES: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    name: (_function(place), stages) for name, (place, stages) in catalogue.FIGURES.items()
}
SHOWN = {
    "fig1_accuracy": "Test accuracy by the number of merged networks, for the tree (the paper's method), MergeMany "
    "stopped after a number of sweeps, and the naive average, all merged from the same leaves. Faint points: a group "
    "each, the mean over its networks.",
    "fig2_robust_accuracy": "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]). DeepFool, "
    "minimal norm: an image withstands sizes below the norm of the perturbation found; clipped: Foolbox's rule, the "
    "perturbation clipped to the size and tested again. Of L1 and L2 the strength with the highest mean over "
    "sizes and attacks is shown, of MergeMany the most networks.",
    "fig3_weight_norm": "Norm of weights plus norm of biases by stage of the tree: above the sum over layers, below "
    "each layer. Faint points: a network each.",
    "fig4_lipschitz": "Upper bounds on the Lipschitz constant (L2, pixels in [0, 1]) by stage of the tree: everywhere, "
    "and the largest local one around test images; and the largest input-gradient norm on the same images, which every "
    "bound must exceed. Faint points: a network each.",
    "fig5_barriers": "Loss and accuracy on the line between two unmerged networks, before and after the second is "
    "matched to the first.",
    "fig6_permutation_choice": "Accuracy of a merged pair when its first network is permuted minus when its second is. "
    "Faint points: a group each, and left of them a pair each; grey: within "
    f"{SAME_CHOICE:g} percentage points, which counts as equal.",
    "fig7_noise": "Accuracy under random perturbation by its size (pixels in [0, 1]), and as a share of the accuracy "
    "without perturbation, by stage of the tree.",
    "fig8_versions": "Robust accuracy on the first version of the same test images minus that on the second, of "
    "networks that were trained on the first.",
    "fig9_controls": "Merged networks beside unmerged ones, of each kind those nearest in test accuracy (how near: "
    "answers.nc), by stage of the tree: the share of images that stay right under strong attacks, of those that all "
    "networks of the stage classify correctly, and the median perturbation that DeepFool needs on the same images.",
    "fig10_strong_attacks": "Robust accuracy by the size of the attack (L-infinity, pixels in [0, 1]) under FGSM, "
    "under projected gradient descent with two losses, and where an image counts as robust only if no attack of the "
    "notebook breaks it; of the first networks of each stage.",
    "fig11_mergers": "Test accuracy of networks merged from the same leaves in several ways against the mean squared "
    "distance of the aligned leaves, the objective of MergeMany; MergeMany stopped after several numbers of sweeps.",
    "fig12_scale": "Above: the product of spectral norms of the tree's stages, and of unmerged networks that were "
    "rescaled layer by layer to the weight norms of the stage, which changes no answer; and of L2-regularised networks "
    "where some are as accurate as the stage. Below: the mean radius around test images in which a bound certifies the "
    "answer.",
    "fig13_repair": "Above: test accuracy of the tree with and without REPAIR, towards the moments of the two "
    "children, of all leaves, or before merging further. Below: variance of activations of the tree over that of its "
    "leaves.",
    "fig14_recipes": "Under several recipes of training, and for several widths: accuracy of the last stage of the "
    "tree minus that of converged MergeMany of the same networks, and robust accuracy at epsilons from 0.015 to 0.02 "
    "of the last stage minus that of unmerged networks.",
}
BENCHMARKS: dict[str, tuple[Callable[[xr.Dataset], Figure], str]] = {
    "bench1_speed": (
        benchmark_plots.speed,
        "Median time of the alternative divided by ours, both run in turns in one process on the same trained "
        "networks; lines: range over n = {repeats} repeats.",
    ),
    "bench2_scaling": (
        benchmark_plots.scaling,
        "Time of stages, and their peak memory beside the networks that go in and come out, against the number of "
        "networks; small ones have hidden layers of 128, 128 and 64 units, full ones of 512, 512 and 256. Each point "
        "is n = 1 run in a process of its own: no interval can be given. Lines: least squares.",
    ),
}


def draw_all(results: Mapping[str, xr.Dataset], folder: Path | str) -> dict[str, Figure]:
    """Draw every figure whose data sets are there and write it as PDF and PNG, its caption beside it as Markdown.

    The files are entered into the folder's list of sums.

    Args:
        results: data sets by stage.
        folder: where the files go.

    Returns:
        The figures by name.
    """
    folder, drawn = Path(folder), {}
    for name in drawable(results):
        draw, stages = FIGURES[name]
        drawn[name] = draw(*(results[stage] for stage in stages))
        files = plots.save(drawn[name], folder / name, source=source(results, stages))
        write_atomically(folder / f"{name}.md", caption(name, results) + "\n")
        manifest.enter([*files, folder / f"{name}.md"])
    return drawn


def source(results: Mapping[str, xr.Dataset], stages: Iterable[str]) -> str:
    """The data sets behind a figure, in words for its files' metadata."""
    return "; ".join(records.describe(results[stage]) for stage in stages)


def drawable(results: Mapping[str, xr.Dataset]) -> list[str]:
    """Names of the figures whose data sets are there."""
    return [name for name, (_, stages) in FIGURES.items() if set(stages) <= set(results)]


def draw_benchmarks(benchmarks: xr.Dataset, folder: Path | str) -> dict[str, Figure]:
    """Draw the figures of the benchmarks, files as in `draw_all`.

    Args:
        benchmarks: data set of stage ``benchmarks``.
        folder: where the files go.
    """
    folder, drawn = Path(folder), {}
    for name, (draw, _) in BENCHMARKS.items():
        drawn[name] = draw(benchmarks)
        files = plots.save(drawn[name], folder / name, source=records.describe(benchmarks))
        write_atomically(folder / f"{name}.md", benchmark_caption(name, benchmarks) + "\n")
        manifest.enter([*files, folder / f"{name}.md"])
    for name, table in (("bench1_table", benchmark_plots.speed_table), ("bench2_table", benchmark_plots.lines_table)):
        write_atomically(folder / f"{name}.md", table(benchmarks))
        manifest.enter([folder / f"{name}.md"])
    return drawn


def benchmark_caption(name: str, benchmarks: xr.Dataset) -> str:
    """The caption of a figure of the benchmarks: what it shows, how many repeats, images and device."""
    return f"{BENCHMARKS[name][1].format(repeats=benchmarks.sizes['repeat'])} Data: {_origin(benchmarks)}."


def _origin(benchmarks: xr.Dataset) -> str:
    return f"{benchmarks.attrs.get('data_source', 'unknown')}; {benchmarks.attrs.get('device', 'unknown')}"


def caption(name: str, results: Mapping[str, xr.Dataset]) -> str:
    """The caption of a figure: what it shows, the data, how many groups and images, and what the intervals are."""
    if name not in FIGURES:
        raise ValueError(f"no figure {name!r}; known are {list(FIGURES)}")
    dataset = results[FIGURES[name][1][0]]
    n = count_groups(dataset)
    shown = describe_spread(n) + (" (studentised bootstrap over groups)" if n >= FEWEST else " over groups")
    spread = (
        f"Lines or large markers: mean over n = {n} groups (trees); bands or bars: {shown}."
        if n > 1
        else "n = 1 group (tree): no interval can be given."
    )
    parts = [SHOWN[name], spread]
    if name == "fig8_versions":
        first, second = dataset.version.values
        parts.append(
            f"First version: {first}; second: {second}. "
            f"Median signal-to-noise ratio between versions {float(dataset.psnr.median()):.1f} dB; equal answers on "
            f"{float(tree(dataset.agreement, 0).mean()):.1%} of images at stage 0 and "
            f"{float(tree(dataset.agreement, tree_stages(dataset)[-1]).mean()):.1%} at the last stage."
        )
    if n_images := _n_images(name, dataset):
        parts.append(f"{n_images} test images.")
    if "pair" in dataset.sizes:
        parts.append(f"{dataset.sizes['pair']} pairs of networks.")
    parts.append(f"Data: {dataset.attrs.get('data_source', 'unknown')}.")
    return " ".join(parts)


def _n_images(name: str, dataset: xr.Dataset) -> int:
    """Test images behind a figure; 0 where it needs none, or takes them as the data set's parameters say."""
    if name == "fig4_lipschitz":
        return int(dataset.local_lipschitz.notnull().all(["model", "radius"]).sum())
    return dataset.sizes.get("image", 0) if name != "fig3_weight_norm" else 0
