"""Made-up results with the layout of real ones and planted effects, so that claims and figures have known answers.

An effect of 1 plants a claim as the paper states it, -1 its reverse, and 0 nothing.
"""

from collections.abc import Collection
from functools import partial
from itertools import product

import numpy as np
import torch
import xarray as xr
from scipy.special import ndtri

from hrebasin.bank import LABELS
from hrebasin.merging.distances import CONVERGENCE
from hrebasin.random_streams import generator

PLAIN = {name: default for name, (default, _) in LABELS.items()}  # labels of a network
CLAIMS = tuple(f"C{number}" for number in range(1, 13))
LIMITS = (1, 2, 5, CONVERGENCE)
EPSILONS = np.arange(21) / 1000
ATTACKS = ("fgsm", "deepfool-linf", "deepfool-linf-clipped")
CROSSING = 0.0103  # epsilon at which all stages are planted to be equal
UNMERGED = 0.55
FALL = 0.075  # accuracy a stage
N_IMAGES = 12
PAIRS = 4  # of networks per tree, on the lines between which losses are
ATTRS = {"data_source": "synthetic images", "setting": "synthetic", "data_digest": "{}", "n_classes": 10}


def results(
    *,
    groups: int = 8,
    leaves: int = 16,
    noise: float = 1.0,
    seed: int = 0,
    stages: Collection[str] | None = None,
    **effects: float,
) -> dict:
    """Data sets by stage, as `hrebasin.study.claims.ledger.ledger` takes them.

    Args:
        groups: trees.
        leaves: networks per tree, a power of two.
        noise: factor on the planted spread between networks.
        seed: of all draws.
        stages: the data sets wanted; by default all, with those of the open questions.
        effects: for each claim, such as ``C1=-1``; 1 where not given.
    """
    effects = dict.fromkeys(CLAIMS, 1.0) | effects
    import synthetic_questions  # which builds on this module

    make = {
        "train": lambda: train(groups, leaves, noise, seed),
        "merge": lambda: merge(groups, leaves, noise, seed, effects),
        "attack": lambda: attack(groups, leaves, noise, seed, effects),
        "regularity": lambda: regularity(groups, leaves, noise, seed, effects),
        "ablations": lambda: ablations(groups, noise, seed, effects),
        "versions": lambda: versions(groups, leaves, noise, seed),
    }
    for stage, question in synthetic_questions.QUESTIONS.items():
        make[stage] = partial(question, groups, int(np.log2(leaves)), noise, seed)
    return {stage: make[stage]().assign_attrs(ATTRS, stage=stage) for stage in stages or make}


def normal(shape, name: str) -> np.ndarray:
    """Standard normal values from a named stream."""
    return torch.randn(shape, generator=generator(f"synthetic/{name}"), dtype=torch.float64).numpy()


def networks(groups: int, leaves: int, *, naive: bool = True) -> list[dict]:
    """Labels of every network: trees, MergeMany of all sets by size and limit, naive averages, L1 and L2."""
    rows, stages = [], int(np.log2(leaves))
    for group in range(groups):
        for stage in range(stages + 1):
            method = "tree" if stage else "unmerged"
            for node in range(leaves >> stage):
                rows.append({"method": method, "stage": stage, "n_merged": 2**stage, "group": group, "node": node})
        for stage in range(1, stages + 1):
            base = {"stage": stage, "n_merged": 2**stage, "group": group, "node": 0}
            sets = range(leaves >> stage)
            rows += [base | {"method": "merge-many", "sweeps": m, "node": node} for node in sets for m in LIMITS]
            rows += [base | {"method": "naive"}] if naive else []
        for method, strength in product(("l1", "l2"), (1e-5, 1e-3)):
            rows.append({"method": method, "strength": strength, "group": group, "node": 0})
    return [PLAIN | row for row in rows]


def coords(rows: list[dict]) -> dict:
    """Coordinates of the ``model`` dimension."""
    made = {name: ("model", column(rows, name), describe(text)) for name, (_, text) in LABELS.items()}
    made["method"] = ("model", column(rows, "method").astype(object), describe(LABELS["method"][1]))
    names = ["/".join(f"{row[name]}" for name in LABELS) for row in rows]
    return made | {"model": ("model", np.array(names, dtype=object), describe("network"))}


def describe(long_name: str, units: str = "1") -> dict:
    """Attributes that every variable has."""
    return {"long_name": long_name, "units": units}


def some(data: xr.Dataset, **labels) -> xr.Dataset:
    """The networks with the given labels."""
    return data.isel(model=np.logical_and.reduce([(data[name] == value).values for name, value in labels.items()]))


