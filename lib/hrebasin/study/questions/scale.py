"""Does the bound fall beyond scale? Networks rescaled layer by layer: the same decisions with other norms."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...checks import check_relu_mlp, is_relu_mlp
from ...evaluation import evaluate
from ...images.sources import Images
from ...lipschitz.bounds import measure as measure_bounds
from ..figures.style import (
    COLOURS,
    NAMES,
    STAGE_COLOURS,
    captioned,
    draw_legend,
    draw_points,
    label_stages,
    shape,
    stacked,
)
from ..groups import PERCENT, POINTS, NotMeasuredError, by_group, count_groups, has_numbers, minus, tree, tree_stages
from ..statistics import Test, not_resolved

TITLE = "Does the bound fall beyond scale?"
SCHEMA = {
    "model": "test_accuracy gradient_norm median_margin",
    "model layer": "weight_norm",
    "model bound": "lipschitz",
    "model certificate": "certified_radius",
}
SQRT2 = 2**0.5  # two logits differ by at most sqrt(2) times the change of all logits
ALIKE = 0.02  # difference of accuracies up to which networks count as equally accurate


def rescale(bank: Bank, factors: torch.Tensor) -> Bank:
    """Multiply the weights of layer l of network k by ``factors[k, l]``, biases so that logits change in scale.

    ReLU is positively homogeneous, so all logits are multiplied by the product of a network's factors.

    Args:
        bank: not changed.
        factors: (model, layer), positive.
    """
    check_relu_mlp(bank.architecture, "factors that change no answer")
    factors = torch.as_tensor(factors, dtype=torch.float64, device=bank.device)
    if factors.shape != (len(bank), len(bank.architecture.layers)):
        wanted = (len(bank), len(bank.architecture.layers))
        raise ValueError(f"factors must be (model, layer), here {wanted}, got {tuple(factors.shape)}")
    if not ((factors > 0) & factors.isfinite()).all():
        raise ValueError(f"factors must be positive and finite, got {factors.min():g} to {factors.max():g}")
    so_far, tensors = factors.cumprod(1), {}
    for position, layer in enumerate(bank.architecture.layers):
        weight, bias = bank.tensors[f"{layer}.weight"], bank.tensors[f"{layer}.bias"]
        tensors[f"{layer}.weight"] = (weight.double() * factors[:, position, None, None]).to(weight)
        tensors[f"{layer}.bias"] = (bias.double() * so_far[:, position, None]).to(bias)
    return Bank(bank.architecture, tensors, bank.labels)


def rescale_to(bank: Bank, targets: Bank) -> Bank:
    """Network k with the Frobenius norms of the weights of network k of ``targets``, layer by layer."""
    if len(bank) != len(targets):
        raise ValueError(f"{len(bank)} networks cannot take the norms of {len(targets)}")
    check_relu_mlp(bank.architecture, "factors that change no answer")
    layers = bank.architecture.layers
    norms = [
        torch.stack(
            [torch.linalg.vector_norm(each.tensors[f"{layer}.weight"].double(), dim=(1, 2)) for layer in layers], dim=1
        )
        for each in (targets, bank)
    ]
    return rescale(bank, norms[0] / norms[1])


def measure(bank: Bank, images: Images, *, measured: int, bounded: int, radii: Sequence[float]) -> xr.Dataset:
    """Bounds beside margins, and unmerged networks at the norms of merged ones: a data set of stage ``scale``.

    Unmerged network k of a group is rescaled to the weight norms of the node of each stage that it was merged into; it
    then has the method ``rescaled`` and that node's stage. Of networks that are no ReLU MLPs none is rescaled, and
    bounds and radii are NaN.

    Args:
        bank: trees with their leaves, and any other networks.
        images: test images to be accurate on.
        measured: how many of them, the first ones, give margins.
        bounded: how many of these get local bounds.
        radii: of local bounds, L2 in pixel units.
    """
    rescaled = _at_norms_of_nodes(bank) if is_relu_mlp(bank.architecture) else ()
    everything = Bank.concat([replace(each, history=None) for each in (bank, *rescaled)])
    few = images.first(measured)
    record = measure_bounds(everything, few.pixels, few.labels, radii=radii, bounded=bounded)
    margin = record.margin.clip(min=0).median("image")
    margin.attrs = {"long_name": "median margin over images, 0 where wrong", "units": "logit"}
    certified = certified_radius(record).mean("image")
    certified.attrs = {"long_name": "mean certified radius over images, L2", "units": "pixel range"} | record.attrs
    slope = record.gradient_norm.max("image")
    slope.attrs = {"long_name": "largest spectral norm of the Jacobian at an image", "units": "logits per pixel range"}
    accuracy = evaluate(everything, images).accuracy.rename("test_accuracy")
    columns = [accuracy, record.weight_norm, record.lipschitz, slope, margin.rename("median_margin"), certified]
    joined = xr.merge(columns, compat="identical", combine_attrs="override").drop_attrs(deep=False)
    return joined.assign_attrs(record.attrs)


def _at_norms_of_nodes(bank: Bank):
    """For each stage of the trees: all leaves at the norms of their node."""
    leaves = bank.where(method="unmerged")
    for stage in sorted(set(bank.labels["stage"][bank.labels["method"] == "tree"])):
        nodes = bank.where(method="tree", stage=stage)
        places = {place: k for k, place in enumerate(zip(nodes.labels["group"], nodes.labels["node"], strict=True))}
        above = zip(leaves.labels["group"], leaves.labels["node"] >> stage, strict=True)
        scaled = rescale_to(leaves, nodes.select([places[place] for place in above]))
        yield scaled.relabel(method="rescaled", stage=stage)


def certified_radius(regularity: xr.Dataset) -> xr.DataArray:
    """L2 radius around each image within which no change alters the answer, (model, certificate, image), pixel range.

    A bound L certifies margin / (sqrt(2) L); a local bound, which holds within the radius r that it was measured for,
    at most r, and the best of the measured radii counts. Zero where the answer is wrong. It does not change when a
    network is rescaled.

    Args:
        regularity: data set of the stage "regularity"; images without local bounds are left out, where any has some.
    """
    bounded = regularity.local_lipschitz.notnull().all(["model", "radius"]).values
    bounded |= not bounded.any()
    chosen = regularity.isel(image=bounded)
    allowed = chosen.margin.clip(min=0) / SQRT2
    radii = {str(name): allowed / chosen.lipschitz.sel(bound=name, drop=True) for name in chosen.bound.values}
    radii["local"] = np.minimum(chosen.radius, allowed / chosen.local_lipschitz).max("radius")
    axis = xr.Variable("certificate", np.array(list(radii), dtype=object), {"long_name": "certificate", "units": "1"})
    joined = xr.concat(list(radii.values()), dim=axis, coords="minimal", compat="override")
    joined.attrs = {"long_name": "certified radius, L2", "units": "pixel range"}
    return joined.rename("certified_radius").transpose("model", "certificate", "image")


def answer(data: xr.Dataset) -> tuple[list[Test], str]:
    """What scale alone makes of a bound's fall, whether certified radii grow, and bounds at equal accuracy."""
    top = tree_stages(data)[-1]
    logs = {f"{name} bound": np.log10(values) for name, values in _measured(data.lipschitz, "bound").items()}
    logs["sampled lower bound"] = np.log10(data.gradient_norm)
    logs = {name: log.rename(name) for name, log in logs.items()}
    falls = {name: _falls(data, name, log) for name, log in logs.items()}
    radii = _measured(data.certified_radius, "certificate")
    certificates = {}
    for name, radius in radii.items():
        values = minus(tree(radius, top), tree(radius, 0))
        test = Test(f"certified radius by the {name} bound, stage {top} minus stage 0", values, "pixel range")
        certificates[f"the radius that the {name} bound certifies"] = test
    measures = {"accuracy": (data.test_accuracy * PERCENT, POINTS)}
    measures |= {f"log10 {name}": (log, "log10") for name, log in logs.items()}
    measures |= {f"certified radius by the {name} bound": (radius, "pixel range") for name, radius in radii.items()}
    beside = _beside_equally_accurate(data, measures)
    tests = [test for some in falls.values() for test in some] + _over_margin(data, logs)
    tests += [*certificates.values(), *(test for some in beside.values() for test in some.values())]
    main, (merged, *others) = next(iter(falls.items()))  # the global bound, or the only one
    said = [f"merging up to stage {top} lowers log10 of the {main} by {merged.effect:.2f}"]
    if others:
        words = "rescaling unmerged networks to the same norms, which changes no answer"
        said = [f"{said[0]}, {words}, by {others[0].effect:.2f}"]
    if beside:
        times = {stage: 10 ** some[f"log10 {main}"].effect for stage, some in beside.items()}
        words = " and ".join(f"{ratio:.2g} times as large (stage {stage})" for stage, ratio in times.items())
        said.append(f"the bound is {words} as that of L2-regularised networks of the same accuracy")
    grown = [name for name, test in certificates.items() if test.effect > 0]
    if certificates:
        said.append(f"{len(grown)} of {len(certificates)} certified radii grow with the stage")
        said.append(not_resolved(certificates))
    else:
        said.append(data.lipschitz.attrs.get("comment", "no upper bound was measured"))
    return tests, "; ".join(said)


