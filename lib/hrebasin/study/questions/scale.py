"""Does the bound fall beyond scale? Networks rescaled layer by layer: the same answers with other norms."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from ...bank import Bank
from ...checks import is_relu_mlp
from ..figures.captions import captioned
from ..figures.style import COLOURS, NAMES, STAGE_COLOURS, draw_legend, draw_points, label_stages, shape, stacked
from ..groups import (
    PERCENT,
    POINTS,
    NotMeasuredError,
    by_group,
    count_groups,
    differences,
    has_numbers,
    minus,
    tree,
    tree_stages,
)
from ..statistics import Test, defined
from .wording import by_factor, two_digits

TITLE = "Does the Lipschitz bound fall by more than smaller weights explain?"
SCHEMA = {
    "model": "test_accuracy gradient_norm median_margin",
    "model bound": "lipschitz",
    "model certificate": "certified_radius",
}
SQRT2 = 2**0.5  # two logits differ by at most sqrt(2) times the change of all logits
SCALING = ("lipschitz", "gradient_norm", "median_margin")  # what rescaling multiplies
ALIKE = 0.02  # difference of accuracies up to which networks count as equally accurate


def measure(bank: Bank, regularity: xr.Dataset, accuracy: xr.DataArray) -> xr.Dataset:
    """Bounds beside margins, and unmerged networks at the norms of merged ones: a data set of stage ``scale``.

    ReLU is positively homogeneous: a network whose layers are multiplied by positive factors, with biases to suit,
    gives the same answers; its logits, bounds and margins are multiplied by the product of the factors. So what an
    unmerged network has at the weight norms of a merged one follows from its own measures. It has the method
    ``rescaled`` and the stage of the node that it was merged into. Networks that are no ReLU MLPs are not rescaled.

    Args:
        bank: trees with their leaves, whose weights give the norms.
        regularity: data set of the stage "regularity", of these networks and others.
        accuracy: ``test_accuracy`` of all of them, (model,).
    """
    margin, gradient = regularity.margin.clip(min=0).median("image"), regularity.gradient_norm.max("image")
    certified, slope = certified_radius(regularity).mean("image"), "logits per pixel range"
    columns = {
        "test_accuracy": (accuracy.sel(model=regularity.model), "test accuracy", "1"),
        "lipschitz": (regularity.lipschitz, "upper Lipschitz bound", slope),
        "gradient_norm": (gradient, "largest spectral norm of the Jacobian at an image", slope),
        "median_margin": (margin, "median margin over images, 0 where wrong", "logit"),
        "certified_radius": (certified, "mean certified radius over images, L2", "pixel range"),
    }
    record = xr.Dataset({n: v.assign_attrs(long_name=text, units=u) for n, (v, text, u) in columns.items()})
    if not is_relu_mlp(bank.architecture):
        for each in (record, record.certified_radius):
            each.attrs["comment"] = regularity.comment
        return record
    leaves = bank.where(method="unmerged")
    parts = [record]
    for stage, factors in _factors(bank, leaves):
        scaled = record.sel(model=leaves.coords["model"].values)
        labels = leaves.relabel(method="rescaled", stage=stage).coords
        scaled = scaled.drop_vars(list(labels)).assign_coords(labels)
        times = xr.DataArray(factors, dims="model")
        parts.append(scaled.assign({n: scaled[n] * times for n in SCALING}).assign_coords(labels))
    return xr.concat(parts, dim="model", combine_attrs="override")


def _factors(bank: Bank, leaves: Bank) -> Iterator[tuple[int, np.ndarray]]:
    """For each stage of the trees: products over layers of a node's weight norm over that of each leaf, (model,)."""
    own = _weight_norms(leaves)
    for stage in sorted(set(bank.labels["stage"][bank.labels["method"] == "tree"].tolist())):
        nodes = bank.where(method="tree", stage=stage)
        places = {place: k for k, place in enumerate(zip(nodes.labels["group"], nodes.labels["node"], strict=True))}
        above = zip(leaves.labels["group"], leaves.labels["node"] >> stage, strict=True)
        yield stage, (_weight_norms(nodes)[[places[place] for place in above]] / own).prod(1)