def column(rows: list[dict], name: str) -> np.ndarray:
    """A label of every network."""
    return np.array([row[name] for row in rows])


def dataset(rows: list[dict], values: dict, **axes) -> xr.Dataset:
    """``values``: name -> (dims, array, units)."""
    variables = {name: (dims, array, describe(name, units)) for name, (dims, array, units) in values.items()}
    others = {name: xr.Variable(name, np.asarray(axis), describe(name)) for name, axis in axes.items()}
    return xr.Dataset(variables, coords=coords(rows) | others)


def train(groups: int, leaves: int, noise: float, seed: int) -> xr.Dataset:
    """Histories of the unmerged networks over three epochs."""
    rows = [row for row in networks(groups, leaves) if row["method"] == "unmerged"]
    epochs = np.arange(1, 4)
    ones, rising = np.ones(len(rows)), UNMERGED + 0.1 * epochs - 0.2
    accuracy = rising + 0.01 * noise * normal((len(rows), 3), f"training/{seed}")
    return dataset(rows, {
        "train_loss": (("model", "epoch"), 2 - accuracy, "nat"),
        "train_accuracy": (("model", "epoch"), accuracy, "1"),
        "test_loss": (("model",), 1.5 * ones, "nat"),
        "test_accuracy": (("model",), UNMERGED * ones, "1"),
        "seconds": (("model",), ones, "s"),
    }, epoch=epochs)  # fmt: skip


def merge(groups: int, leaves: int, noise: float, seed: int, effects: dict) -> xr.Dataset:
    """C1 to C4 and C11: the tree loses 7.5 points a stage, MergeMany lies below it, and varies four times as much.

    Without C11 the first stage loses 1 point in place of 7.5.
    """
    rows = networks(groups, leaves)
    method, stage, sweeps = column(rows, "method"), column(rows, "stage"), column(rows, "sweeps")
    advantage = 0.03 * effects["C1"] + np.where(stage >= 3, 0.05 * effects["C2"], 0)
    early = np.select([sweeps == 1, sweeps == 2, sweeps == 5], [0.03, 0.02, 0.01], 0) * effects["C1"]
    accuracy = UNMERGED - FALL * stage * effects["C4"] + (stage > 0) * (FALL - 0.01) * (1 - effects["C11"])
    accuracy = np.where(method == "merge-many", accuracy - advantage - early, accuracy)
    accuracy = np.where(method == "naive", 0.1 + 0.1 / 2.0**stage, accuracy)
    spread = 0.004 * 2.0 ** (effects["C3"] * np.select([method == "merge-many", method == "tree"], [1, -1], 0))
    accuracy = accuracy + noise * spread * normal(len(rows), f"accuracy/{seed}")
    ones = np.ones(len(rows))
    return dataset(rows, {
        "train_loss": (("model",), ones, "nat"),
        "train_accuracy": (("model",), accuracy + 0.2, "1"),
        "test_loss": (("model",), 1.5 * ones, "nat"),
        "test_accuracy": (("model",), accuracy, "1"),
        "pairwise_distance": (("model",), 10 * column(rows, "n_merged") - accuracy, "1"),
        "sweeps_done": (("model",), np.minimum(sweeps, 20), "1"),
        "converged": (("model",), np.int8(ones), "1"),
        "seconds": (("model",), ones, "s"),
    })  # fmt: skip