def _measured(values: xr.DataArray, dim: str) -> dict[str, xr.DataArray]:
    """Values by the names along a dimension, without those that are not applicable to these networks."""
    each = {str(name): values.sel({dim: name}) for name in values[dim].values}
    return {name: some for name, some in each.items() if has_numbers(some)}


def _falls(data: xr.Dataset, name: str, log: xr.DataArray) -> list[Test]:
    """How far a bound falls up to the last stage, how far by scale alone, and the share of the one in the other.

    The first alone where networks could not be rescaled.
    """
    top = tree_stages(data)[-1]
    whole = minus(tree(log, 0), tree(log, top))
    if "rescaled" not in data.method.values:
        return [Test(f"log10 {name}, stage 0 minus stage {top}", whole, "log10")]
    by_scale = minus(tree(log, 0), by_group(log, method="rescaled", stage=top))
    return [
        Test(f"log10 {name}, stage 0 minus stage {top}", whole, "log10"),
        Test(f"log10 {name}, stage 0 minus stage 0 at the norms of stage {top}", by_scale, "log10"),
        Test(f"share of the fall of the {name} that scale alone makes", by_scale / whole * PERCENT, "%"),
    ]


def _over_margin(data: xr.Dataset, logs: Mapping[str, xr.DataArray]) -> list[Test]:
    """Bounds over the median margin, which scale does not change, every stage less stage 0."""
    margin, tests = np.log10(data.median_margin.where(data.median_margin > 0)).rename("median_margin"), []
    for name in _measured(data.lipschitz, "bound"):
        relative = (logs[f"{name} bound"] - margin).rename("lipschitz")
        for stage in tree_stages(data)[1:]:
            try:
                values = minus(tree(relative, stage), tree(relative, 0))
            except NotMeasuredError:
                continue  # half of the images or more are misclassified: the median margin is 0
            tests.append(Test(f"log10 of {name} bound over median margin, stage {stage} less stage 0", values, "log10"))
    return tests