def _weight_norms(bank: Bank) -> np.ndarray:
    """Frobenius norms of the weights, (model, layer)."""
    weights = [bank.tensors[f"{layer}.weight"].double() for layer in bank.architecture.layers]
    return torch.stack([torch.linalg.vector_norm(weight, dim=(1, 2)) for weight in weights], dim=1).cpu().numpy()


def certified_radius(regularity: xr.Dataset) -> xr.DataArray:
    """L2 radius around each image within which no change alters the answer, (model, certificate, image), pixel range.

    A bound L certifies margin / (sqrt(2) L); a local bound, which holds within the radius r that it was measured for,
    at most r, and the best of the measured radii counts. Zero where the answer is wrong. It does not change when a
    network is rescaled.

    Args:
        regularity: data set of the stage "regularity"; not a number for images without local bounds, by these.
    """
    allowed = regularity.margin.clip(min=0) / SQRT2
    radii = {str(name): allowed / regularity.lipschitz.sel(bound=name, drop=True) for name in regularity.bound.values}
    radii["local"] = np.minimum(regularity.radius, allowed / regularity.local_lipschitz).max("radius")
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
        late, early = tree(radius, top), tree(radius, 0)
        title = f"certified radius by the {name} bound, stage {top} minus stage 0"
        test = defined(title, differences(late, early), "pixel range")
        ends = float(early.mean()), float(late.mean())
        bound = NAMES[name] if name == "eclipse-fast" else f"the {name} bound"
        certificates[f"L2 radius certified by {bound}"] = test, *ends
    measures = {"accuracy": (data.test_accuracy * PERCENT, POINTS)}
    measures |= {f"log10 {name}": (log, "log10") for name, log in logs.items()}
    measures |= {f"certified radius by the {name} bound": (radius, "pixel range") for name, radius in radii.items()}
    beside = _beside_equally_accurate(data, measures)
    tests = [test for some in falls.values() for test in some] + _over_margin(data, logs)
    tests += [
        *(test for test, *_ in certificates.values()),
        *(test for some in beside.values() for test in some.values()),
    ]
    return tests, " ".join([*_beyond_scale(falls, top), *_certified(certificates, data), *_beside_l2(falls, beside)])


def _beyond_scale(falls: Mapping[str, list[Test]], top: int) -> Iterator[str]:
    """Whether the first bound falls by more than rescaling makes it fall, and which share of the fall that is."""
    name, (whole, *others) = next(iter(falls.items()))  # the global bound, or the only one
    if not others:
        yield f"Not resolved: these networks could not be rescaled. Their {name} falls {by_factor(whole)}."
        return
    same = whole.n == others[0].n  # or a group has one of them alone
    beyond = defined(f"log10 {name} beyond scale", whole.values - others[0].values if same else [], "log10")
    verdict = beyond.yes_or_no()
    if verdict == "No":
        more = by_factor(defined(beyond.name, -beyond.values, "log10"))
        yield f"No. Unmerged networks that are shrunk to the weight norms of stage {top} have a lower {name}, {more}."
    else:
        yield f"{verdict}. Merging up to stage {top} lowers the {name} beyond smaller weights {by_factor(beyond)}."


def _certified(certificates: Mapping[str, tuple[Test, float, float]], data: xr.Dataset) -> Iterator[str]:
    """What happens to the radii within which answers are certain."""
    for name, (test, before, after) in certificates.items():
        sizes = f"{after:.2g} beside {before:.2g} of the pixel range"
        if larger := {1: "larger", -1: "smaller"}.get(test.sign):
            yield f"The mean {name} is {larger} at the last stage than at stage 0: {sizes}."
        else:
            yield f"Whether the mean {name} differs between the last stage and stage 0 is not resolved: {sizes}."
    if certificates:
        yield "Wrong answers count with a radius of 0."
    else:
        yield data.lipschitz.attrs.get("comment", "No upper bound was measured") + "."


def _beside_l2(falls: Mapping, beside: Mapping[int, Mapping[str, Test]]) -> Iterator[str]:
    """The bound beside that of networks that a penalty made as inaccurate."""
    for stage, tests in beside.items():
        ratio = two_digits(10 ** tests[f"log10 {next(iter(falls))}"].effect)
        alike = f"L2-regularised networks within {ALIKE * PERCENT:g} points of its accuracy"
        yield f"At stage {stage}, the bound is {ratio} times that of {alike}."