def attack(groups: int, leaves: int, noise: float, seed: int, effects: dict) -> xr.Dataset:
    """C5, C6, C10, C12: straight differences between stages that vanish at `CROSSING`; L2 above all others.

    Without C12, stage 2 is no more robust than stage 1.
    """
    rows = networks(groups, leaves, naive=False)
    method, stage = column(rows, "method"), column(rows, "stage")[:, None, None]
    rank = stage - (1 - effects["C12"]) * (stage == 2)
    base = 0.05 + 0.45 * np.exp(-EPSILONS / 0.008) * np.array([1, 0.97, 1.02])[:, None]
    tilt = 6 * effects["C5"] * (CROSSING - EPSILONS) / np.log2(leaves)
    robust = base + tilt * (np.log2(leaves) / 2 - rank)
    robust[method == "merge-many"] = base - 0.02
    robust[method == "l1"] = base - 0.01
    best = robust[np.isin(method, ["unmerged", "tree"])].max(0)
    robust[method == "l2"] = best + 0.03 * effects["C6"]
    robust[(method == "l2") & (column(rows, "strength") < 1e-3)] -= 0.01
    robust = np.clip(robust + noise * 0.002 * normal((len(rows), 1, 1), f"robust/{seed}"), 0, 1)
    magnitudes, kept = np.array([0, 0.05, 0.1, 0.2]), 0.6 + 0.05 * effects["C10"] * stage[..., None]
    noisy = 0.5 * (1 - (1 - kept) * (magnitudes / 0.2)[:, None]) * np.ones((1, 2, 1, 5))
    noisy = noisy + noise * 0.003 * normal(noisy.shape, f"noise/{seed}")
    by_image, by_norm = np.ones((len(rows), N_IMAGES), np.int8), np.ones((len(rows), 2, N_IMAGES))
    axes = {
        "attack": np.array(ATTACKS, dtype=object), "epsilon": EPSILONS, "magnitude": magnitudes,
        "noise": np.array(["gaussian", "uniform"], dtype=object), "norm": np.array(["linf", "l2"], dtype=object),
    }  # fmt: skip
    return dataset(rows, {
        "robust_accuracy": (("model", "attack", "epsilon"), robust, "1"),
        "correct": (("model", "image"), by_image, "1"),
        "perturbation_norm": (("model", "norm", "image"), 0.01 * by_norm, "pixel range"),
        "success": (("model", "norm", "image"), np.int8(by_norm), "1"),
        "repredicted": (("model", "norm"), np.zeros((len(rows), 2)), "images"),
        "noise_accuracy": (("model", "noise", "magnitude", "draw"), noisy, "1"),
    }, **axes)  # fmt: skip


def by_image(attack: xr.Dataset, images: int, seed: int) -> xr.Dataset:
    """The data set with what happened to each image, and accuracies that follow from it, around those planted.

    Whether an image withstands depends on the image, on the image with the kind of network, and on chance: in six,
    two and two parts of the variance. So every group errs on the same images, and differences between kinds do too.
    """
    labels = zip(*(attack[name].values for name in ("method", "stage", "strength")), strict=True)
    kinds = ["/".join(map(str, row)) for row in labels]
    names, place = np.unique(kinds, return_inverse=True)
    shared = 0.6**0.5 * normal(images, f"images/{seed}") + 0.2**0.5 * normal((len(names), images), f"kinds/{seed}")
    hardness = shared[place] + 0.2**0.5 * normal((len(place), images), f"chance/{seed}")
    limit = ndtri(attack.robust_accuracy.clip(0, 1).values)
    robust = np.int8(hardness[:, None, None] < limit[..., None])
    dims = ("model", "attack", "epsilon", "image")
    noisy, draws = attack.noise_accuracy.mean("draw").clip(0, 1).values, attack.sizes["draw"]
    counts = draws * np.int16(hardness[:, None, None] < ndtri(noisy)[..., None])
    accuracy = np.repeat(counts.mean(-1)[..., None] / draws, draws, -1)
    return attack.drop_dims("image").assign(
        robust=(dims, robust, describe("withstands")),
        robust_accuracy=(dims[:3], robust.mean(-1), describe("share")),
        correct_draws=(("model", "noise", "magnitude", "image"), counts, describe("draws", "draws")),
        noise_accuracy=(attack.noise_accuracy.dims, accuracy, describe("share")),
    )


def versions(groups: int, leaves: int, noise: float, seed: int) -> xr.Dataset:
    """The synthetic images and another version of them, on which accuracy is a point lower."""
    rows = [row for row in networks(groups, leaves, naive=False) if row["method"] in ("unmerged", "tree")]
    shape = (len(rows), 1, 1, len(EPSILONS))
    robust = 0.5 - 10 * EPSILONS + 0.003 * noise * normal(shape, f"versions/{seed}")
    axes = {
        "version": np.array([ATTRS["data_source"], "other version"], dtype=object),
        "attack": np.array(ATTACKS[:2], dtype=object), "epsilon": EPSILONS,
    }  # fmt: skip
    robust = robust * np.ones((1, 1, 2, 1)) - np.array([0, 0.01])[:, None, None]
    return dataset(rows, {
        "robust_accuracy": (("model", "version", "attack", "epsilon"), robust, "1"),
        "agreement": (("model",), np.full(len(rows), 0.95), "1"),
        "psnr": (("image",), np.full(N_IMAGES, 30.0), "dB"),
    }, **axes)  # fmt: skip