def _beside_equally_accurate(data: xr.Dataset, measures: Mapping) -> dict[int, dict[str, Test]]:
    """By stage, every measure (values, units) of the tree minus that of equally accurate L2-regularised networks."""
    found = {}
    for stage, strength in equally_accurate(data, "l2").items():
        about = f"stage {stage} minus L2-regularised networks of strength {strength:g}"
        found[stage] = {
            name: Test(f"{name}: {about}", minus(tree(v, stage), by_group(v, method="l2", strength=strength)), units)
            for name, (v, units) in measures.items()
        }
    return found


def equally_accurate(data: xr.Dataset, method: str) -> dict[int, float]:
    """By stage of the tree, the strength of a penalty whose networks are as accurate; no stage where none is."""
    accuracy, found = data.test_accuracy, {}
    strengths = np.unique(data.strength.values[data.method.values == method]).tolist()
    penalised = {strength: by_group(accuracy, method=method, strength=strength) for strength in strengths}
    for stage in tree_stages(data)[1:]:
        merged = tree(accuracy, stage)
        gaps = {strength: abs(minus(values, merged).mean()) for strength, values in penalised.items()}
        if gaps and min(gaps.values()) <= ALIKE:
            found[stage] = min(gaps, key=gaps.get)
    return found


def _about(data: xr.Dataset) -> list[str]:
    """Why something else is drawn than the caption says, where it is."""
    if has_numbers(data.lipschitz):
        return []
    reason = data.lipschitz.attrs.get("comment", "no upper bound was measured")
    return [f"Upper bounds and radii are {reason}. Above: the largest gradient norm. Below: the median margin."]


@captioned(
    "Above: the product of spectral norms of the tree's stages, and of unmerged networks that were rescaled layer by "
    "layer to the weight norms of the stage, which changes no answer; and of L2-regularised networks where some are as "
    "accurate as the stage. Below: the mean radius around test images in which a bound certifies the answer.",
    about=_about,
)
def draw(data: xr.Dataset) -> Figure:
    """Global bound by stage, of the tree, of unmerged networks at its norms, of regularised ones; certified radii."""
    figure, (above, below) = stacked(2)
    stages, known = tree_stages(data), has_numbers(data.lipschitz)
    bound = data.lipschitz.sel(bound="global").rename("lipschitz") if known else data.gradient_norm
    draw_points(above, stages, [tree(bound, s).values for s in stages], "tree", color=COLOURS["tree"], marker="o")
    if "rescaled" in data.method.values:
        parts = [(by_group(bound, method="rescaled", stage=s) if s else tree(bound, 0)).values for s in stages]
        look = {"color": COLOURS["unmerged"], "marker": "s", "linestyle": "--"}
        draw_points(above, np.array(stages) + 0.1, parts, "unmerged at the norms of the stage", **look)
    if alike := equally_accurate(data, "l2"):
        look = {"color": COLOURS["l2"], "marker": "D", "linestyle": "none"}
        parts = [by_group(bound, method="l2", strength=strength).values for strength in alike.values()]
        draw_points(above, np.array(list(alike)) - 0.1, parts, "L2-regularised, as accurate as the stage", **look)
    above.set_yscale("log")
    above.set_ylabel(f"{'global bound' if known else 'largest gradient norm'}\n(logits per pixel range)")
    radii = _measured(data.certified_radius, "certificate")
    lines = {f"certified: {NAMES.get(name, name)}": radius for name, radius in radii.items()}
    for position, (name, values) in enumerate((lines or {"median margin": data.median_margin}).items()):
        look = {"color": STAGE_COLOURS[1 + position % 4], **shape(position)}
        parts = [tree(values, s).values for s in stages]
        draw_points(below, np.array(stages) + 0.08 * (position - 1), parts, name, **look)
    below.set_ylim(bottom=0)
    label_stages(below, stages, "mean certified radius, L2\n(pixel range)" if lines else "median margin (logit)")
    return draw_legend(figure, count_groups(data), columns=1)