def _measured(values: xr.DataArray, dim: str) -> dict[str, xr.DataArray]:
    """Values by the names along a dimension, without those that are not applicable to these networks."""
    each = {str(name): values.sel({dim: name}) for name in values[dim].values}
    return {name: some for name, some in each.items() if has_numbers(some)}


def _falls(data: xr.Dataset, name: str, log: xr.DataArray) -> list[Test]:
    """How far a bound falls up to the last stage, how far by scale alone, and the share of the one in the other.

    The first alone where networks could not be rescaled.
    """
    top = tree_stages(data)[-1]
    whole = differences(tree(log, 0), tree(log, top))
    if "rescaled" not in data.method.values:
        return [Test(f"log10 {name}, stage 0 minus stage {top}", whole, "log10")]
    by_scale = differences(tree(log, 0), by_group(log, method="rescaled", stage=top))
    return [
        defined(f"log10 {name}, stage 0 minus stage {top}", whole, "log10"),
        defined(f"log10 {name}, stage 0 minus stage 0 at the norms of stage {top}", by_scale, "log10"),
        defined(f"share of the fall of the {name} that scale alone makes", by_scale / whole * PERCENT, "%"),
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
    for stage, strength in equally_accurate(data).items():
        penalised = {"method": "l2", "strength": strength}
        about = f"stage {stage} minus L2-regularised networks of strength {strength:g}"
        found[stage] = {
            name: defined(f"{name}: {about}", differences(tree(v, stage), by_group(v, **penalised)), units)
            for name, (v, units) in measures.items()
        }
    return found


def equally_accurate(data: xr.Dataset) -> dict[int, float]:
    """By stage of the tree, the strength of L2 whose networks are as accurate; no stage where none is."""
    accuracy, found = data.test_accuracy, {}
    strengths = np.unique(data.strength.values[data.method.values == "l2"]).tolist()
    penalised = {strength: by_group(accuracy, method="l2", strength=strength) for strength in strengths}
    for stage in tree_stages(data)[1:]:
        merged = tree(accuracy, stage)
        gaps = {strength: abs(differences(values, merged).mean()) for strength, values in penalised.items()}
        gaps = {strength: gap for strength, gap in gaps.items() if np.isfinite(gap)}
        if gaps and min(gaps.values()) <= ALIKE:
            found[stage] = min(gaps, key=gaps.get)
    return found


def _about(data: xr.Dataset) -> list[str]:
    """Why something else is drawn than the caption says, where it is."""
    if has_numbers(data.lipschitz):
        return []
    reason = data.lipschitz.attrs.get("comment", "no upper bound was measured")
    return [f"Upper bounds and radii are {reason}. Above: the largest gradient norm. Below: the median margin."]


def _seen(data: xr.Dataset) -> str:
    """What the figure shows."""
    bounds = _measured(data.lipschitz, "bound")
    if not bounds or "rescaled" not in data.method.values:
        return ""
    name, bound = next(iter(bounds.items()))
    whole, by_scale, _ = _falls(data, name, np.log10(bound).rename(name))
    more = Test("beyond scale", whole.values - by_scale.values, "log10").sign
    if not more:
        return "It is not resolved whether merging lowers the bound by more than smaller weights do alone."
    merging, weights = "merging lowers the bound", "smaller weights alone"
    if more > 0:
        return f"{merging.capitalize()} by more than {weights} do."
    return f"{weights.capitalize()} would lower the bound by more than merging does."


@captioned(
    "Above: the product of spectral norms of the tree's stages, and of unmerged networks that were rescaled layer by "
    "layer to the weight norms of the stage, which changes no answer; and of L2-regularised networks where some come "
    "within 2 points of its accuracy. Below: the mean radius around test images in which a bound certifies the answer.",
    seen=_seen,
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
    if alike := equally_accurate(data):
        look = {"color": COLOURS["l2"], "marker": "D", "linestyle": "none"}
        parts = [by_group(bound, method="l2", strength=strength).values for strength in alike.values()]
        draw_points(
            above, np.array(list(alike)) - 0.1, parts, "L2-regularised, within 2 points of its accuracy", **look
        )
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