def regularity(groups: int, leaves: int, noise: float, seed: int, effects: dict) -> xr.Dataset:
    """C7, C8: norms on a falling line, bounds on a falling line of their logarithm, spreads that halve a stage."""
    rows = networks(groups, leaves)
    stage = column(rows, "stage")
    draw = noise * normal((len(rows), 4), f"regularity/{seed}")
    norm = 53 - 7 * effects["C7"] * stage + 0.8 * 2.0 ** (-effects["C7"] * stage) * draw[:, 0]
    bound = 3 - 0.4 * effects["C8"] * stage + 0.1 * 2.0 ** (-effects["C8"] * stage) * draw[:, 1]
    around = 0.1 * normal((len(rows), 2, N_IMAGES), f"local/{seed}")
    local = 10 ** (bound[:, None, None] - np.array([[0.6], [0.3]]) + around)
    local[:, :, N_IMAGES // 2 :] = np.nan  # only the first images have local bounds
    gradient = 10 ** (bound[:, None] - 1.5 + 0.2 * normal((len(rows), N_IMAGES), f"gradient/{seed}"))
    norms, node = norm[:, None] * np.array([0.4, 0.3, 0.2, 0.1]), column(rows, "method")[:, None] == "tree"
    axes = {
        "layer": np.array(["fc1", "fc2", "fc3", "fc4"], dtype=object),
        "bound": np.array(["global", "eclipse-fast"], dtype=object), "radius": [0.1, 1.0],
    }  # fmt: skip
    return dataset(rows, {
        "weight_norm": (("model", "layer"), norms, "1"),
        "lipschitz": (("model", "bound"), 10 ** (bound[:, None] - [0, 0.2]), "logit per pixel range"),
        "local_lipschitz": (("model", "radius", "image"), local, "logit per pixel range"),
        "gradient_norm": (("model", "image"), gradient, "logit per pixel range"),
        "margin": (("model", "image"), np.ones((len(rows), N_IMAGES)), "logit"),
        "children_cosine": (("model", "layer"), np.where(node, 0.4 + 0 * norms, np.nan), "1"),
        "predicted_norm": (("model", "layer"), np.where(node, norms, np.nan), "1"),
    }, **axes)  # fmt: skip


def ablations(groups: int, noise: float, seed: int, effects: dict) -> xr.Dataset:
    """C4 and C9: humps on the line between networks; both choices equal within the noise."""
    n, weight = groups * PAIRS, np.linspace(0, 1, 25)
    hump = 4 * weight * (1 - weight)
    before, after = np.array([1.0, 0.2]) * [1.0, effects["C4"]]
    peak = np.array([before, after])[:, None, None] * hump  # (alignment, 1, lambda)
    level = np.array([0.4, 1.5])[:, None]  # loss on train and test
    jitter = noise * 0.02 * normal((n, 2, 2, 1), f"line/{seed}")
    loss = level + peak + jitter * (1 + hump)
    accuracy = np.array([0.9, 0.55])[:, None] - 0.3 * peak - 0.1 * jitter * (1 + hump)
    excesses = peak + jitter * hump, 0.3 * peak + 0.1 * jitter * hump
    loss_barrier, accuracy_barrier = (np.maximum(excess, 0).max(-1) for excess in excesses)
    spread, shift = {1: (0.001, 0.0), 0: (0.03, 0.0), -1: (0.001, 0.01)}[int(effects["C9"])]
    choice = 0.5 + noise * spread * normal((n, 2, 2), f"choice/{seed}") + shift * np.array([[1], [0]])
    choice[:, 1, 0] = choice[:, 0, 0]  # the same order: mirror images
    dims = ("pair", "alignment", "split")
    variables = {
        "loss": ((*dims, "lambda"), loss, describe("mean cross-entropy", "nat")),
        "accuracy": ((*dims, "lambda"), accuracy, describe("accuracy")),
        "loss_barrier": (dims, loss_barrier, describe("loss barrier", "nat")),
        "accuracy_barrier": (dims, accuracy_barrier, describe("accuracy barrier")),
        "choice_accuracy": (("pair", "permuted", "order"), choice, describe("accuracy of the merged pair")),
    }
    axes = {
        "alignment": ["before", "after"], "split": ["train", "test"], "permuted": ["first", "second"],
        "order": ["same", "other"],
    }  # fmt: skip
    coordinates = {name: (name, np.array(values, dtype=object), describe(name)) for name, values in axes.items()}
    coordinates |= {
        "lambda": ("lambda", weight, describe("weight of the second network")),
        "pair": ("pair", np.array([f"pair/{i}" for i in range(n)], dtype=object), describe("pair")),
        "group": ("pair", np.repeat(np.arange(groups), PAIRS), describe("group")),
    }
    return xr.Dataset(variables, coords=coordinates)
